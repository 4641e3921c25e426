"""EmailLog: one message and what became of it, as `contracts.views.EmailLog` describes. Status rules: contracts.md §2.

Everything shown is decided by which events are known and by their own times, never by which came last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from contracts.topics import EMAIL_EVENTS
from contracts.views import WORST_FIRST, EmailLog, EmailStatus
from services.events.projections.delivery import Delivery
from services.events.projections.known import NO_OVERFLOW, Counted, Engagement, KnownEvent, Overflow, effective
from services.events.projections.link_scans import with_scans_marked

NAME: Final = "email_log"
VERSION: Final = 2
TOPIC: Final = EMAIL_EVENTS.name
Document = EmailLog
INDEXES: Final[tuple[tuple[tuple[str, int], ...], ...]] = (
    (("category", 1), ("status", 1), ("createdAt", -1)),
    (("userId", 1), ("createdAt", -1)),
    (("clientId", 1), ("createdAt", -1)),
    (("events.type", 1), ("events.timestamp", -1)),
    (("recipients.providerMessageId", 1),),
    (("to", 1), ("createdAt", -1)),
)

Body = dict[str, Any]
"""A document as MongoDB stores it, times as aware datetimes; `_permanent` lists the addresses that bounced for good."""

LOG_TYPES: Final[dict[str, str]] = {
    "email.requested": "request",
    "email.cancelled": "cancel",
    "email.sendAttempted": "attempt",
    "email.sendOutcomeUnknown": "unknown",
    "email.sendRejected": "reject",
    "email.sent": "send",
    "email.sendConfirmed": "confirm",
    "email.attemptSettled": "settle",
    "email.rejected": "reject",
    "email.deliveryDelayed": "delay",
    "email.bounced": "bounce",
    "email.delivered": "delivery",
    "email.opened": "open",
    "email.clicked": "click",
    "email.complained": "complaint",
    "email.complaintWithdrawn": "complaint",
    "email.unsubscribed": "unsubscribe",
    "email.failed": "fail",
}
"""Wire name → how the history calls it. A withdrawn complaint is a complaint with `withdrawn` in its metadata."""


def _counted(event: KnownEvent) -> Counted:
    return Counted(event.data["recipient"], bool(event.data.get("machine")))


ENGAGEMENT: Final = Engagement(frozenset({"email.opened", "email.clicked"}), _counted)
"""Opens and clicks outside the document are counted for each recipient, people and machines apart. By what each says of
itself: scans of links are told within the document.
"""

_PLAIN: Final = ("to", "cc", "bcc", "from", "replyTo", "subject", "content", "category")
_LATER: Final = ("userId", "clientId", "templateId")
_ATTACHMENT: Final = ("filename", "contentType", "size", "fileId")


def fold(events: Iterable[KnownEvent], overflow: Overflow = NO_OVERFLOW) -> Body | None:
    """The document of a set of events, one per id; None while no `email.requested` is known.

    Args:
        events: in any order; types that are not of mail are ignored.
        overflow: the engagement facts that lie outside the document.
    """
    return document_of(with_scans_marked(effective(events)), overflow)


def document_of(ordered: Sequence[KnownEvent], overflow: Overflow) -> Body | None:
    """The document of the events that count, in their order; of every version of the fold. A change here changes the
    documents of earlier versions too: whoever needs one gives those a copy.
    """
    request = next((event for event in ordered if event.type == "email.requested"), None)
    if request is None:
        return None
    deliveries = {address: Delivery(address, request.time) for address in _recipients(request.data)}
    history: list[Body] = []
    latest = request.time
    for event in ordered:
        log_type = LOG_TYPES.get(event.type)
        if log_type is None:
            continue
        history.append(_log_event(log_type, event))
        latest = event.time  # they are in order
        delivery = deliveries.get(event.data.get("recipient", ""))
        if delivery is not None:
            delivery.take(event)
    for tally in overflow:
        latest = max(latest, tally.last)
        if tally.recipient in deliveries:
            deliveries[tally.recipient].take_tally(tally)
    return _body(request, list(deliveries.values()), history, latest, truncated=bool(overflow))


def _body(
    request: KnownEvent, deliveries: list[Delivery], history: list[Body], latest: str, *, truncated: bool
) -> Body:
    said = request.data
    statuses = [delivery.status for delivery in deliveries]
    body: Body = {"messageId": request_id(request)}
    body |= {name: said[name] for name in _PLAIN if name in said}
    body["status"] = worst(statuses)
    body["priority"] = said["priority"]
    body["events"] = history
    if truncated:
        body["eventsTruncated"] = True
    body["recipients"] = [delivery.log(status) for delivery, status in zip(deliveries, statuses, strict=True)]
    body |= {name: said[name] for name in _LATER if name in said}
    body["cost"] = _cost(deliveries)
    body["size"] = sum(size for delivery in deliveries for size in delivery.sizes.values())
    for name in ("tags", "customData"):
        if name in said:
            body[name] = said[name]
    if "attachments" in said:
        body["attachments"] = [
            {name: each[name] for name in _ATTACHMENT if each.get(name) is not None} for each in said["attachments"]
        ]
    providers = {delivery.provider for delivery in deliveries if delivery.provider is not None}
    if len(providers) == 1:
        body["provider"] = providers.pop()
    body["createdAt"] = instant(request.time)
    body["updatedAt"] = instant(latest)
    permanent = [delivery.address for delivery in deliveries if delivery.bounced_for_good]
    if permanent:
        body["_permanent"] = permanent
    return body


def request_id(request: KnownEvent) -> str:
    """The message's id, by its `email.requested`."""
    message_id: str = request.data["messageId"]
    return message_id


def worst(statuses: Iterable[EmailStatus]) -> EmailStatus:
    """The message's status: the worst of its recipients'; `queued` for a message without any."""
    found = set(statuses)
    return next((status for status in WORST_FIRST if status in found), "queued")


instant: Callable[[str], datetime] = datetime.fromisoformat
"""The aware time of an event's canonical time."""


def _recipients(said: Body) -> dict[str, None]:
    return dict.fromkeys((*said["to"], *said.get("cc", ()), *said.get("bcc", ())))


def _log_event(log_type: str, event: KnownEvent) -> Body:
    shown: Body = {"type": log_type, "timestamp": instant(event.time)}
    if event.type == "email.requested":
        shown["metadata"] = {}
        return shown
    metadata = event.data.copy()
    recipient = metadata.pop("recipient", None)
    if recipient is not None:
        shown["recipient"] = recipient
    if event.type == "email.complaintWithdrawn":
        metadata["withdrawn"] = True
    shown["metadata"] = metadata
    return shown


def _cost(deliveries: list[Delivery]) -> Body:
    """The sum over all attempts. Prices of one table share their currency; amounts in another one are not added up."""
    costs = [cost for delivery in deliveries for cost in delivery.costs.values()]
    currency = costs[0]["currency"] if costs else "USD"
    return {"amount": sum(cost["amount"] for cost in costs if cost["currency"] == currency), "currency": currency}
