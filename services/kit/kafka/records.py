"""What a consumer gets and what it answers: values that know nothing of a Kafka client."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias

ParkKind = Literal["poison", "bug", "uncorrelated", "conflictingRepeat", "orphan"]
"""Why a record is set aside: it can never be read (`poison`), our code failed on it (`bug`), what it belongs
to is not known yet (`uncorrelated`, retried by itself), it repeats an id with other content
(`conflictingRepeat`), or it is about something that is none of ours (`orphan`, an operator's to look at and no
failure).
"""


class Partition(NamedTuple):
    """A partition of a topic; equal to (topic, partition) and to aiokafka's TopicPartition."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record as it lies in the log. Header values may be null and need not be UTF-8.

    `timestamp_ms` is by the broker's clock where `log_append_time` (the topic's `message.timestamp.type`); otherwise it
    is the producer's word.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    log_append_time: bool = False

    @property
    def origin(self) -> tuple[str, int, int]:
        """(topic, partition, offset): unique for ever."""
        return (self.topic, self.partition, self.offset)

    def header(self, name: str) -> bytes | None:
        """The last value under `name` (Kafka keeps repeats), None when absent or null."""
        return next((value for key, value in reversed(self.headers) if key == name), None)


@dataclass(frozen=True, slots=True)
class Done:
    """The record's effect is acknowledged where it belongs; its offset may go."""


DONE: Final = Done()


@dataclass(frozen=True, slots=True)
class Retry:
    """Not handled; hand it out again. `after` in seconds, None = the loop's own backoff."""

    error: BaseException
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Park:
    """Set it aside and go on. `reason` is a stable slug, `detail` is for people and free of personal data; `error`
    is kept with its stack, `decision` is what was decided and could not be carried out. `kept` = the record is taken
    all the same, and only what could not be made of it is told: whoever reads it again takes it again.
    """

    reason: str
    kind: ParkKind
    detail: str = ""
    error: BaseException | None = None
    decision: str | None = None
    kept: bool = False


Outcome: TypeAlias = Done | Retry | Park

BatchHandler: TypeAlias = Callable[[Sequence[Record]], Awaitable[Sequence[Outcome]]]
"""Handles a batch over one or several partitions and answers one outcome for each record, in the same order.

Within a partition records come in offset order; the handler keeps the order of records with the same key. It
is called again with records it has handled before (crash, rebalance, time-out), so its effects must bear
repetition. When it raises, nothing of the batch counts as handled: a transient error hands the batch out
again, any other is traced to the single records that cause it.
"""
