"""A rebuild that fails is tried again, ever later, and its generation tells why."""

from __future__ import annotations

from services.events.composing import ReadingSide
from services.events.entrypoints.replayer import RebuildsFound
from services.events.ports import Generation
from services.events.rebuild import Workers
from services.kit.errors import PermanentError, Unavailable
from services.kit.testing import FakeClock
from tests.integration.events.conftest import Write
from tests.integration.events.judge import assert_equal_to_the_log
from tests.integration.events.mails import mails
from tests.integration.events.test_live import live_generation
from tests.integration.events.test_rebuild import workers

__all__ = ["workers"]  # a fixture


class FailingWorkers:
    """Workers that cannot even be started."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.started = 0

    async def start(self, generation: int) -> None:
        self.started += 1
        raise self.error

    async def revive(self) -> None: ...

    async def stop(self) -> None: ...


async def found_of(side: ReadingSide, number: int) -> Generation:
    found = await side.generations.get(number)
    assert found is not None
    return found


async def test_an_unexpected_error_is_kept_and_put_off_ever_longer_until_it_is_mended(
    side: ReadingSide, write: Write, workers: Workers
) -> None:
    first = await live_generation(side, write, mails(20))
    number = (await side.rebuild(workers).create()).number
    broken, clock = FailingWorkers(ZeroDivisionError("for jane@example.com")), FakeClock()
    work: Workers = broken
    rebuilds = RebuildsFound(side.generations, lambda: side.rebuild(work), clock)
    spans: list[float] = []
    for turns in range(1, 11):
        await rebuilds.turn()
        await rebuilds.turn()  # too early
        assert broken.started == turns
        trouble = (await found_of(side, number)).trouble
        assert trouble is not None
        assert trouble.error.startswith("ZeroDivisionError: for j")
        assert "jane@" not in trouble.error
        assert trouble.failures == turns
        assert trouble.again_at is not None
        spans.append((trouble.again_at - trouble.at).total_seconds())
        clock.move(spans[-1] + 0.01)
    assert 0.5 <= spans[0] <= 1
    assert 30 <= spans[-1] <= 60
    assert (await side.generations.pointer()).active == first
    work = workers
    await rebuilds.turn()
    after = await found_of(side, number)
    assert (after.stage, after.trouble) == ("active", None)
    assert await assert_equal_to_the_log(side, number) == 20


async def test_what_an_operator_must_look_at_is_not_tried_again_by_this_process(
    side: ReadingSide, write: Write, workers: Workers
) -> None:
    await live_generation(side, write, mails(20))
    number = (await side.rebuild(workers).create()).number
    dying = FailingWorkers(PermanentError("workersDie", "again and again"))
    clock = FakeClock()
    rebuilds = RebuildsFound(side.generations, lambda: side.rebuild(dying), clock)
    for _ in range(3):
        await rebuilds.turn()
        clock.move(3600)
    assert dying.started == 1
    trouble = (await found_of(side, number)).trouble
    assert trouble is not None
    assert "again and again" in trouble.error
    assert trouble.again_at is None
    await RebuildsFound(side.generations, lambda: side.rebuild(workers), clock).turn()  # the process was started anew
    assert (await found_of(side, number)).trouble is None
    assert (await side.generations.pointer()).active == number


async def test_what_is_away_is_waited_for(side: ReadingSide, write: Write, workers: Workers) -> None:
    await live_generation(side, write, mails(5))
    number = (await side.rebuild(workers).create()).number
    away = FailingWorkers(Unavailable("Kafka", "away"))
    await RebuildsFound(side.generations, lambda: side.rebuild(away), FakeClock()).turn()
    trouble = (await found_of(side, number)).trouble
    assert trouble is not None
    assert "Kafka" in trouble.error
    assert trouble.again_at is not None
