"""The FastStream broker of a process: for publishing, AsyncAPI and lifecycle. What may not be lost is consumed by our
own loop.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from faststream.kafka import KafkaBroker
from faststream.security import BaseSecurity, SASLOAuthBearer, SASLPlaintext, SASLScram256, SASLScram512

from contracts.topics import Topic
from services.kit.kafka.connection import Where, connection

LARGEST_RECORD_BYTES = 1_048_576
"""A record with its headers and its batch's own bytes; below every topic's `max.message.bytes`."""

BATCH_BYTES = 131_072
"""Small enough that no batch of small records comes near the limit above, so that only a single record can."""


_WITH_PASSWORD = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}


def build_broker(
    bootstrap: Where, *, publishes: Iterable[Topic] = (), client_id: str = "mailroom", **options: Any
) -> KafkaBroker:
    """A broker that is not connected yet; `KafkaPublisher` connects it and gives it back.

    Args:
        bootstrap: the cluster.
        publishes: topics that this process publishes to, declared so that AsyncAPI shows them.
        client_id: shown in the broker's logs and quotas.
        options: further options of FastStream's broker.

    FastStream's own defaults would lose events: its producer does not wait for the replicas.
    """
    to = connection(bootstrap)
    broker = KafkaBroker(
        [address.strip() for address in to.bootstrap.split(",")],  # FastStream takes a text for one address
        security=_security(to.security),
        sasl_oauth_token_provider=to.security.get("sasl_oauth_token_provider"),
        client_id=client_id,
        acks="all",
        enable_idempotence=True,
        linger_ms=5,
        max_batch_size=BATCH_BYTES,
        max_request_size=LARGEST_RECORD_BYTES,
        request_timeout_ms=20_000,
        logger=None,
        **options,
    )
    for topic in publishes:
        broker.publisher(topic.name, title=topic.name, description=f"key: {topic.key}")
    return broker


def _security(given: Mapping[str, Any]) -> BaseSecurity | None:
    """aiokafka's arguments in FastStream's words."""
    if not given:
        return None
    tls: dict[str, Any] = {"ssl_context": given.get("ssl_context"), "use_ssl": "ssl_context" in given}
    mechanism = given.get("sasl_mechanism")
    if mechanism is None:
        return BaseSecurity(**tls)
    if mechanism == "OAUTHBEARER":
        return SASLOAuthBearer(**tls)
    return _WITH_PASSWORD[mechanism](given["sasl_plain_username"], given["sasl_plain_password"], **tls)
