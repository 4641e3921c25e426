"""What email has heard of files, one small document each in `files_known`.

`{_id, version, since, owner, bucket, key, category, scanNeeded?, originalName, status, versionId?, size?, contentType?,
contentEncoding?, originalSize?, scan?}`. `since` holds the stream versions it was folded from, one for each aspect:
they determine the rest, so that they are the guard of a write as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from typing import Final

from pydantic.alias_generators import to_camel
from pymongo import ReplaceOne
from pymongo.errors import PyMongoError

from services.email.domain.files import ASPECTS, KnownFile
from services.kit.cancellation import cancellation_kept
from services.kit.errors import Unavailable
from services.kit.mongo import Collection as MongoCollection
from services.kit.mongo import Database, Document, classify_bulk, foreign_errors

_NAMES: Final = {each.name: to_camel(each.name) for each in fields(KnownFile) if each.name != "file_id"}


class MongoKnownFiles:
    """A `KnownFiles` in the service's own database."""

    def __init__(self, database: Database) -> None:
        self._files: MongoCollection = database["files_known"]

    async def load_many(self, file_ids: Collection[str]) -> dict[str, KnownFile]:
        """Every one; see the port. Raises Unavailable."""
        found: dict[str, KnownFile] = {file_id: KnownFile(file_id) for file_id in file_ids}
        if not found:
            return found
        with foreign_errors():
            documents = await self._files.find({"_id": {"$in": list(found)}}).to_list(None)
        return found | {document["_id"]: _file(document) for document in documents}

    async def save_many(self, changes: Sequence[tuple[KnownFile, KnownFile]]) -> set[str]:
        """Write each unless it was changed since; see the port. Raises Unavailable."""
        if not changes:
            return set()
        writes = [ReplaceOne(_unchanged(before), _document(after), upsert=True) for before, after in changes]
        error: PyMongoError | None = None
        try:
            with cancellation_kept():
                await self._files.bulk_write(writes, ordered=False)
        except PyMongoError as raised:
            error = raised
        outcome = classify_bulk(error, len(writes))
        if outcome.where("failed") or outcome.where("unknown"):
            raise Unavailable("MongoDB", f"what was heard of files could not all be kept: {outcome.detail}") from error
        return {changes[index][0].file_id for index in outcome.where("duplicate")}


def _unchanged(before: KnownFile) -> Document:
    """The document as it was read. Where it is another one by now, the upsert meets its `_id`: E11000."""
    versions = {f"since.{aspect}": before.since.get(aspect) for aspect in ASPECTS}
    return {"_id": before.file_id, "version": before.version or None, **versions}


def _document(file: KnownFile) -> Document:
    values = {on_disk: getattr(file, name) for name, on_disk in _NAMES.items()}
    return {name: value for name, value in values.items() if value is not None}


def _file(document: Document) -> KnownFile:
    values = {name: document[on_disk] for name, on_disk in _NAMES.items() if on_disk in document}
    return KnownFile(document["_id"], **values)
