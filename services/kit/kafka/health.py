"""What a consumer loop says of itself: whether it moves, and if not, why not."""

from dataclasses import dataclass

from services.kit.breaker import BreakerState


@dataclass(frozen=True, slots=True)
class PartitionHealth:
    """One assigned partition.

    Attributes:
        position: the first offset that is not handled.
        end, lag: end offset and how far away it is, as of the last fetch; None = not fetched yet.
        moved_seconds_ago: since the last progress; 0 when there is nothing to read.
        blocked: why it cannot be read; "" = it can.
        waiting: why its records are handed out again; "" = they are not.
    """

    topic: str
    partition: int
    position: int
    end: int | None
    lag: int | None
    moved_seconds_ago: float
    blocked: str = ""
    waiting: str = ""


@dataclass(frozen=True, slots=True)
class LoopHealth:
    """A consumer loop.

    Attributes:
        live: the loop turns. False = a restart of the process may help.
        healthy: every partition moves, or is idle and caught up, and nothing holds the loop.
        reasons: why it is not healthy, one sentence each.
    """

    group: str
    live: bool
    healthy: bool
    reasons: tuple[str, ...]
    breaker: BreakerState
    partitions: tuple[PartitionHealth, ...]

    @property
    def lag(self) -> int:
        """Records behind, in all partitions assigned here."""
        return sum(partition.lag or 0 for partition in self.partitions)

    @property
    def caught_up(self) -> bool:
        """Whether everything that is known to be there is handled."""
        return bool(self.partitions) and all(partition.lag == 0 for partition in self.partitions)
