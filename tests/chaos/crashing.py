"""`python -m tests.chaos.crashing <module> …`: run a service as `python -m` would, to kill -9 itself at a chosen point.

The points lie around the very calls that have an effect outside the process, so each gap between two effects has one:
before the call (the effect before it stands), after it (its own stands), or during it (nobody knows). The services
themselves know nothing of this. MAILROOM_CHAOS_POINT names the point, MAILROOM_CHAOS_NTH which passing of it is fatal.
"""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import runpy
import signal
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from contracts.topics import (
    EMAIL_EVENTS,
    EMAIL_NOTIFICATIONS,
    FILES_EVENTS,
    FILES_NOTIFICATIONS,
    LANES,
    RECIPIENTS_EVENTS,
)

POINT, NTH = "MAILROOM_CHAOS_POINT", "MAILROOM_CHAOS_NTH"
DURING_SECONDS = 0.003
"""How long after its begin a call is cut off: long enough for its bytes to leave, too short for most answers."""

Fits = Callable[[tuple[Any, ...]], bool]


def _always(_: tuple[Any, ...]) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Effect:
    """A call that changes something outside.

    Attributes:
        name: for people.
        where: `module:Class.method`, a coroutine function.
        fits: looks at the call's arguments; only those calls count.
        rare: few calls are made, so the first or second must do.
    """

    name: str
    where: str
    fits: Fits = _always
    rare: bool = False


def _appends(kind: str) -> Fits:
    """An append of `MongoEventStore` that holds an event of this type."""

    def fits(arguments: tuple[Any, ...]) -> bool:
        return any(event.type == kind for append in arguments[1] for event in append.events)

    return fits


def _publishes(topics: Collection[str], holding: bytes = b"") -> Fits:
    """A publish of `KafkaPublisher` to one of these topics, with these bytes in a value."""

    def fits(arguments: tuple[Any, ...]) -> bool:
        return any(item.topic in topics and holding in item.value for item in arguments[1])

    return fits


def _commits(*topics: str) -> Fits:
    """A commit of offsets in one of these topics."""

    def fits(arguments: tuple[Any, ...]) -> bool:
        return len(arguments) > 1 and any(partition.topic in topics for partition in arguments[1])

    return fits


def _some(arguments: tuple[Any, ...]) -> bool:
    return bool(arguments[1])


def _steps(name: str) -> Fits:
    """A change of pointer and stages by this step of `services.events.stages`."""

    def fits(arguments: tuple[Any, ...]) -> bool:
        return name in arguments[1].__code__.co_names

    return fits


_STORE = "services.kit.event_store.mongo:MongoEventStore"
_PUBLISH = "services.kit.kafka.publisher:KafkaPublisher.publish"
_COMMIT = "aiokafka:AIOKafkaConsumer.commit"
_LANES = tuple(topic.name for topic in LANES.values())

OF_A_LANE = (
    Effect("content stored", "services.email.adapters.content:MongoContentStore.put_many", _some),
    Effect("requested appended", f"{_STORE}.append_many", _appends("email.requested")),
    Effect("commands committed", _COMMIT, _commits(*_LANES)),
    Effect("tokens taken", "services.kit.rate_mongo:MongoRateLimits.draw"),
    Effect("attempt appended", f"{_STORE}.append_many", _appends("email.sendAttempted")),
    Effect("call made", "services.email.adapters.ses:SesProvider.send"),
    Effect("outcome appended", f"{_STORE}.append_many", _appends("email.sent")),
    Effect("unknown appended", f"{_STORE}.append_many", _appends("email.sendOutcomeUnknown"), rare=True),
    Effect("decisions published", _PUBLISH, _publishes((EMAIL_EVENTS.name,), b'"streamversion":')),
    Effect("decisions marked", f"{_STORE}.mark_published", _some),
)
"""Of a process that only takes in and sends."""

EMAIL = (
    Effect("HTTP: key reserved", "services.kit.idempotency:MongoIdempotencyKeys.reserve", rare=True),
    Effect("HTTP: command published", _PUBLISH, _publishes(_LANES), rare=True),
    *OF_A_LANE,
    Effect("SQS received", "services.kit.ingest:Ingest._forward", _some),
    Effect("raw published", _PUBLISH, _publishes((EMAIL_NOTIFICATIONS.name,))),
    Effect("SQS deleted", "services.kit.ingest:Ingest._delete", _some),
    Effect("facts published", _PUBLISH, _publishes((EMAIL_EVENTS.name,), b'"revision":')),
    Effect("notifications committed", _COMMIT, _commits(EMAIL_NOTIFICATIONS.name)),
    Effect("settlement appended", f"{_STORE}.append_many", _appends("email.attemptSettled"), rare=True),
    Effect("suppression appended", f"{_STORE}.append_many", _appends("recipient.suppressed"), rare=True),
    Effect("suppression published", _PUBLISH, _publishes((RECIPIENTS_EVENTS.name,)), rare=True),
    Effect("facts committed", _COMMIT, _commits(EMAIL_EVENTS.name)),
)
"""Of the email service, along the data's way."""

PROJECTOR = (
    Effect("lease taken", "services.events.adapters.mongo_leases:MongoLeases.acquire"),
    Effect("rows written", "services.events.adapters.mongo_read_models:MongoReadModels.write_rows", rare=True),
    Effect("documents written", "services.events.adapters.mongo_read_models:MongoReadModels.write"),
    Effect("buckets marked dirty", "services.events.adapters.mongo_read_models:MongoReadModels.mark_dirty"),
    Effect("checkpoint written", "services.events.adapters.mongo_leases:MongoLeases.checkpoint"),
    Effect("offset committed", _COMMIT, rare=True),
)
"""Of the events service."""

_GENERATIONS = "services.events.adapters.mongo_generations:MongoGenerations"
_REBUILD = "services.events.rebuild:Rebuild"

REBUILD = (
    Effect("rebuild begun", f"{_REBUILD}._begin", rare=True),
    Effect("workers looked after", "services.events.adapters.backfill_processes:BackfillProcesses.revive", rare=True),
    Effect("indexes built", f"{_GENERATIONS}.ensure_indexes", rare=True),
    Effect("backfill ended", f"{_REBUILD}._end_backfill", rare=True),
    Effect("statistics summed up", f"{_REBUILD}._sum_up", rare=True),
    Effect("generations compared", "services.events.adapters.mongo_comparison:MongoComparison.compare", rare=True),
    Effect("stage moved", f"{_GENERATIONS}.change", _steps("moved"), rare=True),
    Effect("swapped", f"{_GENERATIONS}.change", _steps("swapped"), rare=True),
    Effect("grace ended", f"{_GENERATIONS}.change", _steps("expired"), rare=True),
    Effect("collection dropped", "pymongo.asynchronous.database:AsyncDatabase.drop_collection", rare=True),
)
"""Of the events service, while it builds generations and gives them up."""

_OBJECTS = "services.files.adapters.s3_objects:S3Objects"

FILES = (
    Effect("files: upload begun in parts", f"{_OBJECTS}.begin_multipart", rare=True),
    Effect("files: request appended", f"{_STORE}.append_many", _appends("file.uploadRequested")),
    Effect("files: parts made one", f"{_OBJECTS}.complete_multipart", rare=True),
    Effect("files: upload appended", f"{_STORE}.append_many", _appends("file.uploaded")),
    Effect("files: failure appended", f"{_STORE}.append_many", _appends("file.uploadFailed"), rare=True),
    Effect("files: versions deleted", f"{_OBJECTS}.delete", rare=True),
    Effect("files: marker put", f"{_OBJECTS}.mark", rare=True),
    Effect("files: deletion appended", f"{_STORE}.append_many", _appends("file.deleted"), rare=True),
    Effect("files: restoring appended", f"{_STORE}.append_many", _appends("file.restored"), rare=True),
    Effect("files: tagged as public", f"{_OBJECTS}.tag_public", rare=True),
    Effect("files: link told", _PUBLISH, _publishes((FILES_EVENTS.name,), b"file.downloadIssued"), rare=True),
    Effect("files: SQS received", "services.kit.ingest:Ingest._forward", _some),
    Effect("files: raw published", _PUBLISH, _publishes((FILES_NOTIFICATIONS.name,))),
    Effect("files: SQS deleted", "services.kit.ingest:Ingest._delete", _some),
    Effect("files: facts published", _PUBLISH, _publishes((FILES_EVENTS.name,), b'"revision":')),
    Effect("files: notifications committed", _COMMIT, _commits(FILES_NOTIFICATIONS.name)),
    Effect("files: facts committed", _COMMIT, _commits(FILES_EVENTS.name)),
    Effect("files: decisions published", _PUBLISH, _publishes((FILES_EVENTS.name,), b'"streamversion":')),
    Effect("files: decisions marked", f"{_STORE}.mark_published", _some),
)
"""Of the files service, along the data's way."""

PHASES = ("before", "during", "after")


def points(effects: Collection[Effect]) -> list[str]:
    """All points of these effects, as MAILROOM_CHAOS_POINT takes them."""
    return [f"{phase}: {effect.name}" for effect in effects for phase in PHASES]


def effect_of(point: str) -> tuple[str, Effect]:
    """The phase and the effect of a point. Raises KeyError for one that does not exist."""
    phase, _, name = point.partition(": ")
    known = {effect.name: effect for effect in (*EMAIL, *FILES, *PROJECTOR, *REBUILD)}
    if phase not in PHASES:
        raise KeyError(point)
    return phase, known[name]


def install(point: str, nth: int, die: Callable[[], None]) -> None:
    """Wrap the effect's call so that its `nth` passing of the point calls `die`, which does not return."""
    phase, effect = effect_of(point)
    module, _, path = effect.where.partition(":")
    class_name, _, method = path.partition(".")
    owner = getattr(importlib.import_module(module), class_name)
    call = getattr(owner, method)
    left = [nth]

    @functools.wraps(call)
    async def wrapped(*arguments: Any, **named: Any) -> Any:
        if not effect.fits(arguments):
            return await call(*arguments, **named)
        left[0] -= 1
        fatal = left[0] == 0
        if fatal and phase == "before":
            die()
        if fatal and phase == "during":
            asyncio.get_running_loop().call_later(DURING_SECONDS, die)
        result = await call(*arguments, **named)
        if fatal:
            die()
        return result

    setattr(owner, method, wrapped)


def main() -> None:
    point = os.environ[POINT]

    def kill_myself() -> None:
        os.write(2, f"killed {point}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)

    install(point, int(os.environ[NTH]), kill_myself)
    module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
