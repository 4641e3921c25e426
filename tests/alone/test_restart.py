"""Everything is stopped and started again."""

from __future__ import annotations

import time

import pytest

from deploy.local.parts import PARTS
from deploy.local.stack import Stack


@pytest.mark.long
def test_everything_stops_and_starts_again_on_its_data(stack: Stack) -> None:
    stack.stop()
    assert all(stack.child(name) is None for name in PARTS)
    began = time.monotonic()
    stack.start()
    print(f"a second start of everything took {time.monotonic() - began:.1f} s")
    assert stack.ready()
