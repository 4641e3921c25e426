"""Comparing two generations: with few questions, and with an end while documents change all the time."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from contracts.email import events as mail
from services.events.adapters.mongo_comparison import MongoComparison
from services.events.adapters.mongo_read_models import MongoReadModels
from services.events.ports import LeaseView, Row, Verdict, Write
from services.events.projections.known import KnownEvent, tally
from services.events.projections.projection import EMAIL_LOG
from services.kit.errors import PermanentError, TransientError
from services.kit.mongo import Database, connect
from services.kit.testing import FakeClock
from tests.unit.events_service.events import ANN, Log, fact, requested

OLD, NEW = 1, 2
PARTITION = 3  # of every event that a `Log` makes


async def _nothing() -> None: ...


@dataclass
class Checkpoint:
    """Where a generation stands in the one partition; `look` is awaited before it is told."""

    at: int | None = 1_000
    looks: int = 0
    look: Callable[[], Awaitable[None]] = field(default=_nothing)

    async def view(self) -> list[LeaseView]:
        self.looks += 1
        await self.look()
        return [] if self.at is None else [LeaseView(PARTITION, "owner", 1, self.at, 0, held=True)]


class Generations:
    """Two generations whose documents a test writes."""

    def __init__(self, database: Database) -> None:
        self.clock = FakeClock()
        self.checkpoints = {OLD: Checkpoint(), NEW: Checkpoint()}
        self._database = database
        self._models = {each: MongoReadModels(database, EMAIL_LOG, each) for each in (OLD, NEW)}
        self._written: dict[tuple[int, str], int] = {}

    async def put(
        self, generation: int, name: str, events: Sequence[KnownEvent], rows: Sequence[KnownEvent] = (), **body: Any
    ) -> None:
        """Write a document, whatever was there; `body` stands over what the fold says."""
        models, overflow = self._models[generation], tally(rows, EMAIL_LOG.engagement)
        if rows:
            assert set(await models.write_rows(name, [Row(event) for event in rows])) == {"done"}
        folded = EMAIL_LOG.fold(events, overflow)
        rev = self._written.get((generation, name), 0)
        whole = None if folded is None else {**folded, **body}
        assert await models.write([Write(name, rev, sorted(events), overflow, bool(rows), whole)]) == ["done"]
        self._written[generation, name] = rev + 1

    async def compare(self, *, same_version: bool = True) -> Verdict:
        leases: Any = self.checkpoints.__getitem__
        comparison = MongoComparison(self._database, EMAIL_LOG.name, leases, self.clock)
        return await comparison.compare(OLD, NEW, same_version=same_version)

    @property
    def looks(self) -> int:
        """How often checkpoints were asked for, which is done before documents are looked at again."""
        return sum(each.looks for each in self.checkpoints.values())


@pytest.fixture
async def generations(mongo_url: str) -> AsyncIterator[Generations]:
    client = connect(mongo_url)
    name = f"test_comparison_{uuid.uuid4().hex[:8]}"
    try:
        yield Generations(client[name])
    finally:
        await client.drop_database(name)
        await client.close()


def story(name: str, opens: int = 2) -> list[KnownEvent]:
    log = Log(name)
    events = [log.event(requested(ANN).model_copy(update={"message_id": name}))]
    return [*events, *(log.event(fact(mail.EmailOpened)) for _ in range(opens))]


async def test_a_new_version_is_compared_in_one_walk(generations: Generations) -> None:
    for number in range(250):
        events = story(f"m{number:03d}")
        await generations.put(OLD, f"m{number:03d}", events)
        await generations.put(NEW, f"m{number:03d}", events, subject="in the new shape")
    assert await generations.compare(same_version=False) == Verdict(250, 0, 250, ())
    assert generations.looks == 0, "no document was asked for by itself"
    verdict = await generations.compare(same_version=True)
    assert (verdict.documents, verdict.differing, len(verdict.examples)) == (250, 250, 20)
    await generations.put(OLD, "m250", story("m250"))
    await generations.put(NEW, "m250", story("m250")[:2], subject="in the new shape")
    assert await generations.compare(same_version=False) == Verdict(251, 1, 250, ("m250",))


async def test_documents_with_rows_are_compared_in_the_walk_and_by_their_rows(generations: Generations) -> None:
    for number in range(3):
        name = f"m{number}"
        *inside, first, second = story(name, opens=5)
        await generations.put(OLD, name, inside, [first, second])
        await generations.put(NEW, name, inside, [first, second])
    assert await generations.compare() == Verdict(3, 0, 0, ())
    assert generations.looks == 0
    *inside, first, second = story("m3", opens=5)
    await generations.put(OLD, "m3", inside, [first, second])
    await generations.put(NEW, "m3", inside, [first])
    await generations.put(NEW, "m3", [*inside, second], [])
    assert await generations.compare() == Verdict(4, 1, 0, ("m3",)), "outside on one side, inside on the other"


async def test_what_lies_before_both_checkpoints_may_not_be_missing(generations: Generations) -> None:
    for number in range(30):
        await generations.put(OLD, f"m{number:02d}", story(f"m{number:02d}"))
        if number not in (7, 9):
            await generations.put(NEW, f"m{number:02d}", story(f"m{number:02d}")[: 2 if number == 11 else None])
    assert await generations.compare() == Verdict(30, 3, 0, ("m07", "m09", "m11"))
    assert generations.clock.monotonic() < 1


async def test_a_document_that_never_stands_still_is_no_difference(generations: Generations) -> None:
    events, read = story("hot", opens=300), {OLD: 1, NEW: 1}

    async def advance(generation: int, at: int) -> None:
        read[generation] = at
        generations.checkpoints[generation].at = at
        await generations.put(generation, "hot", events[:at])

    async def live() -> None:
        await advance(OLD, read[OLD] + 2)

    async def behind() -> None:
        await advance(NEW, read[OLD] - 1)

    generations.checkpoints[OLD].look, generations.checkpoints[NEW].look = live, behind
    await live()
    await behind()
    await generations.put(OLD, "still", story("still"))
    await generations.put(NEW, "still", story("still"))
    assert await generations.compare() == Verdict(2, 0, 0, (), moving=1)


async def test_what_one_generation_has_not_read_yet_is_waited_for(generations: Generations) -> None:
    events = story("m1")
    await generations.put(OLD, "m1", events)
    await generations.put(NEW, "m1", events[:1])
    new = generations.checkpoints[NEW]
    new.at = 1

    async def read_on() -> None:
        if new.looks == 5:
            await generations.put(NEW, "m1", events)
            new.at = 1_000

    new.look = read_on
    assert await generations.compare() == Verdict(1, 0, 0, ())


async def test_a_generation_that_stands_still_is_told(generations: Generations) -> None:
    await generations.put(OLD, "m1", story("m1"))
    generations.checkpoints[NEW].at = 1
    with pytest.raises(TransientError, match=r"generation 2 of email_log stands still at 1 of partition 3.* at 1000"):
        await generations.compare()
    generations.checkpoints[NEW].at = None
    with pytest.raises(PermanentError, match="abandoned"):
        await generations.compare()
