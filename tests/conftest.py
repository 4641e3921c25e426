"""The real stack for tests: started lazily on free ports, once per run, stopped by pid at the end.

`kafka_bootstrap`, `mongo_url` and `aws` each start only what they need; `stack` starts everything, the services
included. All processes of a run share one Kafka, one MongoDB and one emulator (`tests.suite.shared`).
MAILROOM_TEST_KAFKA and MAILROOM_TEST_MONGO may name a running Kafka or MongoDB.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import settings

from deploy.local.endpoints import AwsEndpoints, aws_endpoints
from deploy.local.parts import PARTS
from deploy.local.stack import OURS, Stack
from tests.suite import shared
from tests.suite.timings import Timings

# Until a process configures its logs, structlog renders each traceback with rich and all locals, which takes seconds.
structlog.configure(processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])

# A busy machine may take longer than Hypothesis allows one example, which says nothing about the property.
settings.register_profile("mailroom", deadline=None)
settings.load_profile("mailroom")

WORKER = os.environ.get("PYTEST_XDIST_WORKER")
"""Name of this process, `gw0` for instance, where the run has several."""

_begun = pytest.StashKey[shared.Run]()
_failed = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    if WORKER:
        os.environ[shared.PORT_SHARE] = f"{1 + int(WORKER.removeprefix('gw')) % (shared.SHARES - 1)}/{shared.SHARES}"
    elif shared.FOLDER not in os.environ:
        config.stash[_begun] = shared.begin()
    if not WORKER:
        config.pluginmanager.register(Timings(Path(os.environ[shared.FOLDER])))


def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[_failed] = bool(session.testsfailed)


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(_begun, None)
    if run is not None:
        for name in run.environment:
            del os.environ[name]
        run.end(keep=config.stash.get(_failed, True) or bool(os.environ.get("MAILROOM_TEST_KEEP")))


@pytest.fixture(scope="session")
def test_stack() -> Iterator[Stack]:
    """This process's stack, nothing started: `test_stack.start([...])` starts parts of it."""
    run = shared.Run(Path(os.environ[shared.FOLDER]))
    stack = run.stack_of(WORKER) if WORKER else run.stack()
    yield stack
    stack.stop()


@pytest.fixture(scope="session")
def kafka_bootstrap(test_stack: Stack) -> str:
    """Bootstrap address of a real Kafka."""
    if given := os.environ.get("MAILROOM_TEST_KAFKA"):
        return given
    test_stack.start(["kafka"])
    return test_stack.site.addresses().kafka_bootstrap


@pytest.fixture(scope="session")
def mongo_url(test_stack: Stack) -> str:
    """URL of a real MongoDB (replica set of one). Use a database name of your own in each test."""
    if given := os.environ.get("MAILROOM_TEST_MONGO"):
        return given
    test_stack.start(["mongo"])
    return test_stack.site.addresses().mongo_url


@pytest.fixture(scope="session")
def aws(test_stack: Stack) -> AwsEndpoints:
    """The AWS emulator with the template deployed in an account of this process, and the simulator beside it."""
    test_stack.start(["resources", "simulator"])
    return aws_endpoints(test_stack)


@pytest.fixture(scope="session")
def stack(test_stack: Stack) -> Stack:
    """Everything, the services and the gateway included, all ready."""
    if WORKER:
        pytest.fail("the services' topics exist once: tests of the whole stack run in one process")
    test_stack.start()
    return test_stack


@pytest.fixture
def no_services(test_stack: Stack) -> None:
    """Our services are down: what a test puts on the queue or the topics is nobody's but its own."""
    test_stack.stop(OURS)


@pytest.fixture(autouse=True)
def _stack_is_whole(request: pytest.FixtureRequest) -> None:
    """A test that kills parts and fails before it starts them again must not take the others with it."""
    if "stack" in request.fixturenames:
        stack: Stack = request.getfixturevalue("stack")
        if any(part.launch and stack.child(name) is None for name, part in PARTS.items()):
            stack.start()
