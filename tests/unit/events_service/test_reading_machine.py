"""Any interleaving of swaps, roll backs, retirements, pauses, writers that stand still, lost answers and kills: what is
read is the fold of the log, it is there, and somebody reads on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from contracts.email import events as mail
from services.events.entrypoints.projector import ProjectorService
from services.events.generations import retire, rollback, sweep
from services.events.ports import GenerationStore
from services.kit.errors import PermanentError, TransientError
from tests.unit.events_service.events import ANN, Log, Record, fact, requested, sent
from tests.unit.events_service.reading_world import PARTITIONS, Process, World

MOST_PROCESSES: Final = 3
CALLS: Final = (
    "release", "acquire", "renew", "checkpoint", "change", "drop", "follow", "write", "load", "beat", "list", "pointer",
)  # fmt: skip
PAUSES: Final = st.sampled_from([0.2, 1.0, 3.0, 12.0])
SLOW: Final = st.sampled_from([0.0, 0.3, 2.0])
KILLS: Final = st.one_of(st.none(), st.integers(0, 40))


class Errors:
    """What is logged as unexpected: the processes go on after it, and tests must not."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def __call__(self, _logger: Any, method: str, event: Any) -> Any:
        if method == "exception" or event.get("exc_info"):
            self.found.append(str(event))
        raise structlog.DropEvent


class Reading(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self._configured = structlog.get_config()
        self.errors = Errors()
        structlog.configure(processors=[self.errors], cache_logger_on_first_use=False)
        self.world = World()
        self.services: dict[Process, ProjectorService] = {}
        self.writers = [Log(f"m{each}", each % PARTITIONS) for each in range(5)]
        self.names = 0
        self.begin(0.0)
        self.world.run(2.0)

    # --- processes

    def process(self, slow: float) -> Process:
        self.names += 1
        process = Process(self.world, f"p{self.names}", slow=slow)
        self.world.processes.append(process)
        return process

    def begin(self, slow: float) -> None:
        process = self.process(slow)
        self.services[process] = service = process.service()
        process.start(service.start)

    def living(self) -> list[Process]:
        return [each for each in self.services if each.alive]

    def one(self, which: int) -> Process:
        """One of those that live; there is always one."""
        if not self.living():
            self.begin(0.0)
        return self.living()[which % len(self.living())]

    @rule(slow=st.sampled_from([0.0, 0.05]), pause=PAUSES)
    def a_process_joins(self, slow: float, pause: float) -> None:
        if len(self.living()) < MOST_PROCESSES:
            self.begin(slow)
        self.world.run(pause)

    @rule(which=st.integers(0, MOST_PROCESSES - 1), after=st.integers(0, 60), pause=PAUSES)
    def a_process_is_killed(self, which: int, after: int, pause: float) -> None:
        self.one(which).kill_after = after
        self.world.run(pause)

    @rule(which=st.integers(0, MOST_PROCESSES - 1), pause=PAUSES)
    def a_process_leaves(self, which: int, pause: float) -> None:
        if len(self.living()) > 1:
            leaving = self.one(which)
            done = leaving.start(lambda: self.services[leaving].stop(8.0))
            while not done.done() and leaving.alive:
                self.world.run(0.5)
            leaving.die()
        self.world.run(pause)

    @rule(which=st.integers(0, MOST_PROCESSES - 1), seconds=st.sampled_from([2.0, 15.0, 30.0]), pause=PAUSES)
    def a_process_stands_still(self, which: int, seconds: float, pause: float) -> None:
        """It goes on with what it had in hand, long after its leases are others' and its generation may be gone."""
        process = self.one(which)
        process.frozen_until = max(process.frozen_until, self.world.loop.now + seconds)
        self.world.run(pause)

    @rule(
        which=st.integers(0, MOST_PROCESSES - 1),
        call=st.sampled_from(CALLS),
        fate=st.sampled_from(["before", "after", "slow"]),
        joins=st.booleans(),
        pause=PAUSES,
    )
    def a_call_fails(self, which: int, call: str, fate: str, joins: bool, pause: float) -> None:
        self.one(which).failing[call] = fate
        if joins and len(self.living()) < MOST_PROCESSES:
            self.begin(0.0)
        self.world.run(pause)

    # --- the log

    @rule(data=st.data(), count=st.integers(1, 6), pause=st.sampled_from([0.0, 0.2, 1.0]))
    def events_come(self, data: st.DataObject, count: int, pause: float) -> None:
        for _ in range(count):
            writer = self.writers[data.draw(st.integers(0, len(self.writers) - 1))]
            what = data.draw(st.sampled_from(["requested", "sent", "delivered", "again", "poison"]))
            records = self.world.records[writer.partition]
            event = {
                "requested": requested(ANN), "sent": sent(), "delivered": fact(mail.EmailDelivered),
            }.get(what, fact(mail.EmailOpened))  # fmt: skip
            value = b"{" if what == "poison" else writer.raw(event)
            if what == "again" and records:
                value = records[data.draw(st.integers(0, len(records) - 1))].value or value
            records.append(Record(writer.partition, len(records), writer.subject.encode(), value))
        self.world.run(pause)

    # --- operators

    def operate(
        self, verb: Callable[[Process], Awaitable[object]], slow: float, kill: int | None, pause: float
    ) -> None:
        operator = self.process(slow)
        operator.kill_after = kill

        async def act() -> None:
            with suppress(PermanentError, TransientError):
                await verb(operator)
            operator.alive = False

        operator.start(act)
        self.world.run(pause)

    @rule(slow=SLOW, kill=KILLS, pause=PAUSES)
    def an_operator_rebuilds(self, slow: float, kill: int | None, pause: float) -> None:
        self.operate(lambda process: process.rebuild().create(), slow, kill, pause)

    @rule(slow=SLOW, kill=KILLS, pause=PAUSES)
    def an_operator_rolls_back(self, slow: float, kill: int | None, pause: float) -> None:
        self.operate(lambda process: rollback(process.store, grace=40.0), slow, kill, pause)

    @rule(back=st.integers(0, 2), slow=SLOW, kill=KILLS, pause=PAUSES)
    def an_operator_gives_one_up(self, back: int, slow: float, kill: int | None, pause: float) -> None:
        number = max(1, len(self.world.generations.generations) - back)
        self.operate(lambda process: retire(process.store, number), slow, kill, pause)

    @rule(slow=SLOW, kill=KILLS, pause=PAUSES)
    def an_operator_gives_up_what_is_about_to_be_read(self, slow: float, kill: int | None, pause: float) -> None:
        """While whoever builds it has looked at its stage and has not taken the next step."""
        self.operate(lambda process: process.rebuild().create(), 0.0, None, 0.5)
        generations = self.world.generations.generations
        number = len(generations)
        for _ in range(40):
            if generations[number].stage == "catchingUp":
                break
            self.world.run(0.25)
        for process in self.living():
            process.failing["change"] = "slow"
        self.world.run(1.0)
        self.operate(lambda process: retire(process.store, number), slow, kill, pause)

    @rule(paused=st.booleans(), slow=SLOW, kill=KILLS, pause=PAUSES)
    def an_operator_pauses(self, paused: bool, slow: float, kill: int | None, pause: float) -> None:
        number = len(self.world.generations.generations)
        self.operate(lambda process: process.store.pause(number, paused=paused), slow, kill, pause)

    @rule(pause=st.sampled_from([5.0, 20.0, 45.0]))
    def time_passes(self, pause: float) -> None:
        """Graces end."""
        self.world.run(pause)

    # --- what always holds

    @invariant()
    def nothing_was_wrong_on_the_way(self) -> None:
        self.world.look_at_pointer()
        assert not self.world.wrong, self.world.wrong[:5]
        assert not self.errors.found, self.errors.found[0]

    def teardown(self) -> None:
        world = self.world
        try:
            world.run(max(0.0, *(process.frozen_until - world.loop.now for process in world.processes)))
            for process in world.processes:
                process.kill_after = None
                process.failing.clear()
            if not self.living():
                self.begin(0.0)
            for generation in list(world.generations.generations.values()):
                world.loop.run_until_complete(world.generations.pause(generation.number, paused=False))
            for _ in range(120):
                world.run(1.0)
                if self.is_quiet():
                    break
            else:
                raise AssertionError(f"it never comes to rest: {self.told()}")
            world.run(6.0)  # the view follows
            store: GenerationStore = world.generations
            world.loop.run_until_complete(sweep(store))
            world.look_at_documents()
            self.nothing_was_wrong_on_the_way()
            assert world.generations.shown == world.generations.pointed.active
            for process in self.living():
                health = self.services[process].health()
                assert health.live
                assert health.ready, health.detail
        finally:
            world.close()
            structlog.configure(**self._configured)

    def is_quiet(self) -> bool:
        """Every generation has all that is on the log, and none is being built."""
        world = self.world
        ends = {each: len(records) for each, records in world.records.items()}
        unfinished = ("created", "backfilling", "catchingUp", "verified")
        return (
            not any(each.stage in unfinished for each in world.generations.generations.values())
            and all(
                {partition: kept.next for partition, kept in world.leases(number).kept.items()} == ends
                for number in world.projected()
            )
            and all(self.services[process].health().ready for process in self.living())
        )

    def told(self) -> object:
        world = self.world
        return (
            {each.number: (each.stage, each.paused, each.trouble) for each in world.generations.generations.values()},
            {number: world.leases(number).kept for number in world.projected()},
            [self.services[process].health() for process in self.living()],
        )


SHORT: Final = 40


@pytest.mark.parametrize("examples", [SHORT, pytest.param(1500, marks=pytest.mark.long)])
def test_whatever_comes_between_what_is_read_is_whole_and_read_on(examples: int) -> None:
    """The short run is the same each time. It makes no failure shorter, which takes minutes; the long one does."""
    short = examples == SHORT
    run_state_machine_as_test(
        Reading,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            derandomize=short,
            database=None,
            phases=[Phase.generate] if short else list(Phase),
            suppress_health_check=list(HealthCheck),
        ),
    )
