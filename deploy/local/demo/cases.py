"""What the demo sends and what must become of it. Addresses are new in every run, so that a second run starts clean.

The simulator decides by the part before the `+`; it stands where Amazon SES stands.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

Door = Literal["http", "kafka"]
DOMAIN = "inbox.example"
LIST_ID = "demo-news"

DELIVERED, BOUNCED, COMPLAINT, FAILED, SENT = "delivered", "bounced", "complaint", "failed", "sent"

FATES: dict[str, tuple[str, frozenset[str]]] = {
    "success": (DELIVERED, frozenset({"delivery"})),
    "bounce": (BOUNCED, frozenset({"bounce"})),
    "softbounce": (BOUNCED, frozenset({"bounce"})),
    "complaint": (COMPLAINT, frozenset({"delivery", "complaint"})),
    "ooto": (DELIVERED, frozenset({"delivery", "bounce"})),
    "suppressionlist": (FAILED, frozenset({"bounce"})),
    "reject": (FAILED, frozenset({"reject"})),
    "delay": (DELIVERED, frozenset({"delay", "delivery"})),
    "open": (DELIVERED, frozenset({"delivery", "open"})),
    "click": (DELIVERED, frozenset({"delivery", "open", "click"})),
    "machine-open": (DELIVERED, frozenset({"delivery", "open"})),
    "blackhole": (SENT, frozenset({"send"})),
}
"""Behaviour of the simulator → the recipient's status in the end, and what must be in the history."""

WORST_FIRST = (COMPLAINT, BOUNCED, FAILED, "queued", SENT, DELIVERED)


@dataclass
class Case:
    """One message of the demo.

    Attributes:
        name: what it shows.
        door: by which way it goes in.
        body: in the names of `POST /api/email`; the Kafka door translates them.
        expected: recipient → status in the end.
        events: types that the history must hold.
        twice: sent a second time under the same key (HTTP) or message id (Kafka).
        suppress_first: put on the suppression list before it is sent.
        cancel: cancelled right after it was sent.
        not_before: no attempt may be earlier.
    """

    name: str
    door: Door
    body: dict[str, Any]
    expected: dict[str, str]
    events: frozenset[str] = frozenset()
    twice: bool = False
    suppress_first: bool = False
    cancel: bool = False
    not_before: datetime | None = None
    message_id: str = ""
    found: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The message's status: the worst of its recipients'."""
        return next(status for status in WORST_FIRST if status in self.expected.values())

    @property
    def calls(self) -> int:
        """How many mails the provider must have taken."""
        if self.cancel or self.suppress_first:
            return 0
        return len(self.expected)


class Run:
    """Makes the cases of one run."""

    def __init__(self, run: str, now: datetime) -> None:
        self.run, self.now, self._count = run, now, 0

    def address(self, behaviour: str) -> str:
        """A new address that behaves so."""
        self._count += 1
        return f"{behaviour}+{self.run}-{self._count}@{DOMAIN}"

    def case(self, name: str, door: Door, *behaviours: str, events: set[str] | None = None, **more: Any) -> Case:
        """A message to one recipient for each behaviour. `more`: fields of `Case`, else of the body."""
        own = {key: more.pop(key) for key in list(more) if key in Case.__dataclass_fields__}
        addresses = {self.address(behaviour): behaviour for behaviour in behaviours}
        body = {
            "to": list(addresses),
            "subject": f"Demo: {name}",
            "htmlContent": f"<h1>Hello</h1><p>It shows: {name}. <a href='https://crm.example/'>Open the CRM</a></p>",
            "textContent": f"This message shows: {name}.",
            "category": "notification",
            "priority": "normal",
            "tags": {"demo": self.run},
            **more,
        }
        if body["category"] == "marketing":
            body.setdefault("listId", LIST_ID)
        if body.get("templateId"):
            body.pop("htmlContent")
            body.pop("textContent")
        wanted = frozenset().union(*(FATES[behaviour][1] for behaviour in behaviours)) if events is None else events
        expected = {address: FATES[behaviour][0] for address, behaviour in addresses.items()}
        return Case(name, door, body, own.pop("expected", expected), frozenset(wanted), **own)

    def cases(self) -> list[Case]:
        """A few dozen messages: every category, every priority, both doors, every fate."""
        made: list[Case] = []
        doors: tuple[Door, Door] = ("http", "kafka")
        for number, category in enumerate(("auth", "notification", "marketing", "system", "client-portal")):
            for step, priority in enumerate(("low", "normal", "high", "urgent")):
                door = doors[(number + step) % 2]
                made.append(self.case(f"{category}, {priority}", door, "success", category=category, priority=priority))
        for number, behaviour in enumerate(behaviour for behaviour in FATES if behaviour != "success"):
            made.append(self.case(f"fate: {behaviour}", doors[number % 2], behaviour))
        made += [
            self.case(
                "template 2fa-code",
                "http",
                "success",
                category="auth",
                priority="high",
                templateId="2fa-code",
                templateData={"name": "Jane Doe", "token": "482913", "expiresInMinutes": 10},
            ),
            self.case(
                "template welcome, client portal",
                "kafka",
                "success",
                category="client-portal",
                templateId="welcome",
                templateData={"name": "Jane Doe", "isClient": True},
            ),
            self.case(
                "template password-reset",
                "http",
                "success",
                category="auth",
                priority="high",
                templateId="password-reset",
                templateData={"name": "Jane Doe", "resetToken": "r-4711", "expiresInHours": 24},
            ),
            self.case(
                "an attachment",
                "http",
                "success",
                attachments=[
                    {
                        "filename": "Rechnung Nº 7 – März.txt",
                        "contentType": "text/plain",
                        "content": base64.b64encode(b"Total: 42.00 EUR\n" * 20).decode(),
                    }
                ],
            ),
            self.case("three recipients, three fates", "http", "success", "bounce", "complaint"),
            self.case("marketing, opened and clicked", "kafka", "click", "open", category="marketing", priority="low"),
            self.case("repeated under the same key", "http", "success", twice=True),
            self.case("repeated under the same message id", "kafka", "success", twice=True),
        ]
        at = self.now + timedelta(seconds=6)
        made.append(self.case("scheduled", "http", "success", sendAt=at.isoformat(), not_before=at))
        later = (self.now + timedelta(hours=1)).isoformat()
        for door in doors:
            cancelled = self.case(
                "cancelled in time", door, "success", sendAt=later, cancel=True, events={"cancel", "fail"}
            )
            suppressed = self.case("suppressed before", door, "success", suppress_first=True, events={"fail"})
            for case in (cancelled, suppressed):
                case.expected = dict.fromkeys(case.expected, FAILED)
                made.append(case)
        return made


INVALID: dict[str, Any] = {
    "to": ["not-an-address", "also@bad"],
    "subject": "",
    "category": "spam",
    "textContent": "x",
    "surprise": True,
}
"""What both doors must refuse, naming each of these fields."""
INVALID_FIELDS = {"to[0]", "to[1]", "subject", "category", "surprise"}
