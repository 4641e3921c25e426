"""Rebuilds on real Kafka and MongoDB, with worker processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from services.events.adapters.backfill_processes import BackfillProcesses
from services.events.composing import ReadingSide
from services.events.generations import retire, rollback
from services.events.ports import LeaseStore
from services.events.rebuild import Rebuild, Workers
from services.kit.errors import PermanentError, RefusedHere
from tests.integration.events.conftest import Write, address, end_leases, until
from tests.integration.events.judge import assert_equal_to_the_log, wait_until_projected
from tests.integration.events.mails import mails
from tests.integration.events.test_live import first_generation, live_generation, projecting
from tests.integration.events.workers import WorkersHere


@pytest.fixture
async def workers(side: ReadingSide) -> AsyncIterator[WorkersHere]:
    """Workers in this process."""
    workers = WorkersHere(side)
    yield workers
    await workers.stop()


@pytest.fixture
async def worker_processes(side: ReadingSide, mongo_url: str) -> AsyncIterator[BackfillProcesses]:
    """Worker processes on this test's topic and database."""
    environment = os.environ | {
        "MAILROOM_KAFKA_BOOTSTRAP": address(side),
        "MAILROOM_MONGO_URL": mongo_url,
        "MAILROOM_EVENTS_DATABASE": side.database.name,
        "MAILROOM_EMAIL_EVENTS_TOPIC": side.projection.topic,
        "MAILROOM_FILES_EVENTS_TOPIC": side.projection.topic,
        "MAILROOM_PUBLIC_URL": "http://127.0.0.1:1",
        "FILE_ENCRYPTION_KEY": "k" * 32,
        "MAILROOM_JWT_ALGORITHM": "HS256",
        "MAILROOM_JWT_SECRET": "s" * 32,
    }
    processes = BackfillProcesses(side.projection.name, 2, environment)
    yield processes
    await processes.stop()


async def rebuilt(side: ReadingSide, rebuild: Rebuild, **options: Any) -> int:
    generation = await rebuild.create()
    await rebuild.run(generation.number, **options)
    return generation.number


async def test_a_rebuild_equals_live_and_takes_its_place(
    side: ReadingSide, write: Write, worker_processes: BackfillProcesses
) -> None:
    first = await first_generation(side)
    rebuild = side.rebuild(worker_processes)
    async with projecting(side, first):
        await write(mails(200, busy_opens=700))
        plan = await rebuild.plan()
        assert (plan.active, plan.partitions, plan.lost_head) == (1, 6, ())
        await wait_until_projected(side, first)
        writing = asyncio.create_task(write(mails(100, seed=2)))  # the log goes on while it is rebuilt
        generation = await rebuild.create()
        with pytest.raises(PermanentError, match="rebuildInProgress"):
            await rebuild.create()
        verdict = await rebuild.run(generation.number)
        await writing
        async with projecting(side, generation.number):
            await wait_until_projected(side, generation.number)
        await wait_until_projected(side, first)
    assert verdict is not None
    assert (verdict.differing, verdict.reshaped) == (0, 0)
    assert verdict.documents >= 200
    assert await assert_equal_to_the_log(side, generation.number) == 300
    assert await assert_equal_to_the_log(side, first) == 300
    pointer = await side.generations.pointer()
    assert (pointer.active, pointer.previous) == (generation.number, first)
    assert await side.database["email_log"].count_documents({}) == 300
    shown = await side.database["email_log"].find_one({})
    assert shown is not None
    assert not [name for name in shown if name.startswith("_") and name != "_id"]
    stages = {each.number: each.stage for each in await side.generations.list()}
    assert stages == {first: "grace", generation.number: "active"}
    indexes = await side.database[f"email_log__g{generation.number}"].index_information()
    assert len(indexes) == 1 + len(side.projection.indexes)
    assert await side.statistics(generation.number).dirty() == []

    assert await rollback(side.generations) == first
    assert (await side.generations.pointer()).active == first
    with pytest.raises(PermanentError, match="generationActive"):
        await retire(side.generations, first)
    await retire(side.generations, generation.number)
    assert f"email_log__g{generation.number}" not in await side.database.list_collection_names()
    with pytest.raises(PermanentError, match="nothingToRollBack"):
        await rollback(side.generations)


async def test_workers_and_coordinator_killed_in_the_middle(
    side: ReadingSide, write: Write, worker_processes: BackfillProcesses
) -> None:
    workers = worker_processes
    await live_generation(side, write, mails(400, busy_opens=600))
    generation = await side.rebuild(workers).create()
    running = asyncio.create_task(side.rebuild(workers).run(generation.number))
    leases = side.leases(generation.number)

    async def begun() -> bool:
        assert not running.done()
        return any(lease.next > lease.begin for lease in await leases.view())

    await until(begun)
    for pid in workers.pids:
        os.kill(pid, signal.SIGKILL)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await end_leases(side)
    await asyncio.gather(*(side.rebuild(workers).run(generation.number) for _ in range(2)), return_exceptions=True)
    await side.rebuild(workers).run(generation.number)
    assert (await side.generations.pointer()).active == generation.number
    assert await assert_equal_to_the_log(side, generation.number) == 400


async def test_one_coordinator_at_a_time(side: ReadingSide, write: Write, workers: Workers) -> None:
    await live_generation(side, write, mails(20))
    generation = await side.rebuild(workers).create()
    outcomes = await asyncio.gather(
        *(side.rebuild(workers).run(generation.number) for _ in range(2)), return_exceptions=True
    )
    assert sum(isinstance(each, RefusedHere) for each in outcomes) == 1, outcomes


async def test_a_generation_that_differs_is_not_swapped_in_unless_accepted(
    side: ReadingSide, write: Write, workers: Workers
) -> None:
    first = await live_generation(side, write, mails(50))
    live = side.database[f"email_log__g{first}"]
    await live.update_one({"_id": "mail-1-00007"}, {"$set": {"subject": "somebody tampered with it"}})
    await live.delete_one({"_id": "mail-1-00009"})
    rebuild = side.rebuild(workers)
    generation = await rebuild.create()
    with pytest.raises(PermanentError, match="differs"):
        await rebuild.run(generation.number)
    assert (await side.generations.pointer()).active == first
    found = await side.generations.get(generation.number)
    assert found is not None
    assert found.report is not None
    assert sorted(found.report["examples"]) == ["mail-1-00007", "mail-1-00009"]  # type: ignore[call-overload]
    verdict = await rebuild.run(generation.number, accept_differences=True)
    assert verdict is not None
    assert verdict.differing == 2
    assert (await side.generations.pointer()).active == generation.number
    assert await assert_equal_to_the_log(side, generation.number) == 50


async def test_a_new_version_may_reshape_every_document(side: ReadingSide, write: Write, workers: Workers) -> None:
    await write(mails(30))
    first = await first_generation(side)

    def fold(events: Any, overflow: Any) -> Any:
        body = side.projection.fold(events, overflow)
        return None if body is None else {**body, "subject": "in the old shape"}

    old = replace(side, projection=replace(side.projection, version=0, fold=fold))
    await side.database["generations"].update_one({"_id": "email_log/1"}, {"$set": {"version": 0}})
    async with projecting(old, first):
        await wait_until_projected(side, first)
    rebuild = side.rebuild(workers)
    verdict = await rebuild.run((await rebuild.create()).number)
    assert verdict is not None
    assert (verdict.documents, verdict.differing, verdict.reshaped) == (30, 0, 30)


async def test_a_paused_rebuild_rests_and_goes_on(side: ReadingSide, write: Write, workers: Workers) -> None:
    await live_generation(side, write, mails(100))
    rebuild = side.rebuild(workers)
    generation = await rebuild.create()
    await side.generations.pause(generation.number, paused=True)
    running = asyncio.create_task(rebuild.run(generation.number))
    leases = side.leases(generation.number)
    await until(lambda: _all_held(leases))
    await asyncio.sleep(0.5)  # what it would read is there all the time
    view = await leases.view()
    assert all(lease.next == lease.begin for lease in view)
    assert not running.done()
    await side.generations.pause(generation.number, paused=False)
    await running
    found = await side.generations.get(generation.number)
    assert found is not None
    assert found.stage == "active"
    assert found.progress is not None
    assert found.progress.done == found.progress.total


async def test_a_rebuild_that_is_given_up_ends_and_leaves_nothing(
    side: ReadingSide, write: Write, workers: Workers
) -> None:
    await write(mails(20))
    first = await first_generation(side)
    rebuild = side.rebuild(workers)
    generation = await rebuild.create()
    await side.generations.pause(generation.number, paused=True)
    running = asyncio.create_task(rebuild.run(generation.number))
    await until(lambda: _all_held(side.leases(generation.number)))
    await rebuild.abandon(generation.number)
    with pytest.raises(PermanentError, match="abandoned"):
        await running
    assert (await side.generations.pointer()).active == first
    assert f"email_log__g{generation.number}" not in await side.database.list_collection_names()


async def _all_held(leases: LeaseStore) -> bool:
    view = await leases.view()
    return bool(view) and all(lease.held for lease in view)


async def test_a_log_without_its_head_is_refused(side: ReadingSide, write: Write, workers: Workers) -> None:
    from aiokafka import TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

    await live_generation(side, write, mails(50))
    admin = AIOKafkaAdminClient(bootstrap_servers=address(side))
    await admin.start()
    await admin.delete_records({TopicPartition(side.projection.topic, 2): RecordsToDelete(before_offset=3)})
    await admin.close()
    rebuild = side.rebuild(workers)
    assert (await rebuild.plan()).lost_head == (2,)
    with pytest.raises(PermanentError, match="lostHead"):
        await rebuild.create()
