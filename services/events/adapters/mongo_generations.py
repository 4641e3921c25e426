"""Generations and the pointer in MongoDB, the declared indexes, and the view that follows the pointer.

`projections`: {_id: <projection>, active, previous, generation, changes}. `generations`: {_id: "<projection>/<number>",
…, stage, graceUntil}. Pointer and stages are changed in one transaction. `changes` counts those; documents without it,
of earlier releases, are as good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Final

from pymongo import IndexModel, ReturnDocument
from pymongo.errors import DuplicateKeyError, OperationFailure
from pymongo.read_concern import ReadConcern

from services.events.adapters.mongo_documents import BOOKKEEPING
from services.events.adapters.mongo_leases import LEASES, WORKERS
from services.events.adapters.mongo_read_models import FACTS, STATISTICS, collection_name
from services.events.ports import FILLING, GONE, Generation, Pointer, Progress, Standing, Trouble
from services.events.projections.projection import Projection
from services.kit.errors import PermanentError, Unavailable
from services.kit.mongo import DUPLICATE_KEY, Collection, Database, Document, foreign_errors
from services.kit.mongo_time import READ_SECONDS, milliseconds
from services.kit.retry import Backoff

_EXISTS: Final = 48  # NamespaceExists
TRIES: Final = 20
"""How often a change is tried that others come in the way of."""
_BACKOFF: Final = Backoff(first=0.01, most=0.2)


class MongoGenerations:
    """A `GenerationStore`."""

    def __init__(self, database: Database, projection: Projection, *, patient: Database | None = None) -> None:
        """`patient`: the same database for what takes longer than a request may."""
        self._database = database
        self._patient = database if patient is None else patient
        self._projection = projection
        self._name = projection.name
        self._pointers: Collection = database["projections"]
        self._generations: Collection = database["generations"]

    async def pointer(self) -> Pointer:
        with foreign_errors():
            found = await self._pointers.find_one({"_id": self._name}, max_time_ms=milliseconds(READ_SECONDS))
        return _pointer(found)

    async def list(self) -> list[Generation]:
        with foreign_errors():
            sought = self._generations.find({"projection": self._name}, max_time_ms=milliseconds(READ_SECONDS))
            found = await sought.sort("number", 1).to_list(None)
        return [_generation(each) for each in found]

    async def get(self, number: int) -> Generation | None:
        with foreign_errors():
            found = await self._generations.find_one({"_id": self._id(number)})
        return None if found is None else _generation(found)

    async def create(self, version: int, number: int | None = None) -> Generation:
        if number is None:
            number = await self._next_number()
        first = {"projection": self._name, "number": number, "version": version, "stage": "created", "paused": False}
        with foreign_errors():
            await self._generations.update_one(
                {"_id": self._id(number)},
                [{"$replaceWith": {"$mergeObjects": [{**first, "createdAt": "$$NOW"}, "$$ROOT"]}}],
                upsert=True,
            )
        await self._pointer_there(number)
        found = await self.get(number)
        if found is None:
            raise PermanentError("generationGone", f"{self._name} {number} was removed while it was made")
        return found

    async def change(self, step: Callable[[Standing], Standing], *, grace: float) -> Standing:
        await self._pointer_there(0)
        failures = 0
        while True:
            try:
                return await self._change(step, grace)
            except Unavailable as error:
                failures += 1
                if failures == TRIES or not _lost_to_another(error.__cause__):
                    raise
            await asyncio.sleep(_BACKOFF.delay(failures))

    async def _change(self, step: Callable[[Standing], Standing], grace: float) -> Standing:
        """One transaction. Each that changes anything writes the pointer, so that of two at a time one is refused."""
        until = {"$add": ["$$NOW", int(grace * 1000)]}
        with foreign_errors():
            async with (
                self._database.client.start_session() as session,
                await session.start_transaction(read_concern=ReadConcern("snapshot")),
            ):
                pointer = await self._pointers.find_one({"_id": self._name}, session=session)
                found = await self._generations.find({"projection": self._name}, session=session).to_list(None)
                before = Standing(_pointer(pointer), {each["number"]: _generation(each) for each in found})
                after = step(before)
                stages = {
                    number: each.stage
                    for number, each in after.generations.items()
                    if each.stage != before.generations[number].stage
                }
                if not stages and after.pointer == before.pointer:
                    return after
                await self._pointers.update_one(
                    {"_id": self._name},
                    {
                        "$set": {"active": after.pointer.active, "previous": after.pointer.previous},
                        "$inc": {"changes": 1},
                    },
                    session=session,
                )
                for number, stage in stages.items():
                    fields = {"stage": stage, "graceUntil": until if stage == "grace" else "$$REMOVE"}
                    await self._generations.update_one({"_id": self._id(number)}, [{"$set": fields}], session=session)
                return after

    async def note(
        self, number: int, *, progress: Progress | None = None, report: Mapping[str, object] | None = None
    ) -> None:
        fields: Document = {}
        if progress is not None:
            fields["progress"] = asdict(progress)
        if report is not None:
            fields["report"] = dict(report)
        with foreign_errors():
            await self._generations.update_one({"_id": self._id(number)}, {"$set": fields})

    async def note_trouble(self, number: int, trouble: Trouble | None) -> None:
        change: Document = {"$unset": {"trouble": ""}} if trouble is None else {"$set": {"trouble": asdict(trouble)}}
        with foreign_errors():
            await self._generations.update_one({"_id": self._id(number)}, change)

    async def pause(self, number: int, *, paused: bool) -> bool:
        where: Document = {"_id": self._id(number)}
        if paused:
            where["stage"] = {"$in": sorted(FILLING)}
        with foreign_errors():
            result = await self._generations.update_one(where, {"$set": {"paused": paused}})
        return bool(result.matched_count)

    async def follow(self) -> None:
        shown: int | None = None
        with foreign_errors():
            while (active := (await self.pointer()).active) != shown:  # it may move while the view is made
                shown = active
                if active is not None:
                    await self._show(collection_name(self._name, active))

    async def ensure_unique(self, number: int) -> None:
        await self._create_indexes(number, _unique_of(await self._fold(number)))

    async def ensure_indexes(self, number: int) -> None:
        fold = await self._fold(number)
        models = [IndexModel(list(index)) for index in fold.indexes]
        await self._create_indexes(number, [*models, *_unique_of(fold)])

    async def drop(self, number: int) -> None:
        found = await self.get(number)
        if found is None:
            raise PermanentError("noGeneration", f"{self._name} has no generation {number}")
        if (await self.pointer()).active == number:
            raise PermanentError("generationActive", f"{self._name} {number} is what is read: swap first")
        if found.stage not in GONE:  # for ever: no pointer comes back to it once this was seen
            raise PermanentError(
                "wrongStage", f"{self._name} {number} is {found.stage}: only what is given up is dropped"
            )
        name, key = collection_name(self._name, number), f"{self._name}/{number}"
        with foreign_errors():
            await self._database[LEASES].delete_many({"generation": key})
            await self._database[WORKERS].delete_many({"generation": key})
            for suffix in ("", FACTS, STATISTICS):
                await self._database.drop_collection(name + suffix)

    async def _fold(self, number: int) -> Projection:
        found = await self.get(number)
        return (None if found is None else self._projection.of(found.version)) or self._projection

    async def _create_indexes(self, number: int, models: Sequence[IndexModel]) -> None:
        if not models:
            return
        name = collection_name(self._name, number)
        try:
            with foreign_errors():
                await self._patient[name].create_indexes(list(models))
        except OperationFailure as error:
            if error.code != DUPLICATE_KEY:
                raise
            why = f"{name} has documents that share a unique key, from a build that did not look: abandon it, rebuild"
            raise PermanentError("duplicateKeys", why) from error

    async def _next_number(self) -> int:
        await self._pointer_there(0)
        with foreign_errors():
            found = await self._pointers.find_one_and_update(
                {"_id": self._name}, {"$inc": {"generation": 1}}, return_document=ReturnDocument.AFTER
            )
        if found is None:
            raise Unavailable("MongoDB", f"the pointer of {self._name} went away")
        number: int = found["generation"]
        return number

    async def _pointer_there(self, number: int) -> None:
        with foreign_errors():
            try:
                await self._pointers.update_one(
                    {"_id": self._name},
                    {"$setOnInsert": {"active": None, "previous": None}, "$max": {"generation": number}},
                    upsert=True,
                )
            except DuplicateKeyError:  # somebody else made it in the same moment
                await self._pointers.update_one({"_id": self._name}, {"$max": {"generation": number}})

    async def _show(self, collection: str) -> None:
        pipeline = [{"$match": {"_visible": {"$ne": False}}}, {"$unset": list(BOOKKEEPING)}]
        try:
            await self._database.create_collection(  # without a list of all collections, which is a right of its own
                self._name, check_exists=False, viewOn=collection, pipeline=pipeline
            )
        except OperationFailure as error:
            if error.code != _EXISTS:
                raise
            await self._database.command("collMod", self._name, viewOn=collection, pipeline=pipeline)

    def _id(self, number: int) -> str:
        return f"{self._name}/{number}"


def _lost_to_another(error: BaseException | None) -> bool:
    """Whether a transaction was refused for what another one did meanwhile: nothing was written."""
    return isinstance(error, OperationFailure) and error.has_error_label("TransientTransactionError")


def _pointer(found: Document | None) -> Pointer:
    return Pointer(None, None, 0) if found is None else Pointer(found["active"], found["previous"], found["generation"])


def _unique_of(projection: Projection) -> list[IndexModel]:
    return [
        IndexModel(list(index), unique=True, partialFilterExpression={index[0][0]: {"$exists": True}})
        for index in projection.unique
    ]


def _generation(found: Document) -> Generation:
    progress, trouble = found.get("progress"), found.get("trouble")
    return Generation(
        projection=found["projection"],
        number=found["number"],
        version=found["version"],
        stage=found["stage"],
        created_at=found["createdAt"],
        paused=found["paused"],
        grace_until=found.get("graceUntil"),
        progress=None if progress is None else Progress(**progress),
        report=found.get("report"),
        trouble=None if trouble is None else Trouble(**trouble),
    )
