"""The parking lot in MongoDB: collection `parked` of a service's own database, values and stacks encrypted."""

import base64
from collections.abc import Collection as AnyOf
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from bson import Binary
from pymongo import DESCENDING, UpdateOne
from pymongo.errors import PyMongoError

from services.kit.cancellation import cancellation_kept
from services.kit.crypto import Cipher
from services.kit.errors import KeyUnknown, PermanentError, Unavailable
from services.kit.logs import get_logger
from services.kit.mongo import Collection, Database, Document, classify_bulk, foreign_errors
from services.kit.mongo_time import READ_SECONDS, in_time, milliseconds
from services.kit.parking import ParkedFilter, ParkedPage, ParkedRecord, ParkKind

log = get_logger(__name__)

COLLECTION = "parked"

_OPEN = {"status": "parked"}
_UNSEALED = {"raw": 0, "stack": 0}
_FIELDS = {
    "consumer": "consumer",
    "topic": "topic",
    "partition": "partition",
    "offset": "offset",
    "timestamp_ms": "timestampMs",
    "size": "size",
    "reason": "reason",
    "kind": "kind",
    "detail": "detail",
    "error_class": "class",
    "decision": "decision",
    "release": "release",
    "kept": "kept",
    "status": "status",
    "tries": "tries",
    "last_error": "lastError",
    "closed_by": "closedBy",
    "closed_reason": "closedReason",
    "at": "at",
    "next_try_at": "nextTryAt",
    "closed_at": "closedAt",
}


class MongoParkingLot:
    """A `ParkingLot`. `_id` is the parked record's id, so uniqueness needs no further index."""

    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._collection: Collection = database[COLLECTION]
        self._cipher = cipher

    async def ensure_indexes(self) -> None:
        """Create what the queries need; does nothing when it stands."""
        with foreign_errors():
            await self._collection.create_index([("status", 1), ("at", DESCENDING), ("_id", DESCENDING)])
            await self._collection.create_index(
                [("kind", 1), ("consumer", 1), ("nextTryAt", 1)],
                partialFilterExpression={"status": "parked", "nextTryAt": {"$type": "date"}},
            )
            await self._collection.create_index([("consumer", 1), ("topic", 1), ("partition", 1), ("offset", 1)])

    async def park(self, records: Sequence[ParkedRecord]) -> None:
        if not records:
            return
        operations: list[UpdateOne] = []
        for parked in records:
            document = self._to_document(parked)
            operations.append(UpdateOne({"_id": parked.id}, {"$setOnInsert": document}, upsert=True))
            operations.append(UpdateOne({"_id": parked.id, "status": "retried"}, _reopening(parked)))
        error: PyMongoError | None = None
        try:
            with cancellation_kept():
                await self._collection.bulk_write(operations, ordered=False)
        except PyMongoError as failure:
            error = failure
        outcome = classify_bulk(error, len(operations))
        if any(item in ("failed", "unknown") for item in outcome.items):
            raise Unavailable("MongoDB", f"could not park {len(records)} record(s): {outcome.detail}")

    async def list(self, where: ParkedFilter, *, limit: int = 50, cursor: str | None = None) -> ParkedPage:
        query: Document = {
            name: value
            for name in ("consumer", "topic", "kind", "reason", "status")
            if (value := getattr(where, name)) is not None
        }
        if cursor is not None:
            at, last_id = decode_cursor(cursor)
            query["$or"] = [{"at": {"$lt": at}}, {"at": at, "_id": {"$lt": last_id}}]
        with in_time("the parked records", READ_SECONDS):
            found = (
                await self._collection.find(query, _UNSEALED)
                .sort([("at", DESCENDING), ("_id", DESCENDING)])
                .limit(limit + 1)
                .max_time_ms(milliseconds(READ_SECONDS))
                .to_list(limit + 1)
            )
        records = tuple(self._from_document(document) for document in found[:limit])
        more = len(found) > limit
        return ParkedPage(records, encode_cursor(records[-1]) if more else None)

    async def show(self, parked_id: str) -> ParkedRecord | None:
        with foreign_errors():
            document = await self._collection.find_one({"_id": parked_id}, max_time_ms=milliseconds(READ_SECONDS))
        return None if document is None else self._from_document(document)

    async def find(self, parked_id: str) -> ParkedRecord | None:
        with foreign_errors():
            document = await self._collection.find_one(
                {"_id": parked_id}, _UNSEALED, max_time_ms=milliseconds(READ_SECONDS)
            )  # fmt: skip
        return None if document is None else self._from_document(document)

    async def known(self, parked_ids: AnyOf[str]) -> set[str]:
        with foreign_errors():
            found = await self._collection.find({"_id": {"$in": list(parked_ids)}}, {"_id": 1}).to_list()
        return {document["_id"] for document in found}

    async def left_out(
        self, consumer: str, topic: str, spans: Mapping[int, tuple[int, int]]
    ) -> Mapping[tuple[int, int], str]:
        if not spans:
            return {}
        query: Document = {
            "consumer": consumer,
            "topic": topic,
            "$or": [
                {"partition": partition, "offset": {"$gte": first, "$lte": last}}
                for partition, (first, last) in spans.items()
            ],
            "status": {"$in": ["parked", "discarded"]},
            "kept": {"$ne": True},
        }
        with foreign_errors():
            found = await self._collection.find(query, {"partition": 1, "offset": 1, "reason": 1}).to_list()
        return {(each["partition"], each["offset"]): each["reason"] for each in found}

    async def any_from(self, consumer: str, topic: str, offsets: Mapping[int, int]) -> bool:
        if not offsets:
            return False
        places = [{"partition": partition, "offset": {"$gte": first}} for partition, first in offsets.items()]
        with foreign_errors():
            found = await self._collection.find_one({"consumer": consumer, "topic": topic, "$or": places}, {"_id": 1})
        return found is not None

    async def mark_retried(self, parked_id: str, *, at: datetime, by: str = "") -> bool:
        change: Document = {
            "$set": {"status": "retried", "closedAt": at, "retriedAt": at, "closedBy": by, "closedReason": ""},
            "$unset": {"nextTryAt": ""},
            "$inc": {"tries": 1},
        }
        return await self._update(parked_id, change)

    async def mark_failed(
        self,
        parked_id: str,
        *,
        at: datetime,
        error: str,
        next_try_at: datetime | None,
        reason: str | None = None,
        kind: ParkKind | None = None,
        kept: bool | None = None,
    ) -> bool:
        fields: Document = {"lastError": error, "triedAt": at, "nextTryAt": next_try_at}
        if reason is not None:
            fields["reason"] = reason
        if kind is not None:
            fields["kind"] = kind
        if kept is not None:
            fields["kept"] = kept
        return await self._update(parked_id, {"$set": fields, "$inc": {"tries": 1}})

    async def discard(self, parked_id: str, *, reason: str, by: str, at: datetime) -> bool:
        change: Document = {
            "$set": {"status": "discarded", "closedAt": at, "closedBy": by, "closedReason": reason},
            "$unset": {"nextTryAt": ""},
        }
        return await self._update(parked_id, change)

    async def claim_due(
        self, kind: ParkKind, consumer: str, *, now: datetime, since: datetime, lease_until: datetime, limit: int
    ) -> Sequence[ParkedRecord]:
        query: Document = {
            **_OPEN,
            "kind": kind,
            "consumer": consumer,
            "nextTryAt": {"$lte": now},
            "at": {"$gte": since},
        }
        claimed: list[ParkedRecord] = []
        with foreign_errors():
            for _ in range(limit):
                document: Document | None = await self._collection.find_one_and_update(
                    query, {"$set": {"nextTryAt": lease_until}}, sort=[("nextTryAt", 1)]
                )
                if document is None:
                    break
                try:
                    claimed.append(self._from_document(document))
                except (KeyUnknown, PermanentError) as error:  # it stays parked, and the others go on
                    log.warning("a parked record cannot be opened", parked_id=document["_id"], error=str(error))
        return claimed

    async def counts(self) -> Mapping[tuple[str, ParkKind], int]:
        pipeline: list[Document] = [
            {"$match": _OPEN},
            {"$group": {"_id": {"consumer": "$consumer", "kind": "$kind"}, "count": {"$sum": 1}}},
        ]
        with foreign_errors():
            rows = await (await self._collection.aggregate(pipeline)).to_list(None)
        return {(row["_id"]["consumer"], row["_id"]["kind"]): row["count"] for row in rows}

    async def _update(self, parked_id: str, change: Document) -> bool:
        with foreign_errors():
            result = await self._collection.update_one({"_id": parked_id, **_OPEN}, change)
        return bool(result.matched_count)

    def _to_document(self, parked: ParkedRecord) -> Document:
        document: Document = {wire: getattr(parked, name) for name, wire in _FIELDS.items()}
        document["key"] = None if parked.key is None else Binary(parked.key)
        document["headers"] = [[name, None if value is None else Binary(value)] for name, value in parked.headers]
        document["raw"] = None if parked.raw is None else self._seal(parked.raw, parked.id, "value")
        document["stack"] = self._seal(parked.stack.encode(), parked.id, "stack")
        return document

    def _from_document(self, document: Document) -> ParkedRecord:
        fields: dict[str, Any] = {name: document.get(wire) for name, wire in _FIELDS.items()}
        fields["kept"] = bool(fields["kept"])  # absent in what earlier builds parked
        parked_id: str = document["_id"]
        key, raw, stack = document.get("key"), document.get("raw"), document.get("stack")
        return ParkedRecord(
            **fields,
            key=None if key is None else bytes(key),
            headers=tuple((name, None if value is None else bytes(value)) for name, value in document["headers"]),
            raw=None if raw is None else self._cipher.open(bytes(raw), _context(parked_id, "value")),
            stack="" if stack is None else self._cipher.open(bytes(stack), _context(parked_id, "stack")).decode(),
        )

    def _seal(self, plain: bytes, parked_id: str, part: str) -> Binary:
        return Binary(self._cipher.seal(plain, _context(parked_id, part)))


def encode_cursor(last: ParkedRecord) -> str:
    """Where the page that ends with `last` ends."""
    return base64.urlsafe_b64encode(f"{last.at.isoformat()} {last.id}".encode()).decode()


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """(at, id) of the last record of the page before. Raises PermanentError `badCursor`."""
    try:
        at, _, last_id = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        return datetime.fromisoformat(at).astimezone(UTC), last_id
    except ValueError:
        raise PermanentError("badCursor", "this is not a cursor that a list gave") from None


def _reopening(parked: ParkedRecord) -> Document:
    return {
        "$set": {
            "status": "parked",
            "reason": parked.reason,
            "kind": parked.kind,
            "detail": parked.detail,
            "class": parked.error_class,
            "kept": parked.kept,
            "nextTryAt": parked.next_try_at,
            "reopenedAt": parked.at,
        },
        "$unset": {"closedAt": ""},
    }


def _context(parked_id: str, part: str) -> bytes:
    return f"parked {part} {parked_id}".encode()
