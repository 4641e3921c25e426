"""What `mailroom rebuild` shows of a rebuild that makes no progress."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from services.cli import rebuild_watch
from services.cli.rebuild_watch import IDLE_LOOKS
from services.events.ports import Generation, LeaseView, Progress

BUILT = Generation(
    "email_log", 2, 1, "catchingUp", datetime(2026, 11, 24, tzinfo=UTC), progress=Progress("verifying", 5, 5, 0.0, None)
)


@pytest.mark.parametrize("held", [True, False])
async def test_a_rebuild_that_a_process_works_on_is_not_said_to_be_left(
    monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    looks: list[bool] = []

    class Store:
        async def get(self, _number: int) -> Generation:
            return BUILT if len(looks) <= IDLE_LOOKS + 1 else replace(BUILT, stage="active")

    class Coordination:
        async def view(self) -> list[LeaseView]:
            return [LeaseView(0, "one", 3, 0, 0, held=held)]

    def show(*_: object, waiting: bool) -> None:
        looks.append(waiting)

    monkeypatch.setattr(rebuild_watch, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(rebuild_watch, "_show", show)
    base: Any = SimpleNamespace(
        sides={"email_log": SimpleNamespace(generations=Store(), coordination=lambda _: Coordination())}
    )
    assert (await rebuild_watch._watch(base, "email_log", 2, silent=True)).stage == "active"
    assert any(looks) is not held
