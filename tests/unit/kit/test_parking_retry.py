"""Parked records handed to their handlers again."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest

from contracts.envelope import CommandEnvelope
from services.kit.errors import KeyUnknown, PermanentError, TransientError, Unavailable
from services.kit.kafka.codec import decode_command
from services.kit.kafka.records import DONE, Outcome, Park, ParkKind, Record, Retry
from services.kit.parked_view import detail_of
from services.kit.parking import ParkedRecord
from services.kit.parking_retry import FIRST_RETRY, LAST_RETRY, ParkedRetries
from services.kit.testing.clock import FakeClock
from services.kit.testing.parking import MemoryParkingLot


class Bench:
    """Retries around a handler whose answers are set by offset."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.lot = MemoryParkingLot()
        self.answers: dict[int, Outcome | Exception] = {}
        self.seen: list[list[Record]] = []
        self.handled = asyncio.Event()
        self.retries = ParkedRetries(self.lot, {"translator": self.handle}, self.clock)

    async def handle(self, batch: Sequence[Record]) -> Sequence[Outcome]:
        self.seen.append(list(batch))
        self.handled.set()
        answers = [self.answers.get(record.offset, DONE) for record in batch]
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [answer for answer in answers if not isinstance(answer, Exception)]

    async def park(self, offset: int, kind: ParkKind = "uncorrelated") -> str:
        record = Record("email.notifications", 1, offset, 5, b"k", b"v", (("h", None),))
        one = ParkedRecord.of("translator", record, Park("noMessage", kind), self.clock.now())
        await self.lot.park([one])
        return one.id

    async def shown(self, parked_id: str) -> ParkedRecord:
        one = await self.lot.show(parked_id)
        assert one is not None
        return one


async def test_an_operator_retries_one_record_in_place() -> None:
    bench = Bench()
    parked_id = await bench.park(7, "bug")
    assert await bench.retries.retry(parked_id, by="anna") == DONE
    assert bench.seen == [[Record("email.notifications", 1, 7, 5, b"k", b"v", (("h", None),))]]
    one = await bench.shown(parked_id)
    assert (one.status, one.closed_by, one.tries) == ("retried", "anna", 1)


async def test_a_command_in_binary_mode_is_shown_and_retried_with_its_headers() -> None:
    bench = Bench()
    taken: list[CommandEnvelope] = []

    async def handle(batch: Sequence[Record]) -> Sequence[Outcome]:
        taken.extend(decode_command(record) for record in batch)
        return [DONE] * len(batch)

    message_id = "0198c0de-0000-7000-8000-000000000001"
    attributes = {"specversion": "1.0", "id": "c1", "source": "/crm", "type": "email.cancel", "subject": message_id}
    headers = tuple((f"ce_{name}", value.encode()) for name, value in attributes.items())
    value = f'{{"messageId": "{message_id}"}}'.encode()
    record = Record("email.commands.urgent", 0, 7, 5, message_id.encode(), value, headers)
    parked = ParkedRecord.of("intake", record, Park("handlerFailed", "bug"), bench.clock.now())
    await bench.lot.park([parked])
    shown = detail_of(await bench.shown(parked.id))
    assert {each.name: each.value and each.value.text for each in shown.headers} == {
        f"ce_{name}": value for name, value in attributes.items()
    }
    retries = ParkedRetries(bench.lot, {"intake": handle}, bench.clock)
    assert await retries.retry(parked.id) == DONE
    assert [each.id for each in taken] == ["c1"]


@pytest.mark.parametrize(
    ("answer", "reason", "error"),
    [
        (Retry(TransientError("away")), "noMessage", "TransientError: away"),
        (RuntimeError("bug"), "noMessage", "RuntimeError: bug"),
        (Park("invalid", "poison", "to[0]"), "invalid", "invalid: to[0]"),
    ],
)
async def test_what_fails_again_stays_parked(answer: Outcome | Exception, reason: str, error: str) -> None:
    bench = Bench()
    parked_id = await bench.park(7, "bug")
    bench.answers[7] = answer
    assert await bench.retries.retry(parked_id) != DONE
    one = await bench.shown(parked_id)
    assert (one.status, one.reason, one.last_error, one.tries) == ("parked", reason, error, 1)


async def test_a_record_that_cannot_be_opened_now_does_not_end_the_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    await bench.park(7)
    claim, failures = bench.lot.claim_due, iter([KeyUnknown("0" * 16), Unavailable("MongoDB", "away")])

    async def claim_due(*args: Any, **named: Any) -> Sequence[ParkedRecord]:
        for failure in failures:
            raise failure
        return await claim(*args, **named)

    monkeypatch.setattr(bench.lot, "claim_due", claim_due)
    stopping = asyncio.Event()
    async with asyncio.timeout(60):
        loop = asyncio.create_task(bench.retries.auto_retry("uncorrelated", "translator", stopping, every=0.001))
        await asyncio.wait([loop, handled := asyncio.create_task(bench.handled.wait())], return_when="FIRST_COMPLETED")
        assert handled.done(), loop.exception()
        stopping.set()
        await loop


async def test_what_is_not_open_or_not_ours_is_refused() -> None:
    bench = Bench()
    parked_id = await bench.park(7)
    await bench.retries.retry(parked_id)
    for bad in (parked_id, "translator|t|0|99"):
        with pytest.raises(PermanentError, match="notParked"):
            await bench.retries.retry(bad)
    other = ParkedRecord.of("projector", Record("t", 0, 0, 0, None, None), Park("x", "bug"), bench.clock.now())
    await bench.lot.park([other])
    with pytest.raises(PermanentError, match="noHandler"):
        await bench.retries.retry(other.id)
    assert len(bench.seen) == 1


@pytest.mark.parametrize(("kind", "comes_by_itself"), [("uncorrelated", True), ("orphan", False), ("poison", False)])
def test_only_what_is_early_is_due_for_a_retry(kind: ParkKind, comes_by_itself: bool) -> None:
    parked = ParkedRecord.of("t", Record("t", 0, 0, 0, None, None), Park("x", kind), FakeClock().now())
    assert (parked.next_try_at is not None) is comes_by_itself


async def test_early_records_are_retried_with_growing_pauses() -> None:
    bench = Bench()
    parked_id = await bench.park(7)
    bench.answers[7] = Park("noMessage", "uncorrelated")
    pauses: list[timedelta] = []
    for _ in range(14):
        assert await bench.retries.retry_due("uncorrelated", "translator") == 1
        assert await bench.retries.retry_due("uncorrelated", "translator") == 0, "not before its time"
        pause = ((await bench.shown(parked_id)).next_try_at or bench.clock.now()) - bench.clock.now()
        pauses.append(pause)
        bench.clock.move(pause.total_seconds())
    assert pauses[0] == FIRST_RETRY
    assert pauses == sorted(pauses)
    assert pauses[-1] == LAST_RETRY
    bench.answers.clear()
    assert await bench.retries.retry_due("uncorrelated", "translator") == 1
    assert (await bench.shown(parked_id)).status == "retried"


async def test_after_a_day_it_waits_for_an_operator_who_may_still_retry() -> None:
    bench = Bench()
    parked_id = await bench.park(7)
    bench.clock.move(24 * 3600 + 1)
    assert await bench.retries.retry_due("uncorrelated", "translator") == 0
    assert (await bench.shown(parked_id)).status == "parked"
    assert await bench.retries.retry(parked_id) == DONE


async def test_an_operators_try_does_not_end_the_automatic_ones() -> None:
    bench = Bench()
    parked_id = await bench.park(7)
    bench.answers[7] = Park("noMessage", "uncorrelated")
    await bench.retries.retry(parked_id)
    bench.clock.move(60)
    assert await bench.retries.retry_due("uncorrelated", "translator") == 1


async def test_what_turns_out_to_be_something_else_is_not_retried_any_more() -> None:
    bench = Bench()
    await bench.park(7)
    bench.answers[7] = Park("invalid", "poison")
    assert await bench.retries.retry_due("uncorrelated", "translator") == 1
    bench.clock.move(3600)
    assert await bench.retries.retry_due("uncorrelated", "translator") == 0
    assert await bench.lot.counts() == {("translator", "poison"): 1}


async def test_one_that_makes_the_handler_fail_does_not_hold_the_others() -> None:
    bench = Bench()
    ids = [await bench.park(offset) for offset in range(4)]
    bench.answers[2] = RuntimeError("bug")
    assert await bench.retries.retry_due("uncorrelated", "translator") == 4
    assert [(await bench.shown(one)).status for one in ids] == ["retried", "retried", "parked", "retried"]


async def test_the_worker_survives_an_unreachable_lot_and_stops_when_told() -> None:
    bench = Bench()
    parked_id = await bench.park(7)
    bench.lot.away = True
    stopping = asyncio.Event()
    worker = asyncio.create_task(bench.retries.auto_retry("uncorrelated", "translator", stopping, every=0.01))
    await asyncio.sleep(0.05)
    assert bench.seen == []
    bench.lot.away = False
    async with asyncio.timeout(5):
        await bench.handled.wait()
        stopping.set()
        await worker
    assert (await bench.shown(parked_id)).status == "retried"


async def test_what_was_given_up_is_told_so_though_no_key_opens_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    parked_id = await bench.park(7)

    async def lost(_: str) -> ParkedRecord:
        raise KeyUnknown("b9a4901766d81b2e")

    monkeypatch.setattr(bench.lot, "find", bench.lot.show)
    monkeypatch.setattr(bench.lot, "show", lost)
    with pytest.raises(KeyUnknown):
        await bench.retries.retry(parked_id)
    await bench.lot.discard(parked_id, reason="its key is lost", by="anna", at=bench.clock.now())
    with pytest.raises(PermanentError, match="notParked"):
        await bench.retries.retry(parked_id)
    assert bench.seen == []
