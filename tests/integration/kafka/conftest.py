"""The cluster that this folder's tests share, and one that a test may stop and start."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.site import throwaway_site
from deploy.local.stack import Stack
from tests.integration.kafka.harness import Cluster


@pytest.fixture
def cluster(kafka_bootstrap: str) -> Cluster:
    return Cluster(kafka_bootstrap)


@pytest.fixture(scope="module")
def own_kafka() -> Iterator[Stack]:
    """A Kafka that nobody else uses: `stop(["kafka"])`, `start(["kafka"])`, `kill("kafka")`."""
    folder = Path(tempfile.mkdtemp(prefix="mailroom-kafka-"))
    stack = Stack(throwaway_site(folder, os.environ))
    try:
        stack.start(["kafka"])
        yield stack
    finally:
        stack.stop(["kafka"])
        shutil.rmtree(folder, ignore_errors=True)
