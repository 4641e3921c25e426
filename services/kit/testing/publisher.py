"""A publisher in memory."""

from collections.abc import Sequence

from services.kit.errors import PermanentError, Unavailable
from services.kit.kafka.broker import LARGEST_RECORD_BYTES
from services.kit.kafka.publisher import Outgoing


class MemoryPublisher:
    """A `Publisher` that keeps what it was given in `published`, in order.

    `away = True`: nothing is acknowledged and nothing kept. `losing_answers = True`: everything is kept, and the
    acknowledgements are lost.
    """

    def __init__(self) -> None:
        self.published: list[Outgoing] = []
        self.away = False
        self.losing_answers = False

    @property
    def healthy(self) -> bool:
        return not self.away and not self.losing_answers

    async def publish(self, items: Sequence[Outgoing]) -> list[Exception | None]:
        return [self._publish(item) for item in items]

    def on(self, topic: str) -> list[Outgoing]:
        """What was published to `topic`."""
        return [item for item in self.published if item.topic == topic]

    def _publish(self, item: Outgoing) -> Exception | None:
        if len(item.value) >= LARGEST_RECORD_BYTES:
            return PermanentError("tooLarge", item.topic)
        if self.away:
            return Unavailable("Kafka", "switched off by the test")
        self.published.append(item)
        return Unavailable("Kafka", "the answer was lost") if self.losing_answers else None
