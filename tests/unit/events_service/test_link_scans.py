"""Clicks that a scanner made: told by all clicks of a mail together, in any order, live and in a rebuild alike."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.email.events import EmailClicked, EmailOpened
from services.events.projections import email_log, email_log_v1
from services.events.projections.known import KnownEvent, tally
from services.events.projections.link_scans import LINKS, WITHIN, with_scans_marked
from services.events.projections.projection import EMAIL_LOG
from tests.unit.events_service.events import ANN, BOB, Log, fact, requested, retracted
from tests.unit.events_service.test_email_log import folded

SECONDS = WITHIN.total_seconds()


def click(log: Log, at: float, link: str | None, recipient: str = ANN, **more: Any) -> KnownEvent:
    return log.event(fact(EmailClicked, recipient=recipient, link=link, **more), at=at)


def clicks_of(events: list[KnownEvent], recipient: str = ANN) -> tuple[int, int]:
    """Clicks by people and by machines, of the document."""
    (entry,) = [each for each in folded(events)["recipients"] if each["address"] == recipient]
    return entry["clicks"], entry["machineClicks"]


def mail(*clicks: tuple[float, str | None], to: tuple[str, ...] = (ANN,)) -> tuple[Log, list[KnownEvent]]:
    log = Log()
    return log, [log.event(requested(*to), at=0), *(click(log, at, link) for at, link in clicks)]


def test_so_many_links_within_seconds_are_a_scan() -> None:
    _, events = mail((10, "a"), (10.5, "b"), (12, "c"), (12, "d"))
    assert clicks_of(events) == (0, 4)


def test_the_last_of_them_makes_machines_of_those_before() -> None:
    log, events = mail((10, "a"), (11, "b"))
    assert clicks_of(events) == (2, 0)
    assert clicks_of([*events, click(log, 12, "c")]) == (0, 3)


@pytest.mark.parametrize(
    "clicks",
    [
        [(10, "a"), (10, "b")],
        [(10, "a"), (11, "a"), (12, "a"), (13, "b")],
        [(10, "a"), (12, "b"), (10 + SECONDS + 0.001, "c")],
        [(10, None), (10, None), (10, "a"), (10, "b")],
        [(10, "a"), (14, "b"), (18, "c"), (22, "d")],
    ],
)
def test_what_a_person_may_do_is_a_person_s(clicks: list[tuple[float, str | None]]) -> None:
    _, events = mail(*clicks)
    assert clicks_of(events) == (len(clicks), 0)


def test_within_means_from_the_first_to_the_last_of_them() -> None:
    _, events = mail((10, "a"), (12, "b"), (10 + SECONDS, "c"))
    assert clicks_of(events) == (0, 3)


def test_what_a_person_clicks_after_the_scan_is_a_person_s() -> None:
    _, events = mail((10, "a"), (11, "b"), (12, "c"), (600, "b"), (3600, "a"))
    assert clicks_of(events) == (2, 3)


def test_each_recipient_is_looked_at_alone() -> None:
    log, events = mail((10, "a"), (11, "b"), to=(ANN, BOB))
    events.append(click(log, 11, "c", BOB))
    assert (clicks_of(events), clicks_of(events, BOB)) == ((2, 0), (1, 0))


def test_what_is_a_machine_by_itself_counts_towards_a_scan() -> None:
    log, events = mail((10, "a"), (11, "b"))
    assert clicks_of([*events, click(log, 12, "c", machine=True)]) == (0, 3)


def test_opens_are_not_touched_and_the_history_says_what_was_found() -> None:
    log, events = mail((10, "a"), (11, "b"), (12, "c"))
    body = folded([*events, log.event(fact(EmailOpened), at=11.5)])
    said = [(each["type"], each["metadata"].get("machine", False)) for each in body["events"][1:]]
    assert said == [("click", True), ("click", True), ("open", False), ("click", True)]
    assert body["recipients"][0]["opens"] == 1


def test_a_retracted_click_is_none() -> None:
    log, events = mail((10, "a"), (11, "b"), (12, "c"))
    assert clicks_of([*events, log.event(retracted(events[-1].id), at=100)]) == (2, 0)


def test_what_lies_outside_the_document_counts_as_it_says() -> None:
    log, events = mail((10, "a"), (11, "b"))
    outside = [click(log, 12, "c"), click(log, 13, "d", machine=True)]
    body = folded(events, tally(outside, email_log.ENGAGEMENT))
    (entry,) = body["recipients"]
    assert (entry["clicks"], entry["machineClicks"]) == (3, 1)


def test_what_is_folded_is_left_as_it_was_read() -> None:
    _, events = mail((10, "a"), (11, "b"), (12, "c"))
    before = [dict(event.data) for event in events]
    with_scans_marked(events)
    assert [event.data for event in events] == before


def test_the_fold_before_knows_no_scans_and_is_carried_along() -> None:
    _, events = mail((10, "a"), (11, "b"), (12, "c"))
    before = EMAIL_LOG.with_fold(1)
    assert (EMAIL_LOG.versions, before.fold) == ((2, 1), email_log_v1.fold)
    body = before.fold(events, ())
    assert body is not None
    assert body["recipients"][0]["clicks"] == 3


moments = st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abcde")), max_size=14)


@given(moments, st.randoms(use_true_random=False))
def test_a_click_is_a_scan_s_exactly_if_some_stretch_has_so_many_links(
    clicks: list[tuple[int, str]], chance: random.Random
) -> None:
    log = Log()
    events = [click(log, at / 2, link) for at, link in clicks]
    ordered = sorted(events)
    marked = {event.id for event in with_scans_marked(ordered) if event.data.get("machine")}
    half = 2 * SECONDS
    expected = {
        event.id
        for event, (at, _) in zip(events, clicks, strict=True)
        for begin in range(-40, 41)
        if begin <= at <= begin + half
        and len({link for other, link in clicks if begin <= other <= begin + half}) >= LINKS
    }
    assert marked == expected
    again = [log.event(requested(), at=0), *events] * 2
    chance.shuffle(again)
    folded(again)
