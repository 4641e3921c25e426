"""Topics as the contracts say, on a real broker."""

from dataclasses import replace
from uuid import uuid4

import pytest

from contracts.topics import DAY_MS, Topic
from services.kit.errors import Unavailable
from services.kit.kafka.topics_admin import apply, verify
from tests.integration.kafka.harness import Cluster


def topics() -> list[Topic]:
    unique = uuid4().hex[:8]
    return [
        Topic(f"{unique}.commands", 3, 3 * DAY_MS, "messageId"),
        Topic(f"{unique}.events", 5, "forever", "messageId"),
    ]


async def test_missing_topics_are_told_then_made_then_right(cluster: Cluster) -> None:
    wanted = topics()
    assert [str(drift) for drift in await verify(cluster.bootstrap, wanted)] == [
        f"{topic.name}: does not exist" for topic in wanted
    ]
    mended, left = await apply(cluster.bootstrap, wanted)
    assert [drift.topic for drift in mended] == [topic.name for topic in wanted]
    assert left == []
    assert await verify(cluster.bootstrap, wanted) == []
    assert await apply(cluster.bootstrap, wanted) == ([], []), "a second time there is nothing to do"


async def test_configurations_are_mended_and_partitions_never(cluster: Cluster) -> None:
    wanted = topics()
    await apply(cluster.bootstrap, wanted)
    changed = [replace(wanted[0], retention_ms=DAY_MS), replace(wanted[1], partitions=12)]
    drift = [str(one) for one in await verify(cluster.bootstrap, changed)]
    assert drift == [
        f"{wanted[0].name}: retention.ms is {3 * DAY_MS}, should be {DAY_MS}",
        f"{wanted[1].name}: partitions is 5, should be 12 (never changed: copy it into a new topic)",
    ]
    mended, left = await apply(cluster.bootstrap, changed)
    assert [one.what for one in mended] == ["retention.ms"]
    assert [one.what for one in left] == ["partitions"]
    assert len(await cluster.ends(wanted[1].name)) == 5


async def test_a_cluster_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await verify("127.0.0.1:1", topics())
