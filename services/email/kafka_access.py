"""What each role of the email service reads from Kafka, and with which group, and what it publishes there."""

from __future__ import annotations

from typing import Final, Literal, get_args

from contracts.topics import EMAIL_EVENTS, EMAIL_NOTIFICATIONS, FILES_EVENTS, LANES, RECIPIENTS_EVENTS, Topic
from services.kit.kafka.access import Access, Reading

Role = Literal["all", "lanes", "http", "intake", "sender", "ingest", "translator", "settler", "relay"]
ROLES: Final[tuple[str, ...]] = get_args(Role)

SENDING: Final = frozenset({"intake", "sender"})
"""What the role `lanes` is made of."""

INTAKE: Final = {lane: Reading(f"email-intake-{lane}", topic.name) for lane, topic in LANES.items()}
TRANSLATOR: Final = Reading("email-translator", EMAIL_NOTIFICATIONS.name)
SETTLER: Final = Reading("email-settler", EMAIL_EVENTS.name)
FILES: Final = Reading("email-files", FILES_EVENTS.name)

READS: Final[dict[str, tuple[Reading, ...]]] = {
    "intake": tuple(INTAKE.values()),
    "translator": (TRANSLATOR,),
    "settler": (SETTLER, FILES),
}
"""Role → its consumer groups; a role that is not there has none."""

DECISIONS: Final = (EMAIL_EVENTS, RECIPIENTS_EVENTS)
"""What every role publishes: the outbox of what it appended."""

WRITES: Final[dict[str, tuple[Topic, ...]]] = {
    "http": (*LANES.values(), EMAIL_NOTIFICATIONS),  # commands, and what providers' webhooks bring
    "ingest": (EMAIL_NOTIFICATIONS,),
}
"""Role → what it publishes beside `DECISIONS`."""


def roles_in(role: str) -> frozenset[str]:
    """The roles that a process with this one plays."""
    if role == "all":
        return frozenset(ROLES)
    return SENDING if role == "lanes" else frozenset({role})


def access_of(role: str) -> Access:
    """What a process with this role does on Kafka."""
    plays = roles_in(role)
    return Access.of((each for each in ROLES if each in plays), READS, WRITES, DECISIONS)
