"""What cannot be read lies far ahead: neither its own partition nor another one comes to it record by record."""

from __future__ import annotations

from services.events.composing import ReadingSide
from tests.integration.events.conftest import address
from tests.integration.kafka.harness import Cluster


async def test_what_lies_before_an_unreadable_batch_is_read_in_large_steps(side: ReadingSide) -> None:
    cluster, topic, records = Cluster(address(side)), side.projection.topic, 300
    for partition in (0, 1):
        await cluster.put(topic, partition, *[b"%d" % n for n in range(records)])
    await cluster.put_unreadable(topic, 0)
    await cluster.put(topic, 1, b"after")
    log = side.log()
    await log.start()
    try:
        log.assign(dict.fromkeys(range(6), 0))
        offsets: dict[int, list[int]] = {0: [], 1: []}
        reads = 0
        while not log.blocked() or len(offsets[1]) < records + 1:
            for partition, found in (await log.read(0.2, 50_000, 1 << 26)).items():
                offsets[partition] += [record.offset for record in found]
            reads += 1
            assert reads < 40
        assert log.blocked() == {0: f"UnicodeDecodeError at offset {records}"}
        assert offsets == {0: list(range(records)), 1: list(range(records + 1))}
    finally:
        await log.stop()
