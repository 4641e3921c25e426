"""Urgent mail goes first in a process, and cannot stop the others."""

from __future__ import annotations

import asyncio

import pytest

from services.email import right_of_way
from services.email.right_of_way import RightOfWay
from services.kit.clock import SystemClock


async def stepped_aside(way: RightOfWay) -> float:
    """Seconds that somebody stepped aside."""
    began = asyncio.get_running_loop().time()
    await way.step_aside()
    return asyncio.get_running_loop().time() - began


async def test_nobody_waits_where_there_is_nothing_urgent() -> None:
    way = RightOfWay(SystemClock())
    way.end("never claimed")
    assert await stepped_aside(way) < right_of_way.LONGEST_WAIT / 2
    assert way.at_once(200, 50) == 200


async def test_others_wait_until_the_last_urgent_mail_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(right_of_way, "LONGEST_WAIT", 30.0)
    monkeypatch.setattr(right_of_way, "LONGEST_CLAIM", 30.0)
    way = RightOfWay(SystemClock())
    way.claim(["a", "b"])
    waiting = [asyncio.create_task(way.step_aside()) for _ in range(3)]
    way.end("a")
    await asyncio.sleep(0.02)
    assert not any(task.done() for task in waiting)
    way.end("b")
    async with asyncio.timeout(5):
        await asyncio.gather(*waiting)


async def test_a_stream_of_urgent_mail_cannot_stop_the_others() -> None:
    way = RightOfWay(SystemClock())
    way.claim(["a"])
    assert right_of_way.LONGEST_WAIT * 0.9 <= await stepped_aside(way) < 5


async def test_a_claim_that_nobody_ends_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(right_of_way, "LONGEST_WAIT", 30.0)
    monkeypatch.setattr(right_of_way, "LONGEST_CLAIM", 0.05)
    way = RightOfWay(SystemClock())
    way.claim(["a"])
    await asyncio.sleep(0.06)
    assert await stepped_aside(way) < 5


async def test_others_go_in_small_steps_while_urgent_mail_keeps_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(right_of_way, "RECENT", 0.05)
    way = RightOfWay(SystemClock())
    way.claim(["a"])
    way.end("a")
    assert (way.at_once(200, 50), way.at_once(10, 50)) == (50, 10)
    await asyncio.sleep(0.06)
    assert way.at_once(200, 50) == 200
