"""Every point of the kills exists and is fatal where it says: a renamed method must not make the chaos runs tame."""

from __future__ import annotations

import importlib
import inspect

import pytest

from tests.chaos import crashing
from tests.chaos.crashing import EMAIL, FILES, PROJECTOR, REBUILD, Effect, install, points


@pytest.mark.parametrize("effect", [*EMAIL, *FILES, *PROJECTOR, *REBUILD], ids=lambda effect: effect.name)
def test_the_call_exists(effect: Effect) -> None:
    module, _, path = effect.where.partition(":")
    class_name, _, method = path.partition(".")
    assert inspect.iscoroutinefunction(getattr(getattr(importlib.import_module(module), class_name), method))


class Door:
    """Something with an effect."""

    opened: int = 0

    async def open(self, times: int) -> str:
        self.opened += times
        return "open"


class Died(BaseException):
    """Instead of SIGKILL."""


def _die() -> None:
    raise Died


@pytest.mark.parametrize(("phase", "opened"), [("before", 1), ("after", 3)])
async def test_a_point_is_fatal_at_its_nth_passing(phase: str, opened: int, monkeypatch: pytest.MonkeyPatch) -> None:
    effect = Effect("opened", f"{__name__}:Door.open", lambda arguments: arguments[1] > 0)
    monkeypatch.setattr(crashing, "effect_of", lambda _: (phase, effect))
    monkeypatch.setattr(Door, "open", Door.open)
    monkeypatch.setattr(importlib, "import_module", lambda _: inspect.getmodule(Door))
    install(f"{phase}: opened", 2, _die)
    door = Door()
    assert await door.open(1) == "open"
    assert await door.open(0) == "open", "it does not fit, so it does not count"
    with pytest.raises(Died):
        await door.open(2)
    assert door.opened == opened


def test_a_point_that_does_not_exist_is_an_error() -> None:
    assert "during: call made" in points(EMAIL)
    for wrong in ("during: nothing", "never: call made"):
        with pytest.raises(KeyError):
            crashing.effect_of(wrong)
