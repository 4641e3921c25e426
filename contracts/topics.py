"""The one list of topics. Partition counts are frozen: a key must stay in its partition for ever."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Retention = int | Literal["forever"]
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Topic:
    """A Kafka topic as it must be.

    Attributes:
        name: the topic's name.
        partitions: how many; never changed.
        retention_ms: milliseconds a record is kept, or "forever".
        key: what the record's key is, in words.
        max_message_bytes: the largest record batch that the broker takes.
        timestamps: whose clock a record's timestamp is by, the producer's (`CreateTime`) or the broker's
            (`LogAppendTime`). By the broker's where our rules count from it and anybody may produce.
    """

    name: str
    partitions: int
    retention_ms: Retention
    key: str
    max_message_bytes: int = 1_048_588
    timestamps: Literal["CreateTime", "LogAppendTime"] = "CreateTime"

    @property
    def configs(self) -> dict[str, str]:
        """The topic's configuration as Kafka spells it."""
        keep = "-1" if self.retention_ms == "forever" else str(self.retention_ms)
        return {
            "cleanup.policy": "delete",
            "retention.ms": keep,
            "retention.bytes": "-1",
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": self.timestamps,
        }


def _commands(name: str, key: str) -> Topic:
    return Topic(name, 6, 3 * DAY_MS, key, timestamps="LogAppendTime")


COMMANDS_URGENT = _commands("email.commands.urgent", "messageId")
COMMANDS_HIGH = _commands("email.commands.high", "messageId")
COMMANDS_NORMAL = _commands("email.commands.normal", "messageId")
COMMANDS_LOW = _commands("email.commands.low", "messageId")
EMAIL_NOTIFICATIONS = Topic("email.notifications", 12, 90 * DAY_MS, "transport id, null if none can be read")
EMAIL_EVENTS = Topic("email.events", 24, "forever", "messageId")
RECIPIENTS_EVENTS = Topic("recipients.events", 12, "forever", "recipient key")
FILES_COMMANDS = _commands("files.commands", "fileId")
FILES_NOTIFICATIONS = Topic("files.notifications", 12, 90 * DAY_MS, "transport id, null if none can be read")
FILES_EVENTS = Topic("files.events", 24, "forever", "fileId")

LANES: dict[str, Topic] = {
    "urgent": COMMANDS_URGENT,
    "high": COMMANDS_HIGH,
    "normal": COMMANDS_NORMAL,
    "low": COMMANDS_LOW,
}
"""Priority → the topic of its commands, urgent first."""

TOPICS: tuple[Topic, ...] = (
    *LANES.values(),
    EMAIL_NOTIFICATIONS,
    EMAIL_EVENTS,
    RECIPIENTS_EVENTS,
    FILES_COMMANDS,
    FILES_NOTIFICATIONS,
    FILES_EVENTS,
)
