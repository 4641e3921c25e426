"""What counts as published. One broker cannot show the difference between its own word and that of all replicas, so
the connected producer is looked at.
"""

from __future__ import annotations

from services.kit.kafka.publisher import KafkaPublisher
from tests.integration.kafka.harness import Cluster

ALL_REPLICAS = -1


async def test_the_producer_waits_for_all_replicas_and_is_idempotent(cluster: Cluster) -> None:
    publisher = KafkaPublisher(cluster.bootstrap)
    await publisher.start()
    try:
        producer = publisher._producer
        assert producer is not None
        assert producer._sender._acks == ALL_REPLICAS
        assert producer._txn_manager is not None, "an idempotent producer numbers its records"
    finally:
        await publisher.stop()
