"""What every parking lot promises: one suite, run on memory and on a real MongoDB."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from services.kit.crypto import KeyRing
from services.kit.errors import KeyUnknown, PermanentError
from services.kit.kafka.records import Park, ParkKind, Record
from services.kit.mongo import connect
from services.kit.parking import ParkedFilter, ParkedRecord, ParkingLot, presentable_value
from services.kit.parking_mongo import MongoParkingLot
from services.kit.testing.parking import MemoryParkingLot

NOW = datetime(2026, 11, 24, 10, 25, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ANY = ParkedFilter()


@pytest.fixture(params=["memory", "mongo"])
async def lot(request: pytest.FixtureRequest) -> AsyncIterator[ParkingLot]:
    if request.param == "memory":
        yield MemoryParkingLot()
        return
    client = connect(request.getfixturevalue("mongo_url"))
    name = f"test_parking_{uuid4().hex[:8]}"
    try:
        mongo = MongoParkingLot(client[name], KeyRing.from_secret("a secret for tests, long enough to pass"))
        await mongo.ensure_indexes()
        yield mongo
    finally:
        await client.drop_database(name)
        await client.close()


def parked(
    offset: int, kind: ParkKind = "poison", *, consumer: str = "intake", at: datetime = NOW, value: bytes | None = b"v"
) -> ParkedRecord:
    headers = (("how", b"sns"), ("odd", None), ("how", b"\xff\x00"))
    record = Record("email.notifications", 2, offset, 17, b"\x00key\xff", value, headers)
    return ParkedRecord.of(consumer, record, Park("notJson", kind, "line 1", error=ValueError("boom")), at)


async def test_everything_comes_back_unchanged(lot: ParkingLot) -> None:
    for offset, value in enumerate([b"", None, bytes(range(256)), b"x" * 1_000_000]):
        one = parked(offset, value=value)
        await lot.park([one])
        assert await lot.show(one.id) == one
        assert one.record.value == value
        assert await lot.find(one.id) == replace(one, raw=None, stack="")
    assert await lot.show("intake|nowhere|0|0") is None
    assert await lot.find("intake|nowhere|0|0") is None


async def test_parking_twice_is_one_record(lot: ParkingLot) -> None:
    await lot.park([parked(1), parked(2)])
    await lot.park([replace(parked(1), reason="another", at=NOW + SECOND), parked(3)])
    page = await lot.list(ANY)
    assert sorted(one.offset for one in page.records) == [1, 2, 3]
    first = await lot.show(parked(1).id)
    assert first == parked(1)


async def test_the_same_record_of_another_consumer_is_another_one(lot: ParkingLot) -> None:
    await lot.park([parked(1), parked(1, consumer="settler")])
    assert await lot.counts() == {("intake", "poison"): 1, ("settler", "poison"): 1}


async def test_a_retried_record_that_fails_again_is_open_again_and_a_discarded_one_stays(lot: ParkingLot) -> None:
    await lot.park([parked(1), parked(2)])
    assert await lot.mark_retried(parked(1).id, at=NOW + SECOND, by="anna")
    assert await lot.discard(parked(2).id, reason="a test", by="anna", at=NOW + SECOND)
    await lot.park([replace(parked(1), reason="worse"), replace(parked(2), reason="worse")])
    first, second = await lot.show(parked(1).id), await lot.show(parked(2).id)
    assert first is not None
    assert second is not None
    assert (first.status, first.reason, first.closed_at) == ("parked", "worse", None)
    assert (second.status, second.reason, second.closed_reason) == ("discarded", "notJson", "a test")


async def test_closing_once_only(lot: ParkingLot) -> None:
    await lot.park([parked(1)])
    assert await lot.discard(parked(1).id, reason="spam", by="anna", at=NOW + SECOND)
    assert not await lot.discard(parked(1).id, reason="again", by="bob", at=NOW)
    assert not await lot.mark_retried(parked(1).id, at=NOW)
    assert not await lot.mark_failed(parked(1).id, at=NOW, error="x", next_try_at=None)
    assert not await lot.mark_retried("intake|nowhere|0|0", at=NOW)
    found = await lot.show(parked(1).id)
    assert found is not None
    assert (found.closed_by, found.closed_reason, found.closed_at) == ("anna", "spam", NOW + SECOND)
    assert await lot.counts() == {}
    assert (await lot.list(ANY)).records == ()
    kept = (await lot.list(ParkedFilter(status="discarded"))).records
    assert [one.offset for one in kept] == [1]


async def test_a_failed_retry_is_counted_and_may_change_the_reason(lot: ParkingLot) -> None:
    await lot.park([parked(1, "uncorrelated")])
    again = NOW + 5 * SECOND
    assert await lot.mark_failed(parked(1).id, at=NOW, error="still", next_try_at=again)
    assert await lot.mark_failed(
        parked(1).id, at=NOW, error="broken", next_try_at=None, reason="invalid", kind="poison"
    )
    found = await lot.show(parked(1).id)
    assert found is not None
    assert (found.tries, found.last_error, found.reason, found.kind) == (2, "broken", "invalid", "poison")
    assert found.next_try_at is None


async def test_what_is_to_be_left_out_is_told_by_place(lot: ParkingLot) -> None:
    await lot.park([parked(offset) for offset in range(1, 8)])
    await lot.park([replace(parked(9), kept=True), parked(3, consumer="other")])
    await lot.discard(parked(2).id, reason="bad", by="ann", at=NOW)
    await lot.mark_retried(parked(4).id, at=NOW)
    await lot.mark_failed(parked(5).id, at=NOW, error="e", next_try_at=None, kept=True)
    await lot.mark_failed(parked(6).id, at=NOW, error="e", next_try_at=None)
    topic = "email.notifications"
    places = await lot.left_out("intake", topic, {2: (2, 9), 3: (0, 99)})
    assert places == {(2, offset): "notJson" for offset in (2, 3, 6, 7)}
    assert await lot.left_out("intake", topic, {2: (3, 3)}) == {(2, 3): "notJson"}
    assert await lot.left_out("intake", topic, {1: (0, 99)}) == {}
    assert await lot.left_out("intake", "another", {2: (0, 99)}) == {}
    assert await lot.left_out("intake", topic, {}) == {}
    await lot.park([parked(4)])  # failed again
    assert (2, 4) in await lot.left_out("intake", topic, {2: (0, 99)})


async def test_whether_anything_lies_behind_an_offset(lot: ParkingLot) -> None:
    topic = "email.notifications"
    await lot.park([parked(4)])
    await lot.mark_retried(parked(4).id, at=NOW)
    assert await lot.any_from("intake", topic, {1: 0, 2: 4})
    assert not await lot.any_from("intake", topic, {1: 0, 2: 5})
    assert not await lot.any_from("intake", topic, {3: 0})
    assert not await lot.any_from("intake", "another", {2: 0})
    assert not await lot.any_from("settler", topic, {2: 0})
    assert not await lot.any_from("intake", topic, {})


async def test_what_an_earlier_build_parked_is_read(mongo_url: str) -> None:
    """A document as it was written before there was `kept`."""
    client = connect(mongo_url)
    name = f"test_parking_{uuid4().hex[:8]}"
    try:
        mongo = MongoParkingLot(client[name], KeyRing.from_secret("a secret for tests, long enough to pass"))
        await mongo.park([parked(1)])
        await client[name]["parked"].update_one({}, {"$unset": {"kept": ""}})
        assert await mongo.show(parked(1).id) == parked(1)
        assert await mongo.left_out("intake", "email.notifications", {2: (1, 1)}) == {(2, 1): "notJson"}
    finally:
        await client.drop_database(name)
        await client.close()


async def test_lists_by_filter_latest_first_without_values(lot: ParkingLot) -> None:
    await lot.park([parked(n, at=NOW + n * SECOND) for n in range(3)])
    await lot.park([parked(9, "bug", consumer="settler", at=NOW - SECOND)])
    page = await lot.list(ANY)
    assert [one.offset for one in page.records] == [2, 1, 0, 9]
    assert all(one.raw is None and one.stack == "" and one.size == 1 for one in page.records)
    for where, offsets in (
        (ParkedFilter(consumer="settler"), [9]),
        (ParkedFilter(kind="bug"), [9]),
        (ParkedFilter(topic="elsewhere"), []),
        (ParkedFilter(consumer="intake", reason="notJson"), [2, 1, 0]),
        (ParkedFilter(status=None), [2, 1, 0, 9]),
    ):
        assert [one.offset for one in (await lot.list(where)).records] == offsets


async def test_pages_meet_without_gap_or_overlap(lot: ParkingLot) -> None:
    await lot.park([parked(n, at=NOW + (n // 3) * SECOND) for n in range(10)])  # several with one time
    seen: list[int] = []
    cursor: str | None = None
    for _ in range(4):
        page = await lot.list(ANY, limit=3, cursor=cursor)
        seen += [one.offset for one in page.records]
        cursor = page.cursor
    assert cursor is None
    assert sorted(seen) == list(range(10))
    with pytest.raises(PermanentError, match="badCursor"):
        await lot.list(ANY, cursor="%%%")


async def test_due_records_are_claimed_once(lot: ParkingLot) -> None:
    await lot.park([parked(n, "uncorrelated", at=NOW + n * SECOND) for n in range(4)])
    await lot.park([parked(5, "poison"), parked(6, "uncorrelated", consumer="settler")])

    async def claim(now: datetime, since: datetime = NOW, limit: int = 10) -> list[int]:
        due = await lot.claim_due(
            "uncorrelated", "intake", now=now, since=since, lease_until=now + 60 * SECOND, limit=limit
        )
        assert all(one.raw == b"v" for one in due)
        return [one.offset for one in due]

    assert await claim(NOW + SECOND, limit=1) == [0]
    assert await claim(NOW + SECOND) == [1]
    assert await claim(NOW + SECOND) == []
    assert await claim(NOW + 9 * SECOND, since=NOW + 3 * SECOND) == [3]
    assert sorted(await claim(NOW + 61 * SECOND)) == [0, 1, 2]
    assert await claim(NOW + 70 * SECOND) == [3]


async def test_records_that_cannot_be_opened_hold_up_no_other(lot: ParkingLot) -> None:
    """One was sealed by a process that has a newer key, one was changed in the database."""
    if not isinstance(lot, MongoParkingLot):
        pytest.skip("memory seals nothing")
    newer = MongoParkingLot(lot._collection.database, KeyRing.from_secret("the next secret, long enough to pass it"))
    await newer.park([parked(0, "uncorrelated")])
    await lot.park([parked(1, "uncorrelated"), parked(2, "uncorrelated")])
    await lot._collection.update_one({"_id": parked(1).id}, {"$set": {"raw": b"cut short"}})

    async def claim(which: ParkingLot, now: datetime) -> list[int]:
        due = await which.claim_due(
            "uncorrelated", "intake", now=now, since=NOW, lease_until=now + 60 * SECOND, limit=10
        )
        return [one.offset for one in due]

    assert await claim(lot, NOW + SECOND) == [2]
    with pytest.raises(KeyUnknown):
        await lot.show(parked(0).id)
    with pytest.raises(PermanentError, match="sealedBroken"):
        await lot.show(parked(1).id)
    assert (await lot.counts())["intake", "uncorrelated"] == 3
    assert await claim(newer, NOW + 70 * SECOND) == [0]
    for offset in (0, 1):
        assert await lot.discard(parked(offset).id, reason="its key is lost", by="anna", at=NOW)
        found = await lot.find(parked(offset).id)
        assert found is not None
        assert (found.status, found.closed_reason) == ("discarded", "its key is lost")


async def test_values_are_not_readable_in_the_database(lot: ParkingLot) -> None:
    if not isinstance(lot, MongoParkingLot):
        pytest.skip("memory forgets anyway")
    await lot.park([parked(1, value=b"the secret text")])
    document = await lot._collection.find_one()
    assert document is not None
    assert b"the secret text" not in document["raw"]
    assert b"boom" not in document["stack"]


@pytest.mark.parametrize(
    ("topic", "value", "shown"),
    [
        ("email.notifications", b"not json", True),
        ("email.commands.high", b'{"data": {"category": "marketing"}}', True),
        ("email.commands.high", b'{"data": {"category": "auth"}}', False),
        ("email.commands.high", b'{"data": {"category": "a\\u0075th"}}', False),
        ("email.commands.high", b'{"data": {"category": ["auth"]}}', False),
        ("email.commands.high", b'{"data": {"category": "auth", "html": "broken', False),
        ("email.commands.high", b"[1]", False),
    ],
)
def test_what_may_hold_a_login_code_is_not_shown(topic: str, value: bytes, shown: bool) -> None:
    record = Record(topic, 0, 0, 0, None, value)
    one = ParkedRecord.of("intake", record, Park("notJson", "poison"), NOW)
    assert presentable_value(one) == (value if shown else None)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b'{"category": "marketing"}', True),
        (b'{"category": "auth"}', False),
        (b'{"category": "auth", "data": {"category": "marketing"}}', False),
        (b'{"data": {"category": "marketing"}}', False),
    ],
)
def test_in_binary_mode_the_value_is_the_data(value: bytes, shown: bool) -> None:
    record = Record("email.commands.high", 0, 0, 0, None, value, (("ce_type", b"email.send"),))
    one = ParkedRecord.of("intake", record, Park("invalid", "poison"), NOW)
    assert presentable_value(one) == (value if shown else None)
