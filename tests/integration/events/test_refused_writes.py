"""A document that cannot be stored fails alone; a server that takes no writes is waited for."""

from __future__ import annotations

import pytest

from services.events.composing import ReadingSide
from services.events.ports import Write
from services.kit.errors import Unavailable
from tests.unit.events_service.events import Log, requested


def write(aggregate: str, **body: object) -> Write:
    event = Log(aggregate).event(requested())
    return Write(aggregate, 0, [event], (), has_rows=False, body={"messageId": aggregate, **body})


@pytest.mark.parametrize(
    "body", [{"customData": {"nul\0": 1}}, {"customData": {"big": 2**70}}, {"customData": "x" * 17_000_000}]
)
async def test_what_bson_cannot_hold_fails_alone(side: ReadingSide, body: dict[str, object]) -> None:
    outcomes = await side.models(1).write([write("good"), write("bad", **body), write("better")])
    assert outcomes == ["done", "failed", "done"]


async def test_what_the_server_refuses_of_one_document_fails_alone(side: ReadingSide) -> None:
    await side.database.create_collection("email_log__g1", validator={"subject": {"$ne": "refused"}})
    outcomes = await side.models(1).write([write("good"), write("bad", subject="refused")])
    assert outcomes == ["done", "failed"]


async def test_a_place_that_takes_no_writes_is_waited_for(side: ReadingSide) -> None:
    await side.database.create_collection("email_log__g1", viewOn="something_else")
    with pytest.raises(Unavailable):
        await side.models(1).write([write("good")])
