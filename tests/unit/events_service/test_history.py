"""The history of a mail names the very record that each event was read from, whatever was read of it before."""

from __future__ import annotations

from typing import Any

from contracts.email import events as mail
from services.events.cursors import Step
from services.events.email_queries import EmailQueries
from services.events.projections.known import Known, KnownEvent, add, retractions
from services.events.queries import HistoryPart
from services.events.reader import read_event
from services.kit.testing import FakeClock
from tests.unit.events_service.events import Log, fact, requested


class Documents:
    """`EmailDocuments` that know one mail's events."""

    def __init__(self, events: list[KnownEvent]) -> None:
        self._events = events

    async def history(self, message_id: str, after: Step | None, count: int) -> HistoryPart:
        behind = [event for event in sorted(self._events) if after is None or event[:3] > after]
        return HistoryPart(behind[:count], retractions(self._events))

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} is not asked for a history")


async def test_a_corrected_fact_is_shown_with_the_origin_of_its_correction() -> None:
    log = Log()
    opened = log.raw(fact(mail.EmailOpened), event_id="open", revision=1, at=5)
    corrected = log.raw(fact(mail.EmailOpened, machine=True), event_id="open", revision=2, at=5)
    known: Known = {}
    for event in (
        read_event(log.raw(requested()), 3, 10),
        read_event(opened, 3, 11),
        read_event(corrected, 3, 40),
    ):
        add(known, event)
    assert known["open"].place == (3, 11), "its place is where it was seen first"
    page = await EmailQueries(Documents(list(known.values())), FakeClock()).history("m1", limit=10)
    origins = {entry.event.id: (entry.topic, entry.partition, entry.offset) for entry in page.entries}
    assert origins["open"] == ("email.events", 3, 40)
    assert sorted(origins.values()) == [("email.events", 3, 10), ("email.events", 3, 40)]


async def test_pages_go_on_where_the_one_before_ended() -> None:
    log = Log()
    events = [log.event(requested()), *(log.event(fact(mail.EmailOpened), at=5) for _ in range(4))]
    queries = EmailQueries(Documents(events), FakeClock())
    told: list[str] = []
    cursor: str | None = None
    for left in (True, True, False):
        page = await queries.history("m1", limit=2, cursor=cursor)
        told += [entry.event.id for entry in page.entries]
        cursor = page.cursor
        assert (cursor is not None) is left
    assert told == [event.id for event in sorted(events)]
