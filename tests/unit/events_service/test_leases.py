"""Who reads which partition: nobody's are renewed by mistake, and what nobody reads shows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from services.events.leases import PATIENCE, LeaseKeeper
from services.events.ports import Lease
from services.kit.errors import Unavailable
from services.kit.metrics import Metrics
from services.kit.testing import FakeClock
from tests.unit.events_service.memory_stores import MemoryLeases

PARTITIONS = 4
LEASE = 10.0


class Failing(MemoryLeases):
    """Leases of which some calls fail: before they do anything, or after, so that only the answer is lost."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock, LEASE)
        self.before: set[str] = set()
        self.after: set[str] = set()

    async def beat(self, owner: str) -> int:
        self._fail(self.before, "beat")
        return await super().beat(owner)

    async def acquire(self, owner: str, partition: int) -> Lease | None:
        taken = await super().acquire(owner, partition)
        self._fail(self.after, "acquire")
        return taken

    async def release(self, owner: str, leases: Sequence[Lease]) -> None:
        self._fail(self.before, "release")
        await super().release(owner, leases)

    def _fail(self, failing: set[str], name: str) -> None:
        if name in failing:
            raise Unavailable("MongoDB", "away")


class Site:
    """Processes that share the partitions of one generation."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = Failing(self.clock)

    def keeper(self, name: str) -> LeaseKeeper:
        return LeaseKeeper(self.store, name, self.clock, Metrics(), projection="email_log", generation=1, lease=LEASE)

    async def pass_by(self, seconds: float, *keepers: LeaseKeeper) -> None:
        """Let time pass, with a turn of each keeper every second."""
        for _ in range(int(seconds)):
            self.clock.move(1)
            for keeper in keepers:
                try:
                    await keeper.turn()
                except Unavailable:
                    continue


@pytest.fixture
async def site() -> Site:
    site = Site()
    await site.store.seed(dict.fromkeys(range(PARTITIONS), 0))
    return site


async def test_a_partition_whose_release_failed_is_read_by_another_within_a_lease(site: Site) -> None:
    """It is not read here any more. Renewing whatever bears our name kept it from everybody for ever."""
    first, second = site.keeper("first"), site.keeper("second")
    await first.turn()
    assert sorted(first.held) == [0, 1, 2, 3]
    await second.turn()
    await first.turn()
    site.store.before = {"release"}
    with pytest.raises(Unavailable):
        await first.give_back()
    site.store.before = set()
    assert sorted(first.held) == [0, 1]
    await site.pass_by(LEASE + 2, first, second)
    assert (sorted(first.held), sorted(second.held)) == ([0, 1], [2, 3])


async def test_a_lease_whose_acquisition_got_no_answer_is_taken_again(site: Site) -> None:
    first = site.keeper("first")
    site.store.after = {"acquire"}
    with pytest.raises(Unavailable):
        await first.turn()
    site.store.after = set()
    await first.turn()
    assert sorted(first.held) == [0, 1, 2, 3]
    assert (await site.store.view())[0].epoch == 2
    assert await site.store.checkpoint("first", [first.held[0]]) == set()


async def test_what_was_taken_again_meanwhile_is_kept(site: Site) -> None:
    """The answer to a checkpoint comes when its lease has been lost and taken anew: the new one counts."""
    first = site.keeper("first")
    await first.turn()
    old = first.held[0]
    checkpoint = site.store.checkpoint

    async def slow(owner: str, leases: Sequence[Lease]) -> set[int]:
        lost = await checkpoint(owner, leases)
        await site.store.step_over(0, 100)
        await first.turn()
        return lost

    site.store.checkpoint = slow  # type: ignore[method-assign]
    await first.checkpoint({0: 5})
    assert first.held[0].epoch > old.epoch
    assert first.held[0].next == 100


async def test_what_is_left_free_for_the_dead_is_taken_before_their_heartbeats_grow_old(site: Site) -> None:
    first = site.keeper("first")
    site.store.beats = {f"dead-{each}": 1e9 for each in range(3)}  # they count as alive, and take nothing
    await first.turn()
    assert sorted(first.held) == [0]
    await site.pass_by(PATIENCE * LEASE, first)
    assert sorted(first.held) == [0]
    await site.pass_by(2, first)
    assert sorted(first.held) == [0, 1, 2, 3]
    assert not first.has_surplus, "or they would be free again"
    await site.pass_by(LEASE + 1, first)
    assert first.has_surplus, "whoever lives has had time to show it"


async def test_a_partition_without_a_reader_for_longer_than_a_lease_shows(site: Site) -> None:
    """It is recorded as ours, renewed by a release that did not know epochs for instance, and cannot be taken."""
    first = site.keeper("first")
    await first.turn()
    del first.held[3]
    site.store.after = {"acquire"}
    await site.pass_by(LEASE, first)
    assert first.trouble() == ""
    await site.pass_by(2, first)
    assert first.trouble() == "nobody reads partition 3 for 11 s"
    site.store.after = set()
    await site.pass_by(1, first)
    assert first.trouble() == ""


async def test_leases_that_cannot_be_looked_at_show_and_so_does_a_generation_without_any(site: Site) -> None:
    first = site.keeper("first")
    await first.turn()
    site.store.before = {"beat"}
    await site.pass_by(LEASE, first)
    assert first.trouble() == ""
    assert first.held == {}, "they may have lapsed"
    await site.pass_by(1, first)
    assert first.trouble() == "the leases could not be looked at for 11 s"
    site.store.before = set()
    await first.turn()
    assert first.trouble() == ""
    site.store.clear()
    await site.pass_by(LEASE + 2, first)
    assert first.trouble() == "there have been no leases for 11 s"
