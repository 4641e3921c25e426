"""The real stack for tests: started lazily on free ports, once per run, stopped by pid at the end.

`kafka_bootstrap`, `mongo_url` and `aws` each start only what they need; `stack` starts everything,
the services included. MAILROOM_TEST_KAFKA and MAILROOM_TEST_MONGO may name a running Kafka or MongoDB.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from deploy.local import children
from deploy.local.endpoints import AwsEndpoints, aws_endpoints
from deploy.local.parts import PARTS
from deploy.local.site import throwaway_site
from deploy.local.stack import OURS, Stack

_PREFIX = "mailroom-test-"

# Until a process configures its logs, structlog renders each traceback with rich and all locals, which takes seconds.
structlog.configure(processors=[structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)])


@pytest.fixture(scope="session")
def test_stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    """A stack of this run, nothing started: `test_stack.start([...])` starts parts of it.

    Its logs and data are kept if a test failed, or if MAILROOM_TEST_KEEP is set.
    """
    _stop_leftovers()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    # What a killed receiver held comes again after 15 s instead of a minute, so that tests of crashes wait less.
    extra = {"MAILROOM_QUEUE_VISIBILITY_SECONDS": "15", "MAILROOM_SESSION_COOKIE": "mailroom_session"}
    stack = Stack(throwaway_site(folder, os.environ), extra=extra)
    try:
        yield stack
    finally:
        stack.stop()
        if request.session.testsfailed or os.environ.get("MAILROOM_TEST_KEEP"):
            print(f"\nlogs and data of the test stack are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka_bootstrap(test_stack: Stack) -> str:
    """Bootstrap address of a real Kafka without topics."""
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
    """The AWS emulator with the template deployed, and the simulator beside it."""
    test_stack.start(["resources", "simulator"])
    return aws_endpoints(test_stack)


@pytest.fixture(scope="session")
def stack(test_stack: Stack) -> Stack:
    """Everything, the services and the gateway included, all ready."""
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


def _stop_leftovers() -> None:
    """Stop what an earlier run left behind because it was killed, and remove its folder."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and Path(f"/proc/{owner}").exists():
            continue
        for name in PARTS:
            child = children.find(folder / "run" / f"{name}.json")
            if child:
                child.stop(5)
        if not os.environ.get("MAILROOM_TEST_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)
