"""Topics as the contracts say, on a real broker."""

from dataclasses import replace
from uuid import uuid4

import pytest
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from contracts.topics import DAY_MS, Topic
from services.kit.errors import PermanentError, Unavailable
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
    assert [str(drift) for drift in (await verify(cluster.bootstrap, wanted)).differs] == [
        f"{topic.name}: does not exist" for topic in wanted
    ]
    made = await apply(cluster.bootstrap, wanted)
    assert [drift.topic for drift in made.mended] == [topic.name for topic in wanted]
    assert made.differs == ()
    assert (made.brokers, made.replication) == (1, 1)
    assert made.warning.startswith("1 copy of each partition")
    assert (await verify(cluster.bootstrap, wanted)).differs == ()
    again = await apply(cluster.bootstrap, wanted)
    assert (again.mended, again.differs) == ((), ()), "a second time there is nothing to do"


async def test_configurations_are_mended_and_partitions_never(cluster: Cluster) -> None:
    wanted = topics()
    await apply(cluster.bootstrap, wanted)
    changed = [replace(wanted[0], retention_ms=DAY_MS, timestamps="LogAppendTime"), replace(wanted[1], partitions=12)]
    drift = [str(one) for one in (await verify(cluster.bootstrap, changed)).differs]
    assert drift == [
        f"{wanted[0].name}: retention.ms is {3 * DAY_MS}, should be {DAY_MS}",
        f"{wanted[0].name}: message.timestamp.type is CreateTime, should be LogAppendTime",
        f"{wanted[1].name}: partitions is 5, should be 12 (never changed: copy it into a new topic)",
    ]
    found = await apply(cluster.bootstrap, changed)
    assert [one.what for one in found.mended] == ["retention.ms", "message.timestamp.type"]
    async with cluster.producer() as producer:
        slow = 1_000
        written = [await producer.send_and_wait(one.name, b"v", timestamp_ms=slow) for one in wanted]
    assert [(one.timestamp_type, one.timestamp == slow) for one in written] == [(1, False), (0, True)]
    assert [one.what for one in found.differs] == ["partitions"]
    assert len(await cluster.ends(wanted[1].name)) == 5


async def test_what_an_operator_has_set_beside_ours_stays(cluster: Cluster) -> None:
    """The request replaces everything that is set on a topic: what it does not name would go back to the default."""
    (wanted, _) = topics()
    await apply(cluster.bootstrap, [wanted])
    theirs = {**wanted.configs, "segment.ms": "3600000"}
    async with cluster.admin() as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, wanted.name, theirs)])
    changed = replace(wanted, retention_ms=DAY_MS)
    assert [one.what for one in (await apply(cluster.bootstrap, [changed])).mended] == ["retention.ms"]
    async with cluster.admin() as admin:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, wanted.name)])
    found = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    assert (found["segment.ms"], found["retention.ms"]) == ("3600000", str(DAY_MS))


async def test_too_few_copies_are_told_and_not_made_by_apply(cluster: Cluster) -> None:
    (wanted, _) = topics()
    await apply(cluster.bootstrap, [wanted])
    (drift,) = (await verify(cluster.bootstrap, [wanted], replication=3)).differs
    assert (drift.what, drift.expected, drift.found, drift.mendable) == ("replicas", "3", "1", False)
    with pytest.raises(PermanentError, match="3 copies need as many brokers, and 1 answer"):
        await apply(cluster.bootstrap, [wanted], replication=3)


async def test_a_cluster_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await verify("127.0.0.1:1", topics())
