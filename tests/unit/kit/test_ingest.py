"""The queue's poller over a queue in memory: a message goes only when Kafka has every record that was made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from services.kit.clock import SystemClock
from services.kit.errors import PermanentError, Unavailable
from services.kit.ingest import Ingest, SqsMessage
from services.kit.kafka.publisher import Outgoing
from services.kit.testing.publisher import MemoryPublisher


class Queue:
    """An SQS client over one queue; what is not deleted comes again at once."""

    def __init__(self, *bodies: str) -> None:
        self.messages = {str(n): body for n, body in enumerate(bodies)}
        self.received = 0

    async def receive_message(self, **_: Any) -> dict[str, Any]:
        await asyncio.sleep(0.005)
        self.received += 1
        found = list(self.messages.items())[:10]
        return {"Messages": [{"MessageId": n, "ReceiptHandle": n, "Body": body} for n, body in found]}

    async def delete_message_batch(self, *, Entries: Sequence[dict[str, str]], **_: Any) -> dict[str, Any]:  # noqa: N803
        for entry in Entries:
            del self.messages[entry["ReceiptHandle"]]
        return {}


class Picky(MemoryPublisher):
    """Refuses some values: `refused`, each with the error that it gets."""

    def __init__(self, refused: dict[bytes, Exception]) -> None:
        super().__init__()
        self.refused = refused

    def _publish(self, item: Outgoing) -> Exception | None:
        return self.refused.get(item.value) or super()._publish(item)


class Counts:
    """What became of the messages, each time."""

    def __init__(self) -> None:
        self.gone, self.left = 0, 0

    def received(self, ages: Sequence[float]) -> None: ...

    def deleted(self, count: int) -> None:
        self.gone += count

    def failed(self, count: int) -> None:
        self.left += count


def by_words(message: SqsMessage) -> list[Outgoing]:
    return [Outgoing("t", None, word.encode()) for word in message["Body"].split()]


async def run(
    queue: Queue,
    publisher: MemoryPublisher,
    until: Callable[[], bool],
    before: Callable[[], Awaitable[None]] | None = None,
) -> Counts:
    counts = Counts()
    ingest = Ingest(
        queue, "url", by_words, publisher, SystemClock(), counts, pollers=1, wait_seconds=0, before_receiving=before
    )
    await ingest.start()
    async with asyncio.timeout(10):
        while not until():  # noqa: ASYNC110 - what is waited for is in memory, and others change it
            await asyncio.sleep(0.01)
    await ingest.stop(2.0)
    return counts


async def test_a_message_goes_when_all_of_its_records_are_on_kafka() -> None:
    queue, publisher = Queue("a b c", "d", ""), MemoryPublisher()
    counts = await run(queue, publisher, lambda: not queue.messages)
    assert [item.value for item in publisher.published] == [b"a", b"b", b"c", b"d"]
    assert (counts.gone, counts.left) == (3, 0), "one that says nothing goes too"


async def test_a_message_stays_while_one_of_its_records_is_not() -> None:
    queue, publisher = Queue("a b c", "d"), Picky({b"b": Unavailable("Kafka", "no answer")})
    counts = await run(queue, publisher, lambda: queue.received >= 3)
    assert list(queue.messages.values()) == ["a b c"]
    assert counts.gone == 1
    publisher.refused = {}
    await run(queue, publisher, lambda: not queue.messages)
    assert {item.value for item in publisher.published} == {b"a", b"b", b"c", b"d"}


async def test_one_record_that_kafka_will_never_take_keeps_its_message_and_no_other() -> None:
    queue, publisher = Queue("a huge", "b"), Picky({b"huge": PermanentError("tooLarge", "t")})
    await run(queue, publisher, lambda: queue.received >= 3)
    assert list(queue.messages.values()) == ["a huge"]


async def test_work_that_goes_first_is_waited_for_before_each_receive() -> None:
    queue, waited = Queue(), 0

    async def wait() -> None:
        nonlocal waited
        waited += 1
        assert waited == queue.received + 1

    await run(queue, MemoryPublisher(), lambda: queue.received >= 3, wait)
    assert waited >= 3


async def test_nothing_is_received_while_kafka_is_away() -> None:
    queue, publisher = Queue("a"), MemoryPublisher()
    publisher.away = True
    began = asyncio.get_running_loop().time()
    await run(queue, publisher, lambda: asyncio.get_running_loop().time() - began > 0.2)
    assert queue.received == 0
