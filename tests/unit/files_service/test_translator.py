"""The translator as a batch handler: an offset is let go only when the facts of its notification are acknowledged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from contracts.envelope import Envelope
from services.files.adapters.s3_notifications import S3Notifications
from services.files.entrypoints.translator import Translator
from services.kit.kafka.records import DONE, Outcome, Park, Record, Retry
from services.kit.testing.publisher import MemoryPublisher
from tests.unit.files_service.s3_examples import BUCKET, FILE, record, scan


class Counts:
    """Counts facts and what says nothing."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.nothing = 0

    def translated(self, fact: Envelope) -> None:
        self.made.append(fact.type)

    def ignored(self) -> None:
        self.nothing += 1


class World:
    def __init__(self) -> None:
        self.publisher, self.counts = MemoryPublisher(), Counts()
        self.translate = Translator(S3Notifications(BUCKET), self.publisher, self.counts)

    async def hear(self, *values: Any) -> list[Outcome]:
        records = [
            Record("files.notifications", 0, n, 0, None, json.dumps(each).encode() if isinstance(each, dict) else each)
            for n, each in enumerate(values)
        ]
        return list(await self.translate(records))


async def test_facts_go_to_the_files_log_under_their_file() -> None:
    world = World()
    assert await world.hear(record(), scan()) == [DONE, DONE]
    assert {(item.topic, item.key) for item in world.publisher.published} == {("files.events", FILE.encode())}
    assert world.counts.made == ["file.objectCreated", "file.scanned"]


@pytest.mark.parametrize("trouble", ["away", "losing_answers"])
async def test_facts_that_are_not_acknowledged_come_again(trouble: str) -> None:
    world = World()
    setattr(world.publisher, trouble, True)
    outcomes = await world.hear(record(), record(key="not/ours"), record("ObjectRemoved:Delete"))
    assert [type(each) for each in outcomes] == [Retry, Park, Retry]
    assert world.counts.made == []
    setattr(world.publisher, trouble, False)
    assert await world.hear(record(), record("ObjectRemoved:Delete")) == [DONE, DONE]
    ids = {json.loads(item.value)["id"] for item in world.publisher.published}
    assert len(ids) == 2, "the same facts under the same ids, however often"


async def test_each_bad_one_is_parked_for_its_reason_and_its_neighbours_translated() -> None:
    world = World()
    outcomes = await world.hear(
        None, b"nonsense", b"[]", record(), record(key="not/ours"), record(bucket="other"), record(time="soon"), {}
    )
    assert [(each.kind, each.reason) if isinstance(each, Park) else each for each in outcomes] == [
        ("poison", "nullValue"),
        ("poison", "notJson"),
        ("poison", "notAnObject"),
        DONE,
        ("orphan", "orphan"),
        ("poison", "wrongBucket"),
        ("poison", "badTime"),
        ("poison", "malformed"),
    ]
    assert len(world.publisher.published) == 1


async def test_what_says_nothing_is_let_go() -> None:
    world = World()
    assert await world.hear(record("ObjectAcl:Put")) == [DONE]
    assert (world.publisher.published, world.counts.nothing) == ([], 1)
