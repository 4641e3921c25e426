"""What leases promise: one suite, run on memory and on a real MongoDB."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from uuid import uuid4

import pytest

from services.events.adapters.mongo_leases import MongoLeases
from services.events.ports import Lease, LeaseStore
from services.kit.mongo import Document, connect
from services.kit.testing import FakeClock
from tests.unit.events_service.memory_stores import MemoryLeases

HOUR = 3600


@dataclass(frozen=True)
class Place:
    """`lapse` lets every lease that is held run out; `left` tells the seconds that the lease of a partition lasts."""

    leases: LeaseStore
    lapse: Callable[[], Awaitable[None]]
    left: Callable[[int], Awaitable[float]]


@pytest.fixture(params=["memory", "mongo"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    if request.param == "memory":
        clock = FakeClock()
        leases = MemoryLeases(clock, HOUR)

        async def pass_by() -> None:
            clock.move(2 * HOUR)

        async def left(partition: int) -> float:
            return leases.kept[partition].until - clock.monotonic()

        yield Place(leases, pass_by, left)
        return
    client = connect(request.getfixturevalue("mongo_url"))
    database = client[f"test_leases_{uuid4().hex[:8]}"]

    async def make_old() -> None:
        earlier = {"$dateSubtract": {"startDate": "$until", "unit": "hour", "amount": 2}}
        await database["leases"].update_many({}, [{"$set": {"until": earlier}}])

    async def left_in_mongo(partition: int) -> float:
        pipeline: list[Document] = [
            {"$match": {"partition": partition}},
            {"$project": {"left": {"$subtract": ["$until", "$$NOW"]}}},
        ]
        (found,) = await (await database["leases"].aggregate(pipeline)).to_list(None)
        return float(found["left"]) / 1000

    try:
        real = MongoLeases(database, "email_log", 1, "email.events", lease_ms=HOUR * 1000)
        yield Place(real, make_old, left_in_mongo)
    finally:
        await client.drop_database(database.name)
        await client.close()


async def test_a_lease_is_one_owners_until_it_runs_out(place: Place) -> None:
    leases = place.leases
    await leases.seed({0: 5, 1: 0})
    await leases.seed({0: 99})
    mine = await leases.acquire("mine", 0)
    assert mine is not None
    assert (mine.partition, mine.epoch, mine.next) == (0, 1, 5)
    assert await leases.acquire("other", 0) is None
    again = await leases.acquire("mine", 0)
    assert again is not None
    assert again.epoch == 2
    assert await leases.acquire("mine", 7) is None, "there is no such partition"
    await place.lapse()
    assert [each.held for each in await leases.view()] == [False, False]
    taken = await leases.acquire("other", 0)
    assert taken is not None
    assert taken.epoch == 3
    assert [
        (each.partition, each.owner, each.epoch, each.next, each.begin, each.held) for each in await leases.view()
    ] == [
        (0, "other", 3, 5, 5, True),
        (1, None, 0, 0, 0, False),
    ]


async def test_only_what_is_named_by_its_epoch_is_renewed(place: Place) -> None:
    """A lease that its owner does not know of lapses: whoever renews by name alone keeps it from everybody for ever."""
    leases = place.leases
    await leases.seed({0: 0, 1: 0, 2: 0})
    held, forgotten, older = [await leases.acquire("mine", each) for each in range(3)]
    assert held is not None
    assert forgotten is not None
    assert older is not None
    assert await leases.acquire("mine", 2) is not None  # with a higher epoch, of which the answer was lost
    await place.lapse()
    assert await leases.renew("mine", [held, older]) == {2}
    assert await place.left(0) > HOUR / 2
    assert await place.left(1) < 0
    assert await place.left(2) < 0
    assert [each.held for each in await leases.view()] == [True, False, False]
    assert await leases.renew("mine", []) == set()
    assert await leases.renew("other", [held]) == {0}
    assert await leases.acquire("other", 1) is not None
    assert await leases.renew("mine", [held, forgotten]) == {1}


async def test_a_checkpoint_is_recorded_where_owner_and_epoch_stand(place: Place) -> None:
    leases = place.leases
    one, two = await _both(leases)
    await place.lapse()
    assert await leases.acquire("other", 1) is not None
    assert await leases.checkpoint("mine", [replace(one, next=7), replace(two, next=9)]) == {1}
    assert [(each.owner, each.next, each.held) for each in await leases.view()] == [
        ("mine", 7, True),
        ("other", 0, True),
    ]
    assert await leases.checkpoint("mine", []) == set()


async def test_what_is_given_back_is_free_and_a_former_owner_frees_nothing(place: Place) -> None:
    leases = place.leases
    one, _ = await _both(leases)
    await leases.release("mine", [one])
    heir = await leases.acquire("other", 0)
    assert heir is not None
    await leases.release("mine", [one])
    assert [(each.owner, each.held) for each in await leases.view()] == [("other", True), ("mine", True)]
    await leases.leave("mine")
    assert [(each.owner, each.held) for each in await leases.view()] == [("other", True), (None, False)]


async def test_processes_that_live_are_counted(place: Place) -> None:
    leases = place.leases
    assert await leases.beat("a") == 1
    assert await leases.beat("b") == 2
    assert await leases.beat("a") == 2
    await leases.leave("b")
    assert await leases.beat("a") == 1


async def test_what_is_stepped_over_is_taken_from_its_owner(place: Place) -> None:
    leases = place.leases
    await leases.seed({0: 0})
    mine = await leases.acquire("mine", 0)
    assert mine is not None
    assert await leases.step_over(0, 5)
    assert not await leases.step_over(0, 5)
    assert await leases.renew("mine", [mine]) == {0}
    assert await leases.checkpoint("mine", [replace(mine, next=3)]) == {0}
    again = await leases.acquire("mine", 0)
    assert again is not None
    assert (again.epoch, again.next) == (3, 5)


async def _both(leases: LeaseStore) -> tuple[Lease, Lease]:
    """The leases of two partitions, all that there are, held by `mine`."""
    await leases.seed({0: 0, 1: 0})
    one, two = await leases.acquire("mine", 0), await leases.acquire("mine", 1)
    assert one is not None
    assert two is not None
    return one, two
