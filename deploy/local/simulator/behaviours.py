"""What becomes of a mail, by the recipient's address: as the SES mailbox simulator, at any domain, and more.

The part before `@`, without a `+label` and whatever its case, chooses; anything unknown delivers.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "Send",
    "Delivery",
    "Bounce",
    "Complaint",
    "Reject",
    "Open",
    "Click",
    "Rendering Failure",
    "DeliveryDelay",
    "Subscription",
]

EVENT_TYPES: dict[str, Kind] = {
    "SEND": "Send",
    "DELIVERY": "Delivery",
    "BOUNCE": "Bounce",
    "COMPLAINT": "Complaint",
    "REJECT": "Reject",
    "OPEN": "Open",
    "CLICK": "Click",
    "RENDERING_FAILURE": "Rendering Failure",
    "DELIVERY_DELAY": "DeliveryDelay",
    "SUBSCRIPTION": "Subscription",
}
"""SES's names in the API (`MatchingEventTypes`) and in notifications (`eventType`)."""


@dataclass(frozen=True, slots=True)
class Step:
    """One notification, `variant` saying which bounce, complaint or reader it is."""

    kind: Kind
    variant: str = ""


SEND = Step("Send")
DELIVERY = Step("Delivery")
SUPPRESSED = (Step("Bounce", "suppressed"),)
REFUSED_WHOLE = ("Reject", "Rendering Failure")
"""SES makes no attempt for these, so there is no Send either."""

BEHAVIOURS: dict[str, tuple[Step, ...]] = {
    "success": (DELIVERY,),
    "bounce": (Step("Bounce", "permanent"),),
    "softbounce": (Step("Bounce", "transient"),),
    "undetermined": (Step("Bounce", "undetermined"),),
    "latebounce": (DELIVERY, Step("Bounce", "permanent")),
    "ooto": (DELIVERY, Step("Bounce", "outOfOffice")),
    "complaint": (DELIVERY, Step("Complaint", "abuse")),
    "notspam": (DELIVERY, Step("Complaint", "abuse"), Step("Complaint", "not-spam")),
    "suppressionlist": SUPPRESSED,
    "reject": (Step("Reject"),),
    "renderfail": (Step("Rendering Failure"),),
    "delay": (Step("DeliveryDelay"), DELIVERY),
    "open": (DELIVERY, Step("Open", "person")),
    "click": (DELIVERY, Step("Open", "person"), Step("Click", "person")),
    "machine-open": (DELIVERY, Step("Open", "proxy")),
    "unsubscribe": (DELIVERY, Step("Subscription")),
    "blackhole": (),
    "noevents": (),
}
SILENT = ("blackhole", "noevents")


def local_name(address: str) -> str:
    """`bounce` of `Bounce+label@example.com`."""
    return address.partition("@")[0].partition("+")[0].lower()


def steps(address: str) -> tuple[Step, ...]:
    """What happens to one recipient after the Send, in order."""
    return BEHAVIOURS.get(local_name(address), (DELIVERY,))


def timeline(destination: tuple[str, ...], suppressed: frozenset[str]) -> list[tuple[Step, str | None]]:
    """All notifications of one mail in order, each with the recipient it is about (None: the mail as a whole).

    `suppressed` are the recipients on the account's suppression list: SES accepts them and does not try.
    """
    chosen = [(address, SUPPRESSED if address in suppressed else steps(address)) for address in destination]
    for _, plan in chosen:
        if plan and plan[0].kind in REFUSED_WHOLE:
            return [(plan[0], None)]
    if all(address not in suppressed and local_name(address) in SILENT for address in destination):
        return []
    planned: list[tuple[Step, str | None]] = [(SEND, None)]
    planned += [(step, address) for address, plan in chosen for step in plan]
    return planned
