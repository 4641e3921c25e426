"""Contents of mails, encrypted, in MongoDB up to 200 kB and in S3 above that.

One document per (message id, sha256), insert-only: `{_id, messageId, category, kind, size, touchedAt, kept, sealed |
object, expiresAt? | endsAt?}`. What is kept lives for its category's retention after its mail is over: until
`expiresAt`, when MongoDB's TTL index removes it, or where there is an object until `endsAt`, when a sweep removes both.
An object belongs to one document only (its key holds a random part), so that deleting for one never takes what another
has just stored.

The bucket has one lifecycle rule, which deletes every object at an age (`ContentRetentionDays`, at least 400): it is
there for objects that no document names, after a crash between S3 and MongoDB. Nothing that is needed may become as old
as that, so what may still be sent in more than `OBJECT_HORIZON` lies in MongoDB, whatever its size. Likewise the sealed
bodies of commands, so that no lane waits for S3, and what S3 does not take because it is away or refuses us.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pymongo import ASCENDING, InsertOne, UpdateOne
from pymongo.errors import BulkWriteError, OperationFailure

from contracts.email.values import Category, ContentRef
from services.email.adapters.objects import REFUSED_SECONDS, Objects
from services.email.ports import ContentKey, NewContent, ReviewedTo, StoredContent
from services.kit.clock import Clock
from services.kit.crypto import Cipher
from services.kit.errors import KeyUnknown, PermanentError, TransientError, Unavailable
from services.kit.logs import get_logger
from services.kit.mongo import DUPLICATE_KEY, Collection, Database, Document, foreign_errors

log = get_logger(__name__)

INLINE_BYTES = 200_000
"""Contents up to this size lie in MongoDB, larger ones in S3."""

MOST_INLINE_BYTES = 15_000_000
"""What fits into a document of MongoDB (16 MiB) at all."""

OBJECT_HORIZON = timedelta(days=30)
"""With the longest retention it stays below the age at which the bucket's rule deletes an object."""

KEPT_FOR = timedelta(hours=1)
"""An object that S3 did not delete is left alone for so long."""

RETENTION: Mapping[Category, timedelta] = {
    "auth": timedelta(days=1),
    "notification": timedelta(days=90),
    "marketing": timedelta(days=30),
    "system": timedelta(days=90),
    "client-portal": timedelta(days=365),
}
"""How long a kept content lives after its mail is over. `auth` is normally gone much earlier: when nobody is queued,
open or unknown."""


class MongoContentStore:
    """A `ContentStore`. `s3` is an entered `kit.aws.s3_client`."""

    def __init__(
        self,
        database: Database,
        s3: Any,
        bucket: str,
        cipher: Cipher,
        clock: Clock,
        *,
        retention: Mapping[Category, timedelta] = RETENTION,
    ) -> None:
        self._contents: Collection = database["contents"]
        self._objects = Objects(s3, bucket, clock)
        self._cipher, self._clock = cipher, clock
        self._retention = retention

    async def prepare(self) -> None:
        """Make the indexes; safe to repeat."""
        with foreign_errors():
            await self._contents.create_index([("messageId", ASCENDING)], name="message")
            await self._contents.create_index([("kept", ASCENDING), ("touchedAt", ASCENDING)], name="review")
            await self._contents.create_index([("category", ASCENDING), ("touchedAt", ASCENDING)], name="category")
            await self._contents.create_index([("expiresAt", ASCENDING)], name="retention", expireAfterSeconds=0)
            await self._contents.create_index([("endsAt", ASCENDING)], name="objects", sparse=True)

    async def put_many(self, items: Sequence[NewContent]) -> list[ContentRef]:
        """Store all, durable when it returns; see the port."""
        if not items:
            return []
        now = self._clock.now()
        refs = [_ref(item) for item in items]
        unique = {(item.message_id, ref.ref): (item, ref) for item, ref in zip(items, refs, strict=True)}
        documents = await asyncio.gather(*(self._document(item, ref) for item, ref in unique.values()))
        for document in documents:
            document |= {"_id": _id(document["messageId"], document["ref"]), "touchedAt": now}
        inserted = await self._insert(documents)
        superfluous = [
            document["object"]
            for n, document in enumerate(documents)
            if n not in inserted and document.get("object") is not None
        ]
        await self._let_go(superfluous)
        return refs

    async def get_many(self, keys: Sequence[ContentKey]) -> dict[ContentKey, bytes | TransientError]:
        """Read and decrypt; see the port. S3 keeps nobody waiting for longer than `objects.READ_SECONDS`."""
        by_id = {_id(key.message_id, key.ref): key for key in keys}
        with foreign_errors():
            found = await self._contents.find(
                {"_id": {"$in": list(by_id)}}, {"sealed": 1, "object": 1, "messageId": 1}
            ).to_list(None)
        opened = await asyncio.gather(*(self._open(document) for document in found))
        return {
            by_id[document["_id"]]: plain for document, plain in zip(found, opened, strict=True) if plain is not None
        }

    async def delete_messages(self, message_ids: Sequence[str]) -> None:
        """Delete every content of these messages; the large ones last, a document only when its object is gone."""
        if not message_ids:
            return
        chosen = {"messageId": {"$in": list(message_ids)}}
        with foreign_errors():
            await self._contents.delete_many({**chosen, "object": {"$exists": False}})
            large = await self._contents.find(chosen, {"object": 1}).to_list(None)
        await self._delete_large([document for document in large if "object" in document])

    async def to_review(
        self,
        touched_before: datetime,
        limit: int,
        *,
        categories: Sequence[Category] | None = None,
        after: ReviewedTo | None = None,
    ) -> list[StoredContent]:
        """Contents last put before that time, oldest first; see the port."""
        wanted: Document = {"touchedAt": {"$lt": touched_before}}
        wanted |= {"kept": False} if categories is None else {"category": {"$in": list(categories)}}
        if after is not None:
            wanted["touchedAt"]["$gte"] = after.touched_at
            wanted["_id"] = {"$nin": [_id(key.message_id, key.ref) for key in after.keys]}
        with foreign_errors():
            found = (
                await self._contents.find(wanted, {"sealed": 0}).sort("touchedAt", ASCENDING).limit(limit).to_list(None)
            )
        return [
            StoredContent(
                ContentKey(document["messageId"], document["ref"]),
                document["category"],
                document["kind"],
                document["touchedAt"],
            )
            for document in found
        ]

    async def keep(self, since: Mapping[ContentKey, datetime]) -> None:
        """A stream names these: they live for their category's retention from the times given."""
        if not since:
            return
        lasts = {
            "branches": [
                {"case": {"$eq": ["$category", category]}, "then": int(period / timedelta(milliseconds=1))}
                for category, period in self._retention.items()
            ]
        }
        inline = {"$eq": [{"$type": "$object"}, "missing"]}
        keeping: list[UpdateOne] = []
        for key, begin in since.items():
            end = {"$add": [begin, {"$switch": lasts}]}
            ends = {
                "expiresAt": {"$cond": [inline, end, "$$REMOVE"]},
                "endsAt": {"$cond": [inline, "$$REMOVE", end]},
            }
            keeping.append(
                UpdateOne({"_id": _id(key.message_id, key.ref), "kept": False}, [{"$set": {"kept": True, **ends}}])
            )
        with foreign_errors():
            await self._contents.bulk_write(keeping, ordered=False)

    async def end_retention(self, limit: int) -> int:
        """Delete objects whose retention is over, then their documents; see the port."""
        with foreign_errors():
            over = (
                await self._contents.find({"endsAt": {"$lte": self._clock.now()}}, {"object": 1})
                .limit(limit)
                .to_list(None)
            )
        await self._delete_large(over)
        return len(over)

    async def discard(self, keys: Sequence[ContentKey], touched_before: datetime) -> int:
        """Delete those that were not put again since; the document first, so that a late put stores it anew.

        While S3 is away the large ones are left for another time.
        """
        objects: list[str] = []
        gone = 0
        for key in keys:
            chosen: Document = {"_id": _id(key.message_id, key.ref), "touchedAt": {"$lt": touched_before}}
            if self._objects.away:
                chosen["object"] = {"$exists": False}
            with foreign_errors():
                document = await self._contents.find_one_and_delete(chosen, projection={"object": 1})
            if document is not None:
                gone += 1
                objects += [document["object"]] if document.get("object") else []
        await self._let_go(objects)
        return gone

    # --- inside --------------------------------------------------------------------------------------------------

    async def _document(self, item: NewContent, ref: ContentRef) -> Document:
        document: Document = {
            "messageId": item.message_id,
            "ref": ref.ref,
            "category": item.category,
            "kind": item.kind,
            "size": ref.size,
            "kept": False,
        }
        sealed = self._cipher.seal(item.data, _context(item.message_id, ref.ref))
        fits = len(sealed) <= MOST_INLINE_BYTES
        if len(item.data) <= INLINE_BYTES or (fits and self._belongs_inline(item)):
            return {**document, "sealed": sealed}
        name = f"content/{item.category}/{item.message_id}/{ref.sha256[:16]}-{os.urandom(8).hex()}"
        try:
            await self._objects.put(name, sealed)
        except Unavailable:
            if not fits:
                raise
            return {**document, "sealed": sealed}
        return {**document, "object": name}

    def _belongs_inline(self, item: NewContent) -> bool:
        late = item.needed_until is not None and item.needed_until > self._clock.now() + OBJECT_HORIZON
        return late or item.kind == "sealed"

    async def _insert(self, documents: Sequence[Document]) -> set[int]:
        """Which of them were inserted; those that stand already are touched, and stored after all if they went since.

        Plain inserts first: a bulk of them costs MongoDB a fraction of as many upserts, and next to nothing is stored
        twice.
        """
        failures, _ = await self._write([InsertOne(document) for document in documents])
        inserted = set(range(len(documents))) - set(failures)
        standing = {
            n: UpdateOne(
                {"_id": document["_id"]},
                {"$set": {"touchedAt": document["touchedAt"]}, "$setOnInsert": _untouched(document)},
                upsert=True,
            )
            for n, document in ((n, documents[n]) for n in failures)
        }
        # Two upserts of one `_id` at once give the loser an E11000: it is tried again.
        for _ in range(2):
            numbers = list(standing)
            failures, stored = await self._write(list(standing.values()))
            inserted |= {numbers[n] for n in stored}
            standing = {numbers[n]: standing[numbers[n]] for n in failures}
        if standing:
            raise Unavailable("MongoDB", "contents could not all be stored")
        return inserted

    async def _write(self, operations: Sequence[InsertOne[Document] | UpdateOne]) -> tuple[list[int], set[int]]:
        """Indexes of those whose `_id` stands already, and of upserts that inserted. Raises Unavailable for any other
        failure.
        """
        if not operations:
            return [], set()
        try:
            with foreign_errors():
                result = await self._contents.bulk_write(list(operations), ordered=False)
        except BulkWriteError as error:
            details: dict[str, Any] = dict(error.details or {})
            failures = details.get("writeErrors", [])
            if any(failure.get("code") != DUPLICATE_KEY for failure in failures) or details.get("writeConcernErrors"):
                raise Unavailable("MongoDB", "contents could not all be stored") from error
            upserted = {entry["index"] for entry in details.get("upserted", ())}
            return [failure["index"] for failure in failures], upserted
        except OperationFailure as error:  # a full disk, a quota: an operator's business
            raise Unavailable("MongoDB", f"takes no contents (code {error.code})") from error
        return [], set(result.upserted_ids or {})

    async def _open(self, document: Document) -> bytes | TransientError | None:
        sealed = document.get("sealed")
        if sealed is None:
            try:
                sealed = await self._objects.get(document["object"])
            except TransientError as error:
                return error
        if sealed is None:
            return None
        message_id, _, ref = str(document["_id"]).partition("/")
        try:
            return self._cipher.open(bytes(sealed), _context(message_id, ref))
        except KeyUnknown as error:
            return error
        except PermanentError as error:
            log.warning("content.cannotBeOpened", aggregate_id=message_id, reason=error.reason)
            return None

    async def _delete_large(self, documents: Sequence[Document]) -> None:
        """The objects first: while S3 is away their documents stay, and the next try finds them. So does the document
        of each object that S3 keeps; then, once the others are gone, Unavailable. Those whose retention is over come
        again after `KEPT_FOR`, so that however many there are, others have their turn.
        """
        if not documents:
            return
        kept = await self._objects.delete([document["object"] for document in documents])
        with foreign_errors():
            gone = [document["_id"] for document in documents if document["object"] not in kept]
            await self._contents.delete_many({"_id": {"$in": gone}})
            if kept:
                left = [document["_id"] for document in documents if document["object"] in kept]
                over = {"_id": {"$in": left}, "endsAt": {"$exists": True}}
                await self._contents.update_many(over, {"$max": {"endsAt": self._clock.now() + KEPT_FOR}})
        if kept:
            codes = ", ".join(sorted(set(kept.values())))
            raise Unavailable("S3", f"did not delete {len(kept)} object(s) ({codes})", retry_after=REFUSED_SECONDS)

    async def _let_go(self, names: Sequence[str]) -> None:
        """Delete objects that no document names. Those that S3 keeps now go by the bucket's rule."""
        try:
            kept = await self._objects.delete(names)
        except TransientError as error:
            log.warning("content.objectsLeft", objects=len(names), error=str(error))
        else:
            if kept:
                log.warning("content.objectsLeft", objects=len(kept), codes=sorted(set(kept.values())))


def _ref(item: NewContent) -> ContentRef:
    sha256 = hashlib.sha256(item.data).hexdigest()
    return ContentRef(ref=f"{item.kind}:{sha256}", sha256=sha256, size=len(item.data))


def _untouched(document: Document) -> Document:
    return {name: value for name, value in document.items() if name not in ("_id", "touchedAt")}


def _id(message_id: str, ref: str) -> str:
    return f"{message_id}/{ref}"


def _context(message_id: str, ref: str) -> bytes:
    """Bound to its place: sealed bytes moved under another message do not open."""
    return f"content {message_id} {ref}".encode()
