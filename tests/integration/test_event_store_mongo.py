"""What only a real MongoDB can show: lost answers, a primary that steps down, killed writers, clocks apart."""

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from contracts.email.events import EmailCancelled
from contracts.ids import uuid7
from services.kit.clock import SystemClock
from services.kit.errors import AppendOutcomeUnknown, ExpectedVersionConflict, PermanentError, Unavailable
from services.kit.event_store import mongo_append
from services.kit.event_store.mongo import LEASE_MARGIN, MongoEventStore
from services.kit.event_store.port import Append, Appended, AppendResult, Draft, Lease, Stream, StreamIndex, stamp
from services.kit.event_store.relay import Relay, StreamPublisher
from services.kit.health import Progress
from services.kit.mongo import Client, Collection, connect
from tests.integration.lossy_proxy import LossyProxy, lossy_proxy
from tests.integration.own_stack import own_stack
from tests.integration.stream_writer import STREAMS, FilePublisher

LONG = timedelta(seconds=30)
HANG = 180.0
"""Seconds that only something that hangs takes."""


def append_to(stream: Stream, count: int = 1, index: StreamIndex | None = None, lease: Lease | None = None) -> Append:
    events = stamp(
        stream,
        [Draft(EmailCancelled(reason="r"))] * count,
        now=datetime.now(UTC),
        new_id=uuid7,
        source="test",
        correlation="c",
    )
    return Append(stream, events, index or StreamIndex(), lease=lease)


@pytest.fixture
async def client(mongo_url: str) -> AsyncIterator[Client]:
    client = connect(mongo_url)
    yield client
    await client.close()


@pytest.fixture
async def streams(client: Client) -> AsyncIterator[Collection]:
    name = f"store_{uuid4().hex}"
    await MongoEventStore(client[name]["streams"]).prepare()
    yield client[name]["streams"]
    await client.drop_database(name)


@pytest.fixture
async def proxy(mongo_url: str) -> AsyncIterator[LossyProxy]:
    port = urlsplit(mongo_url).port
    assert port is not None
    async with lossy_proxy(port) as proxy:
        yield proxy


@pytest.fixture
async def behind(
    proxy: LossyProxy, streams: Collection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[MongoEventStore]:
    """A store that reaches the same collection through the proxy, and never stops following up lost answers."""
    monkeypatch.setattr(mongo_append, "SETTLE_SECONDS", HANG)
    async with _through(proxy, streams, server_selection=HANG) as store:
        yield store


@pytest.fixture
async def impatient(proxy: LossyProxy, streams: Collection) -> AsyncIterator[MongoEventStore]:
    """A store behind the same proxy that soon takes the server for away."""
    async with _through(proxy, streams, server_selection=0.5) as store:
        yield store


@asynccontextmanager
async def _through(
    proxy: LossyProxy, streams: Collection, *, server_selection: float
) -> AsyncIterator[MongoEventStore]:
    url = f"mongodb://127.0.0.1:{proxy.port}/?directConnection=true"
    client = connect(url, server_selection=server_selection)
    yield MongoEventStore(client[streams.database.name][streams.name])
    await client.close()


async def ids_of(streams: Collection) -> dict[str, list[str]]:
    """Event ids by stream, as stored."""
    store = MongoEventStore(streams)
    names = [document["_id"] async for document in streams.find({}, {"_id": 1})]
    return {name: [event.id for event in s.events] for name, s in (await store.load_many(names)).items()}


class TestLostAnswers:
    """The driver repeats a write once by itself; so losing one is its business, losing two is ours."""

    @pytest.mark.parametrize(
        "losses",
        [
            ["answer"],
            ["answer", "answer"],
            ["request", "request"],
            pytest.param(["request", "answer"], marks=pytest.mark.long),
            pytest.param(["request", "request", "request", "answer"], marks=pytest.mark.long),
            ["late", "late"],
        ],
    )
    async def test_a_bulk_stands_once_and_is_confirmed(
        self, proxy: LossyProxy, behind: MongoEventStore, streams: Collection, losses: list[str]
    ) -> None:
        old = await MongoEventStore(streams).append(append_to(Stream.absent("old")))
        assert isinstance(old, Appended)
        appends = [append_to(Stream.absent("new"), 2), append_to(old.stream)]
        proxy.losses = list(losses)  # type: ignore[arg-type]
        results = await behind.append_many(appends)
        assert proxy.lost == len(losses)
        assert [type(result) for result in results] == [Appended, Appended]
        stored = await ids_of(streams)
        assert stored["new"] == [event.id for event in appends[0].events]
        assert stored["old"][1:] == [event.id for event in appends[1].events]

    async def test_another_writer_in_between_is_a_conflict(
        self, proxy: LossyProxy, behind: MongoEventStore, streams: Collection
    ) -> None:
        mine, theirs = append_to(Stream.absent("a")), append_to(Stream.absent("a"))
        other = MongoEventStore(streams)

        async def write_first() -> None:
            if proxy.lost == 2:
                assert isinstance(await other.append(theirs), Appended)

        proxy.on_loss = write_first
        proxy.losses = ["request", "request"]
        result = await behind.append(mine)
        assert isinstance(result, ExpectedVersionConflict)
        assert result.found_version == 1
        assert await ids_of(streams) == {"a": [theirs.events[0].id]}

    async def test_what_was_written_counts_though_others_went_on(
        self, proxy: LossyProxy, behind: MongoEventStore, streams: Collection
    ) -> None:
        mine = append_to(Stream.absent("a"))
        other = MongoEventStore(streams)

        async def write_next() -> None:
            if proxy.lost == 2:
                assert isinstance(await other.append(append_to(await other.load("a"))), Appended)

        proxy.on_loss = write_next
        proxy.losses = ["answer", "answer"]
        result = await behind.append(mine)
        assert isinstance(result, Appended)
        assert result.stream.version == 2
        assert result.stream.events[0].id == mine.events[0].id

    async def test_a_stale_item_beside_a_lost_one_is_a_conflict(
        self, proxy: LossyProxy, behind: MongoEventStore, streams: Collection
    ) -> None:
        assert isinstance(await MongoEventStore(streams).append(append_to(Stream.absent("taken"))), Appended)
        proxy.losses = ["answer", "answer"]
        results = await behind.append_many([append_to(Stream.absent("taken")), append_to(Stream.absent("free"))])
        assert [type(result) for result in results] == [ExpectedVersionConflict, Appended]

    async def test_what_stays_unreadable_is_unknown(
        self,
        proxy: LossyProxy,
        impatient: MongoEventStore,
        streams: Collection,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(mongo_append, "SETTLE_SECONDS", 0.5)
        await _until(partial(_reaches, impatient))

        async def go_down() -> None:
            proxy.down = True

        proxy.on_loss = go_down
        proxy.losses = ["answer", "answer"]
        append = append_to(Stream.absent("a"))
        assert isinstance(await impatient.append(append), AppendOutcomeUnknown)
        assert await ids_of(streams) == {"a": [append.events[0].id]}  # and it does stand: unknown means unknown

    async def test_an_append_to_a_server_that_is_away_wrote_nothing(
        self, proxy: LossyProxy, impatient: MongoEventStore, streams: Collection
    ) -> None:
        await _until(partial(_reaches, impatient))
        assert isinstance(await impatient.append(append_to(Stream.absent("warm-up"))), Appended)
        proxy.down = True
        with pytest.raises(Unavailable):
            await impatient.load("a")  # the driver notices
        assert isinstance(await impatient.append(append_to(Stream.absent("a"))), Unavailable)
        with pytest.raises(Unavailable):
            await impatient.unpublished(timedelta(0), 5)
        assert list(await ids_of(streams)) == ["warm-up"]


@pytest.fixture(scope="module")
def own_mongo() -> Iterator[str]:
    """URL of a MongoDB whose primary this module may take away."""
    with own_stack("mongo") as stack:
        yield stack.site.addresses().mongo_url


class TestFailover:
    async def test_appends_survive_a_primary_that_steps_down(self, own_mongo: str) -> None:
        client = connect(own_mongo)
        streams = client[f"store_{uuid4().hex}"]["streams"]
        await MongoEventStore(streams).prepare()
        stores = [MongoEventStore(streams) for _ in range(3)]
        outcomes: list[tuple[Append, AppendResult]] = []
        appended = 0
        done = asyncio.Event()

        async def keep_appending(store: MongoEventStore) -> None:
            nonlocal appended
            while not done.is_set():
                try:
                    seen = await store.load_many(random.sample(STREAMS, 5))
                    appends = [append_to(stream, random.randint(1, 2)) for stream in seen.values()]
                    results = await store.append_many(appends)
                except Unavailable:
                    await asyncio.sleep(0.05)
                else:
                    outcomes.extend(zip(appends, results, strict=True))
                    appended += sum(isinstance(result, Appended) for result in results)

        async def more_are_appended() -> None:
            before = appended

            async def more() -> bool:
                assert not any(writer.done() for writer in writers)
                return appended >= before + 20

            await _until(more)

        writers = [asyncio.create_task(keep_appending(store)) for store in stores]
        try:
            await more_are_appended()
            for _ in range(2):
                await client.admin.command({"replSetStepDown": 1, "force": True})
                await _primary_again(client)
                await more_are_appended()
        finally:
            done.set()
            await asyncio.gather(*writers)
        _check_against_store(outcomes, await ids_of(streams))
        await client.close()

    async def test_killed_writers_lose_nothing_and_double_nothing(
        self, mongo_url: str, streams: Collection, tmp_path: Path
    ) -> None:
        """Killed anywhere, then with events on the log of which the store does not know, then with events in the store
        that are not on the log. Whatever two writers do at the same time, the one that dies last leaves some.
        """
        random.seed(20261124)
        for dies in ("never", "published", "appended"):
            names = [f"{dies}-{n}" for n in range(2)]
            writers = [await _start_writer(mongo_url, streams, name, tmp_path, dies) for name in names]
            await _until(partial(_all_appended, [tmp_path / f"{name}.confirmed" for name in names]))
            if dies == "never":
                await asyncio.sleep(random.random() * 0.25)
                for writer in writers:
                    os.kill(writer.pid, signal.SIGKILL)
            async with asyncio.timeout(HANG):
                assert [await writer.wait() for writer in writers] == [-signal.SIGKILL] * 2
        stored = await ids_of(streams)
        everything = [event for ids in stored.values() for event in ids]
        confirmed = _confirmed(tmp_path)
        assert len(everything) == len(set(everything))
        assert confirmed <= set(everything)

        store = MongoEventStore(streams)
        assert await store.unpublished(timedelta(0), 100) != []
        clock = SystemClock()
        relay = Relay(
            store,
            StreamPublisher(store, FilePublisher(tmp_path / "log")),
            clock=clock,
            progress=Progress(clock),
            patience=timedelta(0),
            batch=3,
        )
        while await store.unpublished(timedelta(0), 1):
            await relay.turn()
        _check_log(tmp_path / "log", stored)
        published = [line.split()[2] for line in (tmp_path / "log").read_text().splitlines()]
        assert len(published) > len(set(published)), "what was published and not marked goes out again"
        assert all(s.published == s.version for s in (await store.load_many(list(stored))).values())


class TestLeases:
    class WrongClock(SystemClock):
        """A machine whose wall clock is off."""

        def __init__(self, off: timedelta) -> None:
            self._off = off

        def now(self) -> datetime:
            return datetime.now(UTC) + self._off

    async def test_clocks_an_hour_apart_agree_on_who_holds_a_lease(self, streams: Collection) -> None:
        ahead = MongoEventStore(streams, clock=self.WrongClock(timedelta(hours=1)))
        behind = MongoEventStore(streams, clock=self.WrongClock(timedelta(hours=-1)))
        due = StreamIndex(due_at=datetime.now(UTC) - LONG, lane="low")
        for name, lease in (("taken", Lease("ahead", LONG)), ("free", None)):
            assert isinstance(await ahead.append(append_to(Stream.absent(name), index=due, lease=lease)), Appended)
        now = datetime.now(UTC)
        assert [s.stream_id for s in await behind.lease_due([("low", 5)], "behind", LONG, now)] == ["free"]
        assert await ahead.lease_due([("low", 5)], "ahead", LONG, now) == []

    async def test_a_lease_keeps_others_out_for_the_margin_after_its_end(self, streams: Collection) -> None:
        """The margin is so long, and the ends are so far from it, that no pause of this process changes the outcome."""
        assert MongoEventStore(streams)._margin == LEASE_MARGIN
        store = MongoEventStore(streams, lease_margin=timedelta(minutes=10))
        due = StreamIndex(due_at=datetime.now(UTC) - LONG, lane="low")
        lease = Lease("dead", LONG)
        assert isinstance(await store.append(append_to(Stream.absent("a"), index=due, lease=lease)), Appended)
        for minutes, leased in ((5, []), (15, ["a"])):
            ended = [{"$set": {"leasedUntil": {"$multiply": [{"$toLong": "$$NOW"}, 1000]}}}]
            await streams.update_one({"_id": "a"}, ended)
            await streams.update_one({"_id": "a"}, {"$inc": {"leasedUntil": -minutes * 60_000_000}})
            found = await store.lease_due([("low", 5)], "heir", LONG, datetime.now(UTC))
            assert [each.stream_id for each in found] == leased, minutes


class TestDocument:
    async def test_every_query_has_its_index(self, streams: Collection) -> None:
        store = MongoEventStore(streams)
        await store.prepare()
        queries: list[tuple[dict[str, object], str]] = [
            ({"lane": "low", "dueAt": {"$lte": 5}, "leasedUntil": {"$not": {"$gte": 5}}}, "due"),
            ({"lane": {"$in": ["low", "high"]}, "dueAt": {"$lte": 5}, "leasedUntil": {"$not": {"$gte": 5}}}, "due"),
            ({"pendingSince": {"$lte": 5}}, "unpublished"),
            ({"lookup": "x"}, "lookup"),
        ]
        for query, index in queries:
            plan = (await streams.find(query).explain())["queryPlanner"]["winningPlan"]
            assert f"'indexName': '{index}'" in str(plan), plan

    async def test_the_document_is_as_written_down(self, streams: Collection) -> None:
        store = MongoEventStore(streams)
        at = datetime(2026, 11, 24, 10, 25, 0, 123456, tzinfo=UTC)
        index = StreamIndex(due_at=at, lane="high", lookup=("p1",), owner_user="u1")
        append = append_to(Stream.absent("a"), index=index, lease=Lease("me", LONG))
        result = await store.append(append)
        assert isinstance(result, Appended)
        document = await streams.find_one({"_id": "a"})
        assert document is not None
        since, until = document.pop("pendingSince"), document.pop("leasedUntil")
        assert document == {
            "_id": "a",
            "version": 1,
            "events": [append.events[0].to_bytes().decode()],
            "published": 0,
            "pending": True,
            "dueAt": 1_795_515_900_123_456,
            "lane": "high",
            "lookup": ["p1"],
            "userId": "u1",
            "owner": "me",
        }
        assert until - since == 30_000_000
        assert abs(since / 1e6 - datetime.now(UTC).timestamp()) < 5
        assert isinstance(await store.append(append_to(result.stream)), Appended)
        await store.mark_published([("a", 2)])
        document = await streams.find_one({"_id": "a"})
        assert document is not None
        assert sorted(document) == ["_id", "events", "published", "version"]

    async def test_a_stream_that_is_full_refuses_for_good_and_its_neighbour_does_not(
        self, streams: Collection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = MongoEventStore(streams)
        stream = Stream.absent("big")
        for _ in range(2):
            big = [Draft(EmailCancelled(reason="x" * 7_000_000))]
            events = stamp(stream, big, now=datetime.now(UTC), new_id=uuid7, source="test", correlation="c")
            result = await store.append(Append(stream, events, StreamIndex()))
            assert isinstance(result, Appended)
            stream = result.stream
        events = stamp(stream, big, now=datetime.now(UTC), new_id=uuid7, source="test", correlation="c")
        full, fine = await store.append_many([Append(stream, events, StreamIndex()), append_to(Stream.absent("b"))])
        assert isinstance(full, PermanentError)
        assert full.reason == "streamTooLarge"
        assert isinstance(fine, Appended)
        monkeypatch.setattr(mongo_append, "MAX_APPEND_BYTES", 100)
        assert isinstance(await store.append(append_to(Stream.absent("c"))), PermanentError)


def _check_against_store(outcomes: list[tuple[Append, AppendResult]], stored: dict[str, list[str]]) -> Counter[type]:
    """Everything confirmed stands once; what was refused does not stand; the unknown may."""
    everything = Counter(event for ids in stored.values() for event in ids)
    assert set(everything.values()) <= {1}
    for append, result in outcomes:
        ids = [event.id for event in append.events]
        if isinstance(result, Appended):
            first = append.stream.version
            assert stored[append.stream.stream_id][first : first + len(ids)] == ids
        elif not isinstance(result, AppendOutcomeUnknown):
            assert not any(event in everything for event in ids)
    known = {event.id for append, _ in outcomes for event in append.events}
    assert set(everything) <= known
    return Counter(type(result) for _, result in outcomes)


def _check_log(path: Path, stored: dict[str, list[str]]) -> None:
    """Every stored event is on the log, each first seen right after the one before it."""
    seen: dict[str, int] = Counter()
    for line in path.read_text().splitlines():
        name, version, event = line.split()
        assert int(version) <= seen[name] + 1
        assert stored[name][int(version) - 1] == event
        seen[name] = max(seen[name], int(version))
    assert dict(seen) == {name: len(ids) for name, ids in stored.items()}


async def _start_writer(
    url: str, streams: Collection, name: str, folder: Path, dies: str
) -> asyncio.subprocess.Process:
    arguments = ("-m", "tests.integration.stream_writer", url, streams.database.name, name, str(folder), dies)
    return await asyncio.create_subprocess_exec(sys.executable, *arguments)


def _confirmed(folder: Path) -> set[str]:
    """Event ids whose append the writers saw confirmed."""
    return {line for path in folder.glob("*.confirmed") for line in path.read_text().split()}


async def _all_appended(paths: list[Path]) -> bool:
    return all(path.exists() and path.stat().st_size for path in paths)


async def _until(condition: Callable[[], Awaitable[object]], seconds: float = HANG) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  what it waits for is in another process
            await asyncio.sleep(0.02)


async def _reaches(store: MongoEventStore) -> bool:
    try:
        await store.load("any")
    except Unavailable:
        return False
    return True


async def _primary_again(client: Client) -> None:
    async def primary() -> bool:
        return bool((await client.admin.command("hello", read_preference=None))["isWritablePrimary"])

    await _until(primary)
