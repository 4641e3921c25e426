"""`/api/projections…`: how the projections stand, and the operator's verbs for rebuilds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Protocol, Self

from fastapi import APIRouter, Depends, Path, Response
from pydantic import Field

from contracts.base import Model, UtcDateTime
from services.events.ports import Generation, Stage
from services.events.watching import ProjectionState
from services.kit.auth import Principal, require
from services.kit.errors import Conflict, NotFound, PermanentError
from services.kit.http import Answer, Refusal, router

Operator = Annotated[Principal, Depends(require("projections:operate"))]
Name = Annotated[str, Path(min_length=1, max_length=64, pattern=r"^[a-z_]+$", description="email_log or file")]

_NOT_NOW: dict[int | str, dict[str, Any]] = {
    409: {"model": Refusal, "description": "The projection does not stand so that this can be done"}
}


class ProjectionOperations(Protocol):
    """One projection as operators handle it. What cannot be done now raises PermanentError with the reason."""

    async def state(self) -> ProjectionState:
        """How it stands."""
        ...

    async def start(self) -> Generation:
        """Begin to build a new generation beside the live one; whoever works on rebuilds takes it from here."""
        ...

    async def pause(self) -> Generation:
        """Let the rebuild in progress rest."""
        ...

    async def resume(self) -> Generation:
        """Let it go on."""
        ...

    async def rollback(self) -> Generation:
        """Read the generation before the active one again."""
        ...


class ProgressView(Model):
    """How far a rebuild is, in log positions."""

    stage: str
    done: int
    total: int
    rate: Annotated[float, Field(description="events a second")]
    eta: Annotated[float | None, Field(description="seconds")] = None


class TroubleView(Model):
    """Why a rebuild did not go on."""

    error: str
    failures: Annotated[int, Field(description="in a row")]
    at: UtcDateTime
    again_at: Annotated[UtcDateTime | None, Field(description="absent: not before a person has looked")] = None


class GenerationView(Model):
    """One build of a read model."""

    number: int
    version: int
    stage: Stage
    created_at: UtcDateTime
    paused: bool
    grace_until: UtcDateTime | None = None
    lag: Annotated[int | None, Field(description="records not projected yet; absent where nothing is projected")] = None
    progress: ProgressView | None = None
    report: dict[str, Any] | None = None
    trouble: TroubleView | None = None

    @classmethod
    def of(cls, generation: Generation, lag: int | None) -> Self:
        progress, trouble = generation.progress, generation.trouble
        return cls(
            number=generation.number,
            version=generation.version,
            stage=generation.stage,
            created_at=generation.created_at,
            paused=generation.paused,
            grace_until=generation.grace_until,
            lag=lag,
            progress=None
            if progress is None
            else ProgressView(
                stage=progress.stage,
                done=progress.done,
                total=progress.total,
                rate=progress.rate,
                eta=progress.eta,
            ),
            report=None if generation.report is None else dict(generation.report),
            trouble=None
            if trouble is None
            else TroubleView(error=trouble.error, failures=trouble.failures, at=trouble.at, again_at=trouble.again_at),
        )


class PartitionView(Model):
    """A partition in one generation."""

    generation: int
    partition: int
    position: int
    end: int
    lag: int
    owner: Annotated[str | None, Field(description="who projects it; absent while nobody does")] = None


class ProjectionView(Model):
    """A projection and all its generations, oldest first."""

    name: str
    version: Annotated[int, Field(description="of the fold in this build")]
    topic: str
    active: Annotated[int | None, Field(description="the generation that is read")] = None
    previous: Annotated[int | None, Field(description="where a rollback goes")] = None
    lag: Annotated[int | None, Field(description="of the active generation")] = None
    generations: list[GenerationView]

    @classmethod
    def of(cls, state: ProjectionState) -> Self:
        """`state` without its partitions."""
        return cls(**_summary(state))


class ProjectionDetail(ProjectionView):
    """A projection with each partition."""

    partitions: list[PartitionView]

    @classmethod
    def of(cls, state: ProjectionState) -> Self:
        partitions = [
            PartitionView(
                generation=each.generation,
                partition=each.partition,
                position=each.position,
                end=each.end,
                lag=each.lag,
                owner=each.owner,
            )
            for each in state.partitions
        ]
        return cls(**_summary(state), partitions=partitions)


def projections_router(projections: Mapping[str, ProjectionOperations]) -> APIRouter:
    """The routes, all with the scope `projections:operate`. `projections` is by name."""
    routes = router("/api/projections", tag="projections")

    @routes.get("", response_model=Answer[list[ProjectionView]], summary="All projections")
    async def list_projections(_principal: Operator) -> Response:
        views = [ProjectionView.of(await each.state()).to_wire() for each in projections.values()]
        return _json(Answer(data=views))

    @routes.get("/{name}", response_model=Answer[ProjectionDetail], summary="One projection with its partitions")
    async def one_projection(name: Name, _principal: Operator) -> Response:
        state = await _found(projections, name).state()
        return _json(Answer(data=ProjectionDetail.of(state).to_wire()))

    @routes.post(
        "/{name}/rebuild",
        status_code=202,
        response_model=Answer[GenerationView],
        responses=_NOT_NOW,
        summary="Build it anew beside the live one",
    )
    async def rebuild(name: Name, _principal: Operator) -> Response:
        """It is filled, caught up, compared with live and swapped in; the one before is kept for a while."""
        return await _done(_found(projections, name).start, 202)

    @routes.post("/{name}/pause", response_model=Answer[GenerationView], responses=_NOT_NOW, summary="Rest a rebuild")
    async def pause(name: Name, _principal: Operator) -> Response:
        """The rebuild in progress keeps its place."""
        return await _done(_found(projections, name).pause)

    @routes.post("/{name}/resume", response_model=Answer[GenerationView], responses=_NOT_NOW, summary="Go on with it")
    async def resume(name: Name, _principal: Operator) -> Response:
        """The paused rebuild goes on from its place."""
        return await _done(_found(projections, name).resume)

    @routes.post(
        "/{name}/rollback", response_model=Answer[GenerationView], responses=_NOT_NOW, summary="Back to the one before"
    )
    async def rollback(name: Name, _principal: Operator) -> Response:
        """Possible while the generation before the active one is kept up to date."""
        return await _done(_found(projections, name).rollback)

    return routes


def _found(projections: Mapping[str, ProjectionOperations], name: str) -> ProjectionOperations:
    found = projections.get(name)
    if found is None:
        raise NotFound("There is no such projection.")
    return found


async def _done(verb: Callable[[], Awaitable[Generation]], status: int = 200) -> Response:
    try:
        generation = await verb()
    except PermanentError as error:
        raise Conflict(error.detail or error.reason, [{"reason": error.reason}]) from None
    return _json(Answer(data=GenerationView.of(generation, None).to_wire()), status)


def _json(answer: Answer[Any], status: int = 200) -> Response:
    return Response(answer.model_dump_json(), status_code=status, media_type="application/json")


def _summary(state: ProjectionState) -> dict[str, Any]:
    active = state.pointer.active
    return {
        "name": state.name,
        "version": state.version,
        "topic": state.topic,
        "active": active,
        "previous": state.pointer.previous,
        "lag": None if active is None else state.lag(active),
        "generations": [GenerationView.of(each, state.lag(each.number)) for each in state.generations],
    }
