"""Faults on request: what goes wrong, with whom, how often. Seeded, so that a run can be repeated."""

import random
import re
from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

RequestKind = Literal[
    "throttle", "accountSuspended", "sendingPaused", "refuse", "proxyRefuses", "serverError", "dropBeforeAccept", "slow"
]
AnswerKind = Literal["acceptThenDrop", "acceptThenError", "slowAnswer", "malformedReply"]
NotificationKind = Literal["silent", "duplicate", "delay", "reorder", "malformed"]

REFUSALS: dict[str, tuple[str, str]] = {
    "throttle": ("TooManyRequestsException", "Maximum sending rate exceeded."),
    "accountSuspended": ("AccountSuspendedException", "Your account is suspended."),
    "sendingPaused": ("SendingPausedException", "Email sending is disabled for this account."),
}


class Fault(BaseModel):
    """One rule. Of those that fit, the first whose dice say so applies (one for each phase of a call).

    Requests, nothing is accepted: `throttle` (429), `accountSuspended`, `sendingPaused`, `refuse` (`code`, any name of
    SES's errors, `message`, `status`), `proxyRefuses` (`status`, 403: an HTML page without any sign of SES),
    `serverError` (`status`, 500 or 503), `dropBeforeAccept` (the whole request is read, then the connection reset).
    `slow` waits `ms` and then goes on, whether the client still waits or not. Answers, the mail is accepted and logged:
    `acceptThenDrop`, `acceptThenError` (`status`), `slowAnswer` (`ms`). Notifications: `silent` (none), `duplicate`
    (`copies` in all), `delay` (`ms`), `reorder` (each held back for up to `ms`), `malformed` (`how`).
    `refuseConnections` closes the port for `seconds`, at once and once.

    Of SMTP, at the `operation`s `SmtpConnect` (the greeting), `SmtpAuth`, `SmtpMail`, `SmtpRcpt`, `SmtpData` (before
    the message), `SmtpDot` (after it): `refuse` (`status` and `message` are the reply; 421 ends the connection, too),
    `dropBeforeAccept`, `slow`, `malformedReply` (`message` is the whole line). At the dot, `acceptThenDrop`,
    `slowAnswer` and `malformedReply` come after acceptance.

    `probability` and `count` limit how often, `match` (a regular expression, searched) with whom: it looks at the
    recipients of a send and at the address of a suppression-list call. `operation` says which calls; faults of
    answers concern sends only, and those of notifications SendEmail. At SendGrid and Mailgun `refuse` has their words:
    `code` is SendGrid's field, `message` either's text.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: RequestKind | AnswerKind | NotificationKind | Literal["refuseConnections"]
    operation: Literal[
        "SendEmail",
        "GetAccount",
        "SuppressedDestination",
        "SendGridSend",
        "MailgunSend",
        "SmtpConnect",
        "SmtpAuth",
        "SmtpMail",
        "SmtpRcpt",
        "SmtpData",
        "SmtpDot",
        "*",
    ] = "SendEmail"
    probability: float = Field(default=1.0, ge=0, le=1)
    count: int | None = Field(default=None, ge=1)
    match: str | None = None
    code: str = "MessageRejected"
    message: str = "Refused by the simulator."
    status: int | None = Field(default=None, ge=400, le=599)
    ms: float = Field(default=0, ge=0)
    seconds: float = Field(default=0, ge=0, le=600)
    copies: int = Field(default=2, ge=2, le=100)
    how: Literal["notJson", "truncated", "noMail", "wrongTypes", "deep"] = "notJson"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        try:
            re.compile(self.match or "")
        except re.error as error:
            raise ValueError(f"match is not a regular expression: {error}") from None
        if self.kind in ("slow", "slowAnswer", "delay", "reorder") and not self.ms:
            raise ValueError(f"{self.kind} needs ms")
        if self.kind == "refuseConnections" and not self.seconds:
            raise ValueError("refuseConnections needs seconds")
        return self


class _Rule:
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.pattern = re.compile(fault.match) if fault.match is not None else None
        self.fired = 0

    @property
    def spent(self) -> bool:
        return self.fault.count is not None and self.fired >= self.fault.count


class Faults:
    """The rules in force. Drawing from them uses up their counts."""

    def __init__(self, seed: int) -> None:
        self._rules: list[_Rule] = []
        self._random = random.Random(seed)

    def replace(self, faults: Iterable[Fault], seed: int | None = None) -> None:
        self._rules = [_Rule(fault) for fault in faults]
        if seed is not None:
            self._random.seed(seed)

    def draw(self, kinds: frozenset[str], operation: str, addresses: Iterable[str]) -> Fault | None:
        """The fault of one of `kinds` that strikes now, if any."""
        for rule in self._rules:
            fault = rule.fault
            if fault.kind not in kinds or rule.spent or fault.operation not in (operation, "*"):
                continue
            if rule.pattern is not None and not any(rule.pattern.search(address) for address in addresses):
                continue
            if fault.probability < 1 and self._random.random() >= fault.probability:
                continue
            rule.fired += 1
            return fault
        return None

    def uniform(self, upper: float) -> float:
        return self._random.uniform(0, upper)

    def stands(self, kind: str) -> bool:
        """Whether a rule of this kind strikes every time and everyone: then GetAccount shows it, too."""
        return any(
            rule.fault.kind == kind and not rule.spent and rule.fault.probability == 1 and rule.fault.match is None
            for rule in self._rules
        )

    def describe(self) -> list[dict[str, Any]]:
        return [{**rule.fault.model_dump(exclude_defaults=True), "fired": rule.fired} for rule in self._rules]


REQUEST = frozenset(
    ("throttle", "accountSuspended", "sendingPaused", "refuse", "proxyRefuses", "serverError", "dropBeforeAccept")
)
SLOW = frozenset(("slow",))
ANSWER = frozenset(("acceptThenDrop", "acceptThenError"))
SLOW_ANSWER = frozenset(("slowAnswer",))
SMTP = frozenset(("refuse", "dropBeforeAccept"))
SMTP_ANSWER = frozenset(("acceptThenDrop", "malformedReply"))
SILENT = frozenset(("silent",))
DUPLICATE = frozenset(("duplicate",))
LATE = frozenset(("delay", "reorder"))
MALFORMED = frozenset(("malformed",))


def malform(message: bytes, how: str) -> bytes:
    """A notification as it must never be, in the given way."""
    if how == "truncated":
        return message[: len(message) // 2]
    if how == "noMail":
        return b'{"eventType":"Delivery","delivery":{}}\n'
    if how == "wrongTypes":
        return b'{"eventType":"Delivery","mail":[1],"delivery":"yes"}\n'
    if how == "deep":
        return b"[" * 50_000 + b"]" * 50_000
    return b"This is not JSON.\n"
