"""What generations and the pointer promise: one suite, run on memory and on a real MongoDB."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from pymongo import MongoClient

from services.events.adapters.mongo_generations import MongoGenerations
from services.events.adapters.mongo_leases import MongoLeases
from services.events.generations import end_grace, move, retire, rollback, settle, swap
from services.events.ports import GenerationStore, Pointer, Stage, Standing
from services.events.projections.projection import EMAIL_LOG
from services.events.stages import rolled_back
from services.kit.errors import PermanentError
from services.kit.mongo import Database, Document, connect
from services.kit.testing import FakeClock
from tests.unit.events_service.memory_stores import MemoryGenerations

HOUR = 3600.0
LATER = datetime(2099, 1, 1, tzinfo=UTC)


@pytest.fixture
async def database(mongo_url: str) -> AsyncIterator[Database]:
    client = connect(mongo_url)
    name = f"test_generations_{uuid4().hex[:8]}"
    try:
        yield client[name]
    finally:
        await client.drop_database(name)
        await client.close()


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> GenerationStore:
    if request.param == "memory":
        return MemoryGenerations(FakeClock())
    return MongoGenerations(request.getfixturevalue("database"), EMAIL_LOG)


async def verified(store: GenerationStore) -> int:
    """A generation that can be swapped in."""
    number = (await store.create(EMAIL_LOG.version)).number
    await store.ensure_indexes(number)
    for stage in ("backfilling", "catchingUp", "verified"):
        await move(store, number, stage)
    return number


async def two(store: GenerationStore) -> tuple[int, int]:
    """The one before, in its grace, and the active one."""
    first, second = await verified(store), await verified(store)
    await swap(store, first, expected=None)
    await swap(store, second, expected=first, grace=HOUR)
    return first, second


async def stages(store: GenerationStore) -> list[Stage]:
    return [each.stage for each in await store.list()]


async def test_numbers_go_up_and_what_was_made_stays(store: GenerationStore) -> None:
    assert await store.pointer() == Pointer(None, None, 0)
    assert await store.list() == []
    made = await asyncio.gather(*(store.create(version) for version in (1, 2, 3)))
    assert sorted(each.number for each in made) == [1, 2, 3]
    assert {each.stage for each in made} == {"created"}
    again = await store.create(9, number=2)
    assert again == await store.get(2)
    assert again.version != 9
    assert (await store.create(1, number=7)).number == 7
    assert (await store.pointer()).generation == 7
    assert await store.get(4) is None


async def test_pointer_and_stages_change_together(store: GenerationStore) -> None:
    first, second = await two(store)
    assert await store.pointer() == Pointer(second, first, 2)
    assert await stages(store) == ["grace", "active"]
    old = await store.get(first)
    assert old is not None
    assert old.grace_until is not None
    assert await rollback(store, grace=HOUR) == first
    assert await store.pointer() == Pointer(first, second, 2)
    assert await stages(store) == ["active", "grace"]
    old = await store.get(first)
    assert old is not None
    assert old.grace_until is None


async def test_what_is_refused_changes_nothing(store: GenerationStore) -> None:
    first, second = await two(store)
    third = await verified(store)
    before = (await store.pointer(), await store.list())
    with pytest.raises(PermanentError, match="pointerMoved"):
        await swap(store, third, expected=first)
    with pytest.raises(PermanentError, match="generationActive"):
        await retire(store, second)
    with pytest.raises(PermanentError, match="wrongStage"):
        await move(store, second, "verified")
    assert (await store.pointer(), await store.list()) == before


async def test_a_change_that_fails_half_way_is_not_made(store: GenerationStore) -> None:
    """The pointer comes first, and then a grace that no date can hold."""
    first = await verified(store)
    await swap(store, first, expected=None)
    second = await verified(store)
    with pytest.raises(OverflowError):
        await swap(store, second, expected=first, grace=2.0**70)
    assert (await store.pointer()).active == first
    assert await stages(store) == ["active", "verified"]


async def test_of_steps_at_one_time_each_sees_the_others(store: GenerationStore) -> None:
    """Whatever order they come in: never two that are active, and never one that is read and given up."""
    for _ in range(5):
        active = (await store.pointer()).active
        rivals = [await verified(store), await verified(store)]
        steps = [
            *(swap(store, each, expected=active, grace=HOUR) for each in rivals),
            *(retire(store, each) for each in rivals),
            rollback(store, grace=HOUR),
        ]
        for outcome in await asyncio.gather(*steps, return_exceptions=True):
            assert outcome is None or isinstance(outcome, int | PermanentError), outcome
        pointer = await store.pointer()
        active_ones = [each.number for each in await store.list() if each.stage == "active"]
        assert active_ones == ([] if pointer.active is None else [pointer.active])


async def test_a_generation_that_is_given_up_is_not_read_any_more(store: GenerationStore) -> None:
    first, second = await two(store)
    await retire(store, first)
    assert await store.pointer() == Pointer(second, None, 2)
    with pytest.raises(PermanentError, match="nothingToRollBack"):
        await rollback(store)
    third = await verified(store)
    await retire(store, third)
    assert await stages(store) == ["retired", "active", "abandoned"]
    with pytest.raises(PermanentError, match="abandoned"):
        await swap(store, third, expected=second)
    await retire(store, first)  # a process was killed before it dropped it
    assert await stages(store) == ["retired", "active", "abandoned"]


async def test_a_grace_ends_when_it_is_over_and_not_before(store: GenerationStore) -> None:
    first, second = await two(store)
    await end_grace(store, first, datetime(2020, 1, 1, tzinfo=UTC))
    await end_grace(store, second, LATER)
    assert await stages(store) == ["grace", "active"]
    await end_grace(store, first, LATER)
    assert await stages(store) == ["retired", "active"]


async def test_only_what_is_given_up_is_dropped(store: GenerationStore) -> None:
    first, second = await two(store)
    third = await verified(store)
    for number, reason in (
        (first, "wrongStage"),
        (second, "generationActive"),
        (third, "wrongStage"),
        (9, "noGeneration"),
    ):
        with pytest.raises(PermanentError, match=reason):
            await store.drop(number)


async def test_only_what_is_being_filled_can_be_paused(store: GenerationStore) -> None:
    number = (await store.create(1)).number
    assert await store.pause(number, paused=True)
    await move(store, number, "backfilling")
    found = await store.get(number)
    assert found is not None
    assert found.rests
    with pytest.raises(PermanentError, match="paused"):
        await move(store, number, "catchingUp")
    assert await store.pause(number, paused=False)
    await move(store, number, "catchingUp")
    assert not await store.pause(number, paused=True)
    assert not await store.pause(99, paused=True)
    found = await store.get(number)
    assert found is not None
    assert not found.paused


# --- MongoDB alone: what lies there, and who comes between -----------------------------------------------------------


async def test_a_step_is_taken_anew_when_another_process_was_faster(database: Database, mongo_url: str) -> None:
    """Between what a step has read and what it writes, the generation that it goes back to is given up."""
    store = MongoGenerations(database, EMAIL_LOG)
    first, second = await two(store)
    seen: list[Stage] = []

    def step(standing: Standing) -> Standing:
        seen.append(standing.generations[first].stage)
        if len(seen) == 1:
            _given_up_by_another(mongo_url, database.name, first)
        return rolled_back(standing)

    with pytest.raises(PermanentError, match="nothingToRollBack"):
        await store.change(step, grace=HOUR)
    assert seen == ["grace", "retired"]
    assert (await store.pointer()).active == second


def _given_up_by_another(mongo_url: str, database: str, number: int) -> None:
    with MongoClient[Document](mongo_url) as client:
        other = client[database]
        other["generations"].update_one({"_id": f"email_log/{number}"}, {"$set": {"stage": "retired"}})
        other["projections"].update_one({"_id": "email_log"}, {"$inc": {"changes": 1}})


@pytest.mark.parametrize(
    ("pointer", "before", "after"),
    [
        ((2, 1), ["active", "verified"], ["grace", "active"]),  # a swap, killed after the pointer moved
        ((2, 1), ["active", "active"], ["grace", "active"]),  # and one later
        ((1, 2), ["grace", "active"], ["active", "grace"]),  # a roll back
        ((1, 2), ["active", "active"], ["active", "grace"]),
        ((1, 2), ["retired", "grace"], ["active", "grace"]),  # which a retirement came before
        ((1, None), ["active", "backfilling"], ["active", "backfilling"]),
        ((None, None), ["active", "created"], ["active", "created"]),  # the first one, on its way
    ],
)
async def test_what_an_earlier_release_left_half_done_is_settled_by_the_pointer(
    database: Database, pointer: tuple[int | None, int | None], before: list[str], after: list[str]
) -> None:
    """Documents as it wrote them: pointer and stages one after the other, and no count of changes."""
    store = MongoGenerations(database, EMAIL_LOG)
    for number, stage in enumerate(before, 1):
        made = {"_id": f"email_log/{number}", "projection": "email_log", "number": number, "version": 1, "stage": stage}
        past = {"graceUntil": datetime(2026, 1, 1, tzinfo=UTC)} if stage == "grace" else {}
        await database["generations"].insert_one(
            {**made, "paused": False, "createdAt": datetime(2026, 1, 1, tzinfo=UTC), **past}
        )
    active, previous = pointer
    await database["projections"].insert_one(
        {"_id": "email_log", "active": active, "previous": previous, "generation": len(before)}
    )
    await settle(store, grace=HOUR)
    await settle(store, grace=HOUR)
    assert await stages(store) == after
    assert await store.pointer() == Pointer(active, previous, len(before))
    for each in await store.list():
        assert (each.grace_until is not None) == (each.stage == "grace")


async def test_what_a_late_writer_makes_of_a_dropped_generation_is_dropped_too(database: Database) -> None:
    store = MongoGenerations(database, EMAIL_LOG)
    first, _ = await two(store)
    leases = MongoLeases(database, "email_log", first, "email.events")
    await leases.seed({0: 0})
    await retire(store, first)
    assert await leases.view() == []
    for name in ("email_log__g1", "email_log__g1__facts", "email_log__g1__statistics"):
        await database[name].insert_one({"_id": "late"})
    await leases.beat("late")
    await store.drop(first)
    left = await database.list_collection_names()
    assert [name for name in left if name.startswith("email_log__g1")] == []
    assert await database["workers"].count_documents({}) == 0
