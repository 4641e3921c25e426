"""The FastStream broker of a process: for publishing, AsyncAPI and lifecycle. What may not be lost is consumed by our
own loop.
"""

from collections.abc import Iterable
from typing import Any

from faststream.kafka import KafkaBroker

from contracts.topics import Topic

LARGEST_RECORD_BYTES = 1_048_576
"""A record with its headers and its batch's own bytes; below every topic's `max.message.bytes`."""

BATCH_BYTES = 131_072
"""Small enough that no batch of small records comes near the limit above, so that only a single record can."""


def build_broker(
    bootstrap: str, *, publishes: Iterable[Topic] = (), client_id: str = "mailroom", **connection: Any
) -> KafkaBroker:
    """A broker that is not connected yet; `KafkaPublisher` connects it and gives it back.

    Args:
        bootstrap: `host:port[,host:port]`.
        publishes: topics that this process publishes to, declared so that AsyncAPI shows them.
        client_id: shown in the broker's logs and quotas.
        connection: further options, for instance TLS.

    FastStream's own defaults would lose events: its producer does not wait for the replicas.
    """
    broker = KafkaBroker(
        bootstrap,
        client_id=client_id,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        max_batch_size=BATCH_BYTES,
        max_request_size=LARGEST_RECORD_BYTES,
        request_timeout_ms=20_000,
        logger=None,
        **connection,
    )
    for topic in publishes:
        broker.publisher(topic.name, title=topic.name, description=f"key: {topic.key}")
    return broker
