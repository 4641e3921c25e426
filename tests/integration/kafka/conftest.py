"""The cluster that this folder's tests share, and one that a test may stop and start."""

from collections.abc import Iterator

import pytest

from deploy.local.stack import Stack
from tests.integration.kafka.harness import Cluster
from tests.integration.own_stack import own_stack


@pytest.fixture
def cluster(kafka_bootstrap: str) -> Cluster:
    return Cluster(kafka_bootstrap)


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[Stack]:
    """A Kafka that nobody else uses: `stop(["kafka"])`, `start(["kafka"])`, `kill("kafka")`."""
    with own_stack("kafka") as stack:
        yield stack
