"""What each role of the files service reads from Kafka, and with which group, and what it publishes there."""

from __future__ import annotations

from typing import Final, Literal, get_args

from contracts.topics import FILES_COMMANDS, FILES_EVENTS, FILES_NOTIFICATIONS, Topic
from services.kit.kafka.access import Access, Reading

Role = Literal["all", "http", "commands", "ingest", "translator", "settler", "relay"]
ROLES: Final[tuple[str, ...]] = get_args(Role)

COMMANDS: Final = Reading("files-commands", FILES_COMMANDS.name)
TRANSLATOR: Final = Reading("files-translator", FILES_NOTIFICATIONS.name)
SETTLER: Final = Reading("files-settler", FILES_EVENTS.name)

READS: Final[dict[str, tuple[Reading, ...]]] = {
    "commands": (COMMANDS,),
    "translator": (TRANSLATOR,),
    "settler": (SETTLER,),
}
"""Role → its consumer groups; a role that is not there has none."""

WRITES: Final[dict[str, tuple[Topic, ...]]] = {"ingest": (FILES_NOTIFICATIONS,)}
"""Role → what it publishes beside `files.events`, onto which every role publishes what it appended."""


def access_of(role: str) -> Access:
    """What a process with this role does on Kafka."""
    return Access.of(ROLES if role == "all" else (role,), READS, WRITES, (FILES_EVENTS,))
