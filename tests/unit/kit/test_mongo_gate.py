"""The gate before MongoDB's connections, with PyMongo's own pool behind it and connections that are made up."""

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pymongo.asynchronous.pool import Pool

from services.kit.errors import Unavailable
from services.kit.metrics import MONGO_IN_FLIGHT, MONGO_REFUSED, MONGO_WAITING, Metrics
from services.kit.mongo import connect, foreign_errors, is_transient, is_unsent
from services.kit.mongo_gate import Gate, GateRefused

HANG = 60.0
"""Seconds that only a hang reaches."""


class Context:
    def cancel(self) -> None: ...


class Connection:
    """As much of one as the pool looks at."""

    closed = active = pinned_txn = pinned_cursor = False
    service_id = None
    id = 1

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.cancel_context = Context()

    def idle_time_seconds(self) -> float:
        return 0.0

    def update_last_checkin_time(self) -> None: ...

    def update_is_writable(self, is_writable: bool | None) -> None: ...

    async def close_conn(self, reason: str | None) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> None:
    async def made(self: Pool, handler: Any = None) -> Connection:
        await asyncio.sleep(0)
        connection = Connection(self.gen.get_overall())
        self.active_contexts.add(connection.cancel_context)  # type: ignore[arg-type]
        return connection

    monkeypatch.setattr(Pool, "connect", made)


async def pool_of(pool: int, *, opened: int = 0, queue: float = HANG, metrics: Metrics | None = None) -> Pool:
    """What a client makes for its server, with `opened` connections in it already."""
    options: dict[str, Any] = {} if metrics is None else {"metrics": metrics}
    client = connect("mongodb://127.0.0.1:9", name="things", pool=pool, queue=queue, **options)
    made: Pool = client._topology._create_pool_for_server(("127.0.0.1", 9))
    await made.ready()
    made.conns.extend([await made.connect() for _ in range(opened)])
    return made


async def ended(pool: Pool, *tasks: "asyncio.Task[None]") -> None:
    """Fails if one of these hangs. One that waits for a lost lock cannot be cancelled, so it is given the lock."""
    over, going = await asyncio.wait(tasks, timeout=HANG)
    hang = len(going)
    while going:
        if pool.lock.locked():
            pool.lock.release()
        _, going = await asyncio.wait(going, timeout=0.01)
    assert not hang, f"{hang} operations hang"
    for task in over:
        task.result()


async def test_a_callers_time_limit_never_locks_the_pool() -> None:
    """In PyMongo's own queue the lock stays locked where both limits end together; all hang from then on."""
    chance = random.Random(12)
    limit = 0.02

    async def call(pool: Pool) -> None:
        try:
            async with asyncio.timeout(limit + chance.uniform(0, 0.003)):
                with foreign_errors():
                    async with pool.checkout():
                        await asyncio.sleep(0.005)
        except (TimeoutError, Unavailable):
            pass

    for _ in range(8):
        pool = await pool_of(3, queue=limit)
        await ended(pool, *(asyncio.create_task(call(pool)) for _ in range(100)))
        await ended(pool, asyncio.create_task(call(pool)))
        assert not pool.lock.locked()
        assert pool.requests == pool.active_sockets == 0


async def test_a_crowd_costs_no_turns_of_the_event_loop() -> None:
    """170 callers for 50 connections: PyMongo's own lock is handed over once a turn, which took ten turns for each."""
    pool, turns, done = await pool_of(50, opened=50), 0, 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def call() -> None:
        nonlocal done
        while done < 2000:
            async with pool.checkout():
                await asyncio.sleep(0)
            done += 1

    counting = asyncio.create_task(count())
    await asyncio.gather(*(call() for _ in range(170)))
    counting.cancel()
    assert turns < done


async def test_so_many_at_a_time_and_never_more() -> None:
    metrics = Metrics()
    pool, inside, most = await pool_of(4, opened=4, metrics=metrics), 0, 0

    async def call() -> None:
        nonlocal inside, most
        async with pool.checkout():
            inside += 1
            most = max(most, inside)
            assert inside <= metrics.value(MONGO_IN_FLIGHT, client="things") <= 4
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(call() for _ in range(50)))
    assert most == 4
    assert metrics.value(MONGO_IN_FLIGHT, client="things") == metrics.value(MONGO_WAITING, client="things") == 0


async def test_who_finds_a_full_queue_is_refused_at_once_and_who_waited_long_enough_later() -> None:
    metrics = Metrics()
    gate = Gate(1, patience=0.01, most_waiting=2, client="things", metrics=metrics)
    await gate.enter()
    waiting = [asyncio.create_task(gate.enter()) for _ in range(2)]
    while gate.waiting < 2:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    assert metrics.value(MONGO_WAITING, client="things") == 2
    with pytest.raises(GateRefused, match="2 operations wait"):
        await gate.enter()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in results] == [GateRefused, GateRefused]
    counted = [metrics.value(MONGO_REFUSED, client="things", reason=reason) for reason in ("full", "late")]
    assert counted == [1, 2]
    gate.leave()
    await gate.enter()
    assert (gate.in_flight, gate.waiting) == (1, 0)


async def test_a_refusal_is_unavailable_with_a_time_to_come_back_and_says_nothing_of_what_was_written() -> None:
    with pytest.raises(Unavailable, match="no connection was free") as caught, foreign_errors():
        raise GateRefused("no connection was free within 3 s")
    assert caught.value.retry_after == 1
    assert is_transient(caught.value.__cause__ or caught.value)
    assert not is_unsent(GateRefused("full"))


async def test_places_are_never_lost_nor_made_whoever_is_cancelled_when() -> None:
    chance = random.Random(3)
    gate = Gate(3, patience=0.003, most_waiting=40)

    async def call() -> None:
        await gate.enter()
        try:
            assert gate.in_flight <= 3
            await asyncio.sleep(chance.choice((0, 0, 0.001)))
        finally:
            gate.leave()

    for _ in range(60):
        tasks = [asyncio.create_task(call()) for _ in range(50)]
        for task in chance.sample(tasks, 25):
            await asyncio.sleep(0)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert not [each for each in results if isinstance(each, AssertionError)]
        assert (gate.in_flight, gate.waiting) == (0, 0)
    async with AsyncExitStack() as held:
        for _ in range(3):
            await gate.enter()
            held.callback(gate.leave)
        with pytest.raises(GateRefused):
            await gate.enter()


async def test_a_connection_that_cannot_be_made_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(self: Pool, handler: Any = None) -> Connection:
        raise OSError("refused")

    metrics = Metrics()
    pool = await pool_of(1, metrics=metrics)
    monkeypatch.setattr(Pool, "connect", refused)
    for _ in range(3):
        with pytest.raises(OSError, match="refused"):
            async with pool.checkout():
                pass
    assert metrics.value(MONGO_IN_FLIGHT, client="things") == 0


async def test_the_url_cannot_bring_back_pymongos_own_queue() -> None:
    client = connect("mongodb://127.0.0.1:9/?waitQueueTimeoutMS=500&timeoutMS=700&maxPoolSize=3")
    options = client.options.pool_options
    assert (options.wait_queue_timeout, client.options.timeout, options.max_pool_size) == (None, None, 50)


async def test_a_client_opens_what_it_needs_unless_told() -> None:
    assert connect("mongodb://127.0.0.1:9").options.pool_options.min_pool_size == 0
    assert connect("mongodb://127.0.0.1:9", opened=7).options.pool_options.min_pool_size == 7


async def test_looks_for_the_servers_do_not_queue_with_operations() -> None:
    client = connect("mongodb://127.0.0.1:9", pool=1)
    monitor = client._topology._create_pool_for_monitor(("127.0.0.1", 9))
    await monitor.ready()
    operations = client._topology._create_pool_for_server(("127.0.0.1", 9))
    await operations.ready()
    async with operations.checkout(), asyncio.timeout(HANG), monitor.checkout():
        pass
