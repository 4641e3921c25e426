"""What every board of providers promises: one suite, run on memory and on a real MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from services.email.adapters.provider_board import MongoProviderBoard
from services.email.ports import ProviderBoard
from services.kit.mongo import connect
from services.kit.testing.clock import FakeClock
from tests.unit.email_service.fakes import MemoryProviderBoard


@dataclass
class Place:
    board: ProviderBoard
    clock: FakeClock | None

    async def wait(self, seconds: float) -> None:
        if self.clock is None:
            await asyncio.sleep(seconds)
        else:
            self.clock.move(seconds)


@pytest.fixture(params=["memory", "mongo"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "memory":
        clock = FakeClock()
        yield Place(MemoryProviderBoard(clock), clock)
        return
    client = connect(request.getfixturevalue("mongo_url"))
    name = f"board_{uuid4().hex}"
    yield Place(MongoProviderBoard(client[name]), None)
    await client.drop_database(name)
    await client.close()


async def test_nothing_is_known_at_first(place: Place) -> None:
    board = await place.board.read()
    assert (board.shut, board.off, board.pins) == ({}, {}, {})
    assert not await place.board.take_probe("ses", "a", 60)
    await place.board.reopen("ses")


async def test_what_one_shuts_all_leave_alone_for_the_longest_time_that_was_said(place: Place) -> None:
    await place.board.shut("ses", 600, "$notAnExpression")
    await place.board.shut("ses", 10, "throttled")
    shut = (await place.board.read()).shut["ses"]
    assert 500 < shut.seconds <= 600
    assert shut.reason == "throttled"
    assert not await place.board.take_probe("ses", "a", 60)
    await place.board.reopen("ses")
    assert (await place.board.read()).shut == {}


async def test_when_its_pause_is_over_one_alone_tries(place: Place) -> None:
    await place.board.shut("ses", 0.05, "away")
    await place.wait(0.1)
    assert (await place.board.read()).shut["ses"].seconds <= 0
    assert await place.board.take_probe("ses", "$a", 600)
    assert not await place.board.take_probe("ses", "b", 600)
    assert not await place.board.take_probe("ses", "$a", 600)


async def test_a_probe_of_which_nothing_is_heard_is_taken_by_another(place: Place) -> None:
    await place.board.shut("ses", 0, "away")
    await place.wait(0.01)
    assert await place.board.take_probe("ses", "a", 0.05)
    await place.wait(0.1)
    assert await place.board.take_probe("ses", "b", 600)


async def test_who_has_nothing_to_try_it_with_leaves_the_probe_to_others(place: Place) -> None:
    await place.board.shut("ses", 0, "away")
    await place.wait(0.01)
    assert await place.board.take_probe("ses", "$a", 600)
    await place.board.leave_probe("ses", "b")
    assert not await place.board.take_probe("ses", "b", 600), "it is another one's"
    await place.board.leave_probe("ses", "$a")
    await place.wait(0.01)
    assert await place.board.take_probe("ses", "b", 600)
    await place.board.leave_probe("mailgun", "$a")


async def test_a_probe_that_failed_leaves_the_next_pause_to_all(place: Place) -> None:
    await place.board.shut("ses", 0, "away")
    await place.wait(0.01)
    assert await place.board.take_probe("ses", "a", 600)
    await place.board.shut("ses", 0.05, "away")
    assert not await place.board.take_probe("ses", "b", 600)
    await place.wait(0.1)
    assert await place.board.take_probe("ses", "b", 600)


async def test_what_is_switched_off_says_by_whom_and_why_and_the_first_order_stands(place: Place) -> None:
    await place.board.switch_off("ses", "user:ann", "$review")
    await place.board.switch_off("ses", "user:bob", "me too")
    order = (await place.board.read()).off["ses"]
    assert (order.provider, order.actor, order.why) == ("ses", "user:ann", "$review")
    assert order.at.tzinfo is not None
    assert await place.board.switch_on("ses")
    assert not await place.board.switch_on("ses")
    assert (await place.board.read()).off == {}


async def test_a_pin_names_its_provider_and_the_last_order_stands(place: Place) -> None:
    await place.board.pin("marketing", "mailgun", "user:ann", "reputation")
    await place.board.pin("template:welcome", "ses", "user:ann", "looks")
    await place.board.pin("marketing", "sendgrid", "user:bob", "price")
    pins = (await place.board.read()).pins
    assert {what: (pin.provider, pin.actor, pin.why) for what, pin in pins.items()} == {
        "marketing": ("sendgrid", "user:bob", "price"),
        "template:welcome": ("ses", "user:ann", "looks"),
    }
    assert await place.board.unpin("marketing")
    assert not await place.board.unpin("marketing")
    assert set((await place.board.read()).pins) == {"template:welcome"}
