"""Which process runs which test, where a run has several."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

SERVICES = ("tests/chaos/", "tests/e2e/")
"""Tests of the whole stack: its topics exist once, so one process runs them all."""

ALONE = "tests/alone/"
"""Tests that stop Kafka, MongoDB or the emulator: nothing else may run beside them."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives a process whole files, and one process all that need the services."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return "services" if path.startswith(SERVICES) else path
