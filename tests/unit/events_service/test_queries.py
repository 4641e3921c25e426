"""Cursors and timelines: places in an order, and what each event changed."""

from __future__ import annotations

import base64
import contextlib
import re
import unicodedata
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.email import events as mail
from services.events.adapters.mongo_queries import holding
from services.events.cursors import LONGEST, Place, Step, decode, decode_step, encode, encode_step
from services.events.projections.known import KnownEvent
from services.events.queries import HistoryPart, Queries
from services.events.timeline import COMPARED, STORIES, TimelineStep, timeline
from services.kit.errors import InvalidRequest, TooMuch
from services.kit.testing import FakeClock
from tests.unit.events_service.events import (
    ANN,
    BOB,
    Log,
    attempted,
    bounced,
    fact,
    requested,
    retracted,
    sent,
    unknown,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
millis = st.integers(min_value=0, max_value=253_370_764_800_000)  # until the year 9999
ids = st.text(min_size=1, max_size=128)


@given(millis, ids)
def test_a_place_survives_its_cursor(at: int, found_id: str) -> None:
    place = Place(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at), found_id)
    cursor = encode(place)
    assert decode(cursor) == place
    assert cursor.replace("-", "").replace("_", "").isalnum()


@given(st.text(max_size=27), st.integers(min_value=0, max_value=1000), ids)
def test_a_step_survives_its_cursor(time: str, rank: int, found_id: str) -> None:
    step = Step(time, rank, found_id)
    assert decode_step(encode_step(step)) == step


BROKEN = (b"[1]", b'[1, "a", 2]', b'["1", "a"]', b'[1e400, "a"]', b'[99999999999999999999, "a"]', b"{}", b"")


def packed(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


@given(st.text(max_size=60) | st.binary(max_size=40).map(packed))
def test_anything_else_is_refused_and_never_an_error_of_ours(cursor: str) -> None:
    for read in (decode, decode_step):
        with contextlib.suppress(InvalidRequest):
            read(cursor)


@pytest.mark.parametrize("value", BROKEN)
def test_a_cursor_of_another_form_is_refused(value: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(packed(value))


def test_an_endless_cursor_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        decode("A" * (LONGEST + 1))


# --- lists that are too long to read -------------------------------------------------------------------------------


class Endless:
    """Documents that are not read in time: neither the page nor the sums, or the sums alone."""

    def __init__(self, *, pages: bool) -> None:
        self.pages = pages

    async def page(self, where: str, after: Place | None, skip: int, count: int) -> list[str]:
        if not self.pages:
            raise TooMuch("the page cannot be read within 5 s")
        return []

    async def sums(self, where: str) -> int:
        raise TooMuch("what is needed for the sums cannot be read within 10 s")

    async def find(self, aggregate: str, owner: str | None) -> str | None:
        return None

    async def history(self, aggregate: str, after: Step | None, count: int) -> HistoryPart:
        return HistoryPart((), {})


@pytest.mark.parametrize(("pages", "what"), [(False, "the page"), (True, "the sums")])
async def test_a_list_that_takes_too_long_asks_for_a_narrower_filter(pages: bool, what: str) -> None:
    queries = Queries[str, str, int](
        Endless(pages=pages), FakeClock(), topic="t", place=lambda shown: Place(NOW, shown)
    )
    with pytest.raises(InvalidRequest) as refused:
        await queries.page("q", limit=20, number=1)
    (detail,) = refused.value.details
    assert what in str(detail["message"])
    assert "narrow the filter by startDate and endDate" in str(detail["message"])


# --- timeline ------------------------------------------------------------------------------------------------------


def mail_timeline(events: Iterable[KnownEvent]) -> list[TimelineStep]:
    return timeline(events, STORIES["email_log"])


def story() -> list[KnownEvent]:
    log = Log()
    return [
        log.event(requested(ANN, BOB)),
        log.event(attempted("a1", ANN)),
        log.event(attempted("b1", BOB)),
        log.event(sent("a1", ANN)),
        log.event(unknown("b1", BOB)),
        log.event(fact(mail.EmailSendConfirmed, BOB, attempt_id="b1")),
        log.event(fact(mail.EmailDelivered, ANN)),
        log.event(fact(mail.EmailOpened, ANN)),
        log.event(fact(mail.EmailOpened, ANN, machine=True)),
        log.event(bounced(recipient=BOB)),
    ]


def test_each_event_says_what_it_changed() -> None:
    assert [step.changes for step in mail_timeline(story())] == [
        ("the log begins: queued, 2 recipient(s)",),
        (f"{ANN}: attempt 1",),
        (f"{BOB}: attempt 1",),
        (f"{ANN}: queued → sent", "cost 0 USD → 0.0001 USD"),
        (f"{BOB}: outcome unknown",),
        (f"{BOB}: queued → sent, outcome known", "mail: queued → sent"),
        (f"{ANN}: sent → delivered",),
        (f"{ANN}: opens 1",),
        (f"{ANN}: machineOpens 1",),
        (f"{BOB}: sent → bounced", "mail: sent → bounced"),
    ]


@given(st.randoms(use_true_random=False))
def test_neither_order_nor_repetition_of_what_is_known_matters(random: object) -> None:
    events = story()
    shuffled = events.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis' Random
    assert mail_timeline(shuffled) == mail_timeline(events)


def test_what_is_retracted_is_shown_and_changes_nothing() -> None:
    log = Log()
    events = [log.event(requested()), log.event(bounced(), event_id="wrong"), log.event(retracted("wrong"))]
    assert [(step.event.type, step.retracted, step.changes) for step in mail_timeline(events)[1:]] == [
        ("email.bounced", True, ()),
        ("event.retracted", False, ()),
    ]


def test_facts_before_their_request_are_told_when_it_comes() -> None:
    log = Log()
    steps = mail_timeline([log.event(fact(mail.EmailDelivered), at=1), log.event(requested(), at=2)])
    assert steps[0].changes == ()
    assert steps[1].changes == (
        "the log begins: delivered, 1 recipient(s)",
        f"{ANN}: delivered, told before the request was known",
    )


def test_a_long_history_tells_opens_by_their_own_words() -> None:
    log = Log()
    opens = [log.event(fact(mail.EmailOpened, machine=number % 2 == 0)) for number in range(COMPARED)]
    steps = mail_timeline([log.event(requested(), at=0), *opens, log.event(bounced(), at=9000)])
    assert {step.changes for step in steps[1:-1]} == {("opens + 1",), ("machine opens + 1",)}
    assert steps[-1].changes == (f"{ANN}: sent → bounced", "mail: sent → bounced")


@pytest.mark.parametrize("asked", ["NFC", "NFD"])
@pytest.mark.parametrize("named", ["NFC", "NFD"])
def test_a_name_is_found_in_whichever_normal_form_it_was_given(
    asked: Literal["NFC", "NFD"], named: Literal["NFC", "NFD"]
) -> None:
    """A Mac writes `é` as two characters, and everybody else as one."""
    condition = holding(unicodedata.normalize(asked, "résumé (1)"))
    assert condition["$options"] == "i"
    assert re.search(condition["$regex"], unicodedata.normalize(named, "Mein résumé (1).pdf"))
    assert re.search(condition["$regex"], "Mein resume (1).pdf") is None
