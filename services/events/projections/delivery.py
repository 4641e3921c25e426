"""One recipient of one message: what is known of the delivery, and its status by the table of contracts.md §2."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, ClassVar, Final

from contracts.views import EmailStatus
from services.events.projections.known import KnownEvent, Tally

ON_ACCOUNT_LIST: Final = "OnAccountSuppressionList"
"""The subtype with which SES says that it accepted a message and did not try, since the address is on its list."""


class Delivery:
    """Takes the recipient's events in their order and tells the status. One use: made, fed, asked.

    `sizes` and `costs` hold what each accepted attempt moved and cost, by attempt: `email.sent` and
    `email.attemptSettled` may both tell of one.
    """

    __slots__ = (
        "_accepted_by",
        "_attempts",
        "_complained",
        "_delivered",
        "_ended",
        "_engaged",
        "_failed",
        "_failed_unknown",
        "_last",
        "_permanent",
        "_proven",
        "_reported_by",
        "_settled",
        "_soft",
        "_unknown",
        "address",
        "costs",
        "sizes",
    )

    def __init__(self, address: str, since: str) -> None:
        self.address = address
        self.sizes: dict[str, int] = {}
        self.costs: dict[str, dict[str, Any]] = {}
        self._last = since
        self._attempts: dict[str, str] = {}
        self._accepted_by: tuple[str | None, str | None] | None = None  # provider, its message id: by a decision
        self._reported_by: tuple[str | None, str | None] | None = None  # the same, by a fact
        self._proven = False
        self._complained = False
        self._permanent = False
        self._soft = False
        self._delivered = False
        self._failed = False
        self._failed_unknown = False
        self._ended = False
        self._unknown: set[str] = set()
        self._settled: set[str] = set()
        self._engaged = [0, 0, 0, 0]  # opens, clicks, machine opens, machine clicks

    def take(self, event: KnownEvent) -> None:
        """Take the next event that names this recipient."""
        self._last = event.time
        self._TAKE[event.type](self, event.data)
        if event.type in _FACTS:
            self._prove(event.data)

    def take_tally(self, tally: Tally) -> None:
        """Take engagement facts that lie outside the document, after all events."""
        self._last = max(self._last, tally.last)
        self._proven = True
        self._engaged[(tally.type == "email.clicked") + 2 * tally.machine] += tally.facts

    @property
    def status(self) -> EmailStatus:
        """The first rule that holds."""
        if self._complained:
            return "complaint"
        if self._permanent or (self._soft and not self._delivered):
            return "bounced"
        if self._delivered:
            return "delivered"
        if self._failed or (self._failed_unknown and not self._proven):
            return "failed"
        return "sent" if self._proven else "queued"

    @property
    def bounced_for_good(self) -> bool:
        """Whether a permanent bounce makes it bounced."""
        return self._permanent and not self._complained

    @property
    def outcome_unknown(self) -> bool:
        """Whether an attempt got no answer and nothing has told since."""
        return not self._ended and bool(self._unknown - self._settled)

    @property
    def provider(self) -> str | None:
        """Who accepted it last; before that, who was called last."""
        for source in (self._accepted_by, self._reported_by):
            if source is not None and source[0] is not None:
                return source[0]
        return next(reversed(self._attempts.values()), None)

    def log(self, status: EmailStatus) -> dict[str, Any]:
        """The entry in `recipients`."""
        entry: dict[str, Any] = {"address": self.address, "status": status}
        if self.outcome_unknown:
            entry["outcomeUnknown"] = True
        provider = self.provider
        if provider is not None:
            entry["provider"] = provider
        message_id = next(
            (found[1] for found in (self._accepted_by, self._reported_by) if found is not None and found[1]), None
        )
        if message_id is not None:
            entry["providerMessageId"] = message_id
        entry["attempts"] = len(self._attempts)
        entry["lastEventAt"] = datetime.fromisoformat(self._last)
        entry["opens"], entry["clicks"], entry["machineOpens"], entry["machineClicks"] = self._engaged
        return entry

    def _prove(self, data: dict[str, Any]) -> None:
        """A fact proves that a provider accepted the attempt it names, or the only one it can mean."""
        self._proven = True
        attempt = data.get("attemptId")
        if attempt is None:
            self._settled |= self._unknown
        else:
            self._settled.add(attempt)
        provider, message_id = data.get("provider"), data.get("providerMessageId")
        if message_id is not None or self._reported_by is None:
            self._reported_by = (provider, message_id)

    def _accepted(self, data: dict[str, Any]) -> None:
        attempt = data["attemptId"]
        self._proven = True
        self._settled.add(attempt)
        provider, message_id = data.get("provider", self._attempts.get(attempt)), data.get("providerMessageId")
        if message_id is not None or self._accepted_by is None:
            self._accepted_by = (provider, message_id)
        if data.get("size") is not None:
            self.sizes.setdefault(attempt, data["size"])
        if data.get("cost") is not None:
            self.costs.setdefault(attempt, data["cost"])

    def _attempted(self, data: dict[str, Any]) -> None:
        self._attempts.setdefault(data["attemptId"], data["provider"])

    def _got_no_answer(self, data: dict[str, Any]) -> None:
        self._unknown.add(data["attemptId"])

    def _refused(self, data: dict[str, Any]) -> None:
        self._settled.add(data["attemptId"])

    def _was_settled(self, data: dict[str, Any]) -> None:
        if data["outcome"] == "accepted":
            self._accepted(data)
        else:
            self._settled.add(data["attemptId"])

    def _was_failed(self, data: dict[str, Any]) -> None:
        self._ended = True
        if data["reason"] == "outcomeUnknown":
            self._failed_unknown = True
        else:
            self._failed = True

    def _was_rejected(self, _data: dict[str, Any]) -> None:
        self._failed = True

    def _has_bounced(self, data: dict[str, Any]) -> None:
        if data["bounceSubType"] == ON_ACCOUNT_LIST:
            self._failed = True
        elif data["bounceType"] == "permanent":
            self._permanent = True
        else:
            self._soft = True

    def _was_delivered(self, _data: dict[str, Any]) -> None:
        self._delivered = True
        self._permanent = False  # the bounce came before

    def _has_complained(self, data: dict[str, Any]) -> None:
        if data.get("complaintSubType") == ON_ACCOUNT_LIST:
            self._failed = True
        else:
            self._complained = True

    def _has_withdrawn(self, _data: dict[str, Any]) -> None:
        self._complained = False

    def _has_opened(self, data: dict[str, Any]) -> None:
        self._engaged[2 * bool(data.get("machine"))] += 1

    def _has_clicked(self, data: dict[str, Any]) -> None:
        self._engaged[1 + 2 * bool(data.get("machine"))] += 1

    def _has_unsubscribed(self, data: dict[str, Any]) -> None:
        """By the link in the message or through the provider, so it had arrived; an operator needs no mail for it."""
        if data["source"] != "operator":
            self._prove(data)

    def _nothing_more(self, _data: dict[str, Any]) -> None:
        """That it happened is all it says."""

    _TAKE: ClassVar[dict[str, Callable[[Delivery, dict[str, Any]], None]]] = {
        "email.requested": _nothing_more,
        "email.cancelled": _nothing_more,
        "email.sendAttempted": _attempted,
        "email.sendOutcomeUnknown": _got_no_answer,
        "email.sendRejected": _refused,
        "email.sent": _accepted,
        "email.sendConfirmed": _nothing_more,
        "email.attemptSettled": _was_settled,
        "email.rejected": _was_rejected,
        "email.deliveryDelayed": _nothing_more,
        "email.bounced": _has_bounced,
        "email.delivered": _was_delivered,
        "email.opened": _has_opened,
        "email.clicked": _has_clicked,
        "email.complained": _has_complained,
        "email.complaintWithdrawn": _has_withdrawn,
        "email.unsubscribed": _has_unsubscribed,
        "email.failed": _was_failed,
    }


_FACTS: Final = frozenset(
    {
        "email.sendConfirmed",
        "email.rejected",
        "email.deliveryDelayed",
        "email.bounced",
        "email.delivered",
        "email.opened",
        "email.clicked",
        "email.complained",
        "email.complaintWithdrawn",
    }
)
"""Each of these, `email.rejected` too, proves that the provider's API had accepted the message."""
