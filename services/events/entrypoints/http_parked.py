"""`/api/parked…`: the records that the events service set aside, for operators."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import Field

from contracts.base import CommandData, Model
from services.kit.auth import Principal, require
from services.kit.clock import Clock
from services.kit.errors import Conflict, InvalidRequest, KeyUnknown, NotFound, PermanentError, TooMuch
from services.kit.http import Answer, Refusal, router
from services.kit.kafka.records import Outcome, ParkKind
from services.kit.parked_view import ParkedDetail, ParkedSummary, detail_of, summary_of
from services.kit.parking import ParkedFilter, ParkedRecord, ParkingLot, ParkStatus

Operator = Annotated[Principal, Depends(require("projections:operate"))]
ParkedId = Annotated[str, Path(min_length=1, max_length=512, description="consumer|topic|partition|offset")]
Slug = Annotated[str | None, Field(min_length=1, max_length=256)]

_NONE = "There is no such parked record."
_NOT_OPEN = "It is not open any more: retried or discarded already."
_CLOSED: dict[int | str, dict[str, Any]] = {
    409: {"model": Refusal, "description": "It is not open any more, or its consumer runs elsewhere"}
}

_SEALED: dict[int | str, dict[str, Any]] = {
    409: {"model": Refusal, "description": "It was sealed with a key that this process does not have, or was changed"}
}


class Retries(Protocol):
    """Hands parked records to their consumers again: `kit.parking_retry.ParkedRetries`."""

    async def retry(self, parked_id: str, *, by: str = "") -> Outcome:
        """What came of it. Raises PermanentError `notParked` and `noHandler`."""
        ...


class ParkedQuery(CommandData):
    """Which parked records."""

    consumer: Slug = None
    topic: Slug = None
    kind: ParkKind | None = None
    reason: Slug = None
    status: Annotated[ParkStatus | Literal["any"], Field(description="any = whatever became of it")] = "parked"
    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[str | None, Field(min_length=1, max_length=2048, description="of the page before")] = None


class ParkedList(Model):
    """A page of parked records, latest first."""

    records: list[ParkedSummary]
    next_cursor: str | None = None


class DiscardReason(CommandData):
    """Why a record is given up."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]


def parked_router(lot: ParkingLot, retries: Retries, clock: Clock) -> APIRouter:
    """The routes, all with the scope `projections:operate`."""
    routes = router("/api/parked", tag="parked records")

    @routes.get("", response_model=Answer[ParkedList], summary="Parked records, latest first")
    async def list_parked(asked: Annotated[ParkedQuery, Query()], _principal: Operator) -> Response:
        where = ParkedFilter(
            consumer=asked.consumer,
            topic=asked.topic,
            kind=asked.kind,
            reason=asked.reason,
            status=None if asked.status == "any" else asked.status,
        )
        try:
            page = await lot.list(where, limit=asked.limit, cursor=asked.cursor)
        except TooMuch as error:
            why = f"{error.detail}: ask for status parked, or leave the filter out and page through all"
            raise InvalidRequest(details=[{"field": "status", "message": why, "in": "query"}]) from None
        except PermanentError as error:
            raise InvalidRequest(details=[{"field": "cursor", "message": error.detail, "in": "query"}]) from None
        listed = ParkedList(records=[summary_of(record) for record in page.records], next_cursor=page.cursor)
        return _answer(Answer(data=listed))

    @routes.get("/{parked_id}", response_model=Answer[ParkedDetail], responses=_SEALED, summary="One record")
    async def show_parked(parked_id: ParkedId, _principal: Operator) -> Response:
        try:
            record = await lot.show(parked_id)
        except (KeyUnknown, PermanentError) as error:
            raise Conflict(f"It cannot be opened here: {error}.") from None
        if record is None:
            raise NotFound(_NONE)
        return _answer(Answer(data=detail_of(record)))

    @routes.post(
        "/{parked_id}/retry", response_model=Answer[ParkedSummary], responses=_CLOSED, summary="Handle it once more"
    )
    async def retry_parked(parked_id: ParkedId, principal: Operator) -> Response:
        """With its own origin, and never published again. `status` tells whether it worked, `lastError` why not."""
        await _found(lot, parked_id)
        try:
            await retries.retry(parked_id, by=principal.actor)
        except (KeyUnknown, PermanentError) as error:
            raise _conflict(error) from None
        return _answer(Answer(data=summary_of(await _found(lot, parked_id))))

    @routes.post("/{parked_id}/discard", response_model=Answer[ParkedSummary], responses=_CLOSED, summary="Give it up")
    async def discard_parked(parked_id: ParkedId, why: DiscardReason, principal: Operator) -> Response:
        """The record and the reason are kept; it is not handled any more. Its value need not be readable."""
        await _found(lot, parked_id)
        if not await lot.discard(parked_id, reason=why.reason, by=principal.actor, at=clock.now()):
            raise Conflict(_NOT_OPEN)
        return _answer(Answer(data=summary_of(await _found(lot, parked_id))))

    return routes


def _conflict(error: KeyUnknown | PermanentError) -> Conflict:
    if isinstance(error, PermanentError) and error.reason == "notParked":
        return Conflict(_NOT_OPEN)
    return Conflict(f"It cannot be retried here: {error.detail if isinstance(error, PermanentError) else error}.")


async def _found(lot: ParkingLot, parked_id: str) -> ParkedRecord:
    record = await lot.find(parked_id)
    if record is None:
        raise NotFound(_NONE)
    return record


def _answer(answer: Answer[ParkedList] | Answer[ParkedDetail] | Answer[ParkedSummary]) -> Response:
    return Response(answer.model_dump_json(by_alias=True, exclude_none=True), media_type="application/json")
