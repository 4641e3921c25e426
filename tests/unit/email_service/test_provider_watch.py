"""Circuits that processes share: what one finds out all know, one of them tries again, and orders are heard."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.email.domain.circuit import FIRST_PAUSE, Circuit
from services.email.entrypoints.provider_watch import MAIL_SECONDS, PROBE_SECONDS, ProviderWatch
from services.email.entrypoints.sender_providers import Providers
from services.kit.health import Progress
from services.kit.metrics import Metrics
from services.kit.testing import FakeClock
from tests.unit.email_service.fakes import FakeProvider, MemoryProviderBoard
from tests.unit.email_service.mail import SUSPENDED, YES

PAUSE = FIRST_PAUSE["account"]


class World:
    """Processes with a board between them, on one clock."""

    def __init__(self, count: int = 2) -> None:
        self.clock = FakeClock()
        self.board = MemoryProviderBoard(self.clock)
        self.processes = [Providers([FakeProvider(), FakeProvider(name="mailgun")]) for _ in range(count)]
        self.watches = [
            ProviderWatch(self.board, each, self.clock, f"p{number}", Metrics(), Progress(self.clock))
            for number, each in enumerate(self.processes)
        ]

    def circuit(self, process: int) -> Circuit:
        return self.processes[process].circuits["ses"]

    def allowances(self) -> list[int]:
        now = self.clock.monotonic()
        return [min(100, self.circuit(number).allowance(now)) for number in range(len(self.processes))]

    async def look(self, *processes: int) -> None:
        for number in processes or range(len(self.processes)):
            await self.watches[number].look()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def refused(world: World) -> Callable[[], None]:
    """The first process is refused."""

    def happens() -> None:
        world.circuit(0).heard(SUSPENDED, world.clock.monotonic())

    return happens


async def test_what_one_finds_out_all_leave_alone(world: World, refused: Callable[[], None]) -> None:
    refused()
    await world.look()
    assert world.allowances() == [0, 0]
    assert world.circuit(1).reason == SUSPENDED.code
    assert world.processes[1].circuits["mailgun"].allowance(world.clock.monotonic()) > 0


async def test_one_of_them_tries_again_and_all_hear_that_it_works(world: World, refused: Callable[[], None]) -> None:
    refused()
    await world.look()
    world.clock.move(PAUSE + 1)
    await world.look(1, 0)
    assert world.allowances() == [0, 1]
    world.circuit(1).planned()
    world.circuit(1).heard(YES, world.clock.monotonic())
    await world.look(1, 0)
    assert world.allowances() == [1, 2], "load comes back in steps"


async def test_a_probe_that_fails_doubles_the_pause_of_all(world: World, refused: Callable[[], None]) -> None:
    refused()
    await world.look()
    world.clock.move(PAUSE + 1)
    await world.look()
    assert world.allowances() == [1, 0]
    refused()
    await world.look()
    world.clock.move(2 * PAUSE - 1)
    await world.look()
    assert world.allowances() == [0, 0]
    world.clock.move(2)
    await world.look()
    assert sorted(world.allowances()) == [0, 1]


async def test_who_has_no_mail_to_try_it_with_lets_another_one_try(world: World, refused: Callable[[], None]) -> None:
    refused()
    await world.look()
    world.clock.move(PAUSE + 1)
    await world.look(0, 1)
    assert world.allowances() == [1, 0]
    world.clock.move(MAIL_SECONDS)
    await world.look(0, 1)
    assert world.allowances() == [0, 1], "it does not take it again at once"
    world.clock.move(MAIL_SECONDS)
    await world.look(1, 0)
    assert world.allowances() == [1, 0]


async def test_who_waits_for_an_answer_keeps_the_probe(world: World, refused: Callable[[], None]) -> None:
    refused()
    await world.look()
    world.clock.move(PAUSE + 1)
    await world.look(0, 1)
    world.circuit(0).planned()
    world.clock.move(PROBE_SECONDS - 1)
    await world.look(0, 1)
    assert world.circuit(0).is_tried
    assert world.allowances() == [0, 0]
    world.clock.move(2)
    await world.look(0, 1)
    assert world.allowances() == [0, 1]


async def test_who_starts_while_it_is_shut_leaves_it_alone_too(world: World, refused: Callable[[], None]) -> None:
    refused()
    await world.look(0)
    assert world.allowances()[1] > 0
    await world.look(1)
    assert world.allowances()[1] == 0


async def test_what_was_left_shut_by_a_dead_process_is_tried_again(world: World) -> None:
    await world.board.shut("ses", PAUSE, "by one that was killed")
    world.clock.move(PAUSE + 1)
    await world.look()
    assert sorted(world.allowances()) == [0, 1]


async def test_an_answer_that_was_under_way_tells_all_that_it_works(world: World, refused: Callable[[], None]) -> None:
    refused()
    await world.look()
    world.circuit(0).heard(YES, world.clock.monotonic())
    await world.look()
    assert world.allowances() == [1, 1]


async def test_orders_are_heard(world: World) -> None:
    await world.board.switch_off("ses", "user:ann", "account review")
    await world.board.pin("marketing", "mailgun", "user:ann", "reputation")
    await world.look()
    for process in world.processes:
        assert "user:ann: account review" in process.switched_off["ses"]
        assert process.wishes.pinned("marketing", None) == "mailgun"
    await world.board.switch_on("ses")
    await world.board.unpin("marketing")
    await world.look()
    assert all(not each.switched_off and not each.wishes.pins for each in world.processes)
