"""Which process runs which test, where a run has several."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

SERVICES = (
    "tests/chaos/",
    "tests/e2e/",
    "tests/integration/email/",
    "tests/integration/files/",
    "tests/integration/test_cloudformation",
    "tests/integration/test_files_bucket.py",
    "tests/integration/test_simulator.py",
    "tests/integration/test_stack_parts.py",
    "tests/ports/test_mail_provider.py",
)
"""Tests that need the services, or their topics, queues, simulator and buckets without the services: these exist once,
so one process runs all of these tests.
"""

ALONE = "tests/alone/"
"""Tests that stop Kafka, MongoDB or the emulator: nothing else may run beside them."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives a process whole files, and one process all that need the services."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "services" if path.startswith(SERVICES) else path
