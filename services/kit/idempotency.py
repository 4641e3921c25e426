"""Idempotency keys: one intended creation, one id, however often it is asked for.

The id is reserved before anything else happens, so a crash at any later point leaves an id under which everything can
be done again. A reservation is only ever inserted, never changed.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Protocol

import orjson
from pymongo.errors import DuplicateKeyError

from services.kit.clock import Clock
from services.kit.errors import Unavailable
from services.kit.mongo import Database, foreign_errors

KEPT = timedelta(hours=48)
"""How long a reservation stands at least."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """The id to use. `repeated`: it was reserved before, by the same request with the same body."""

    id: str
    repeated: bool


@dataclass(frozen=True, slots=True)
class ConflictingBody:
    """The key was used with another body; `id` is what that one got. Answer 409."""

    id: str


Reservation = Reserved | ConflictingBody


class IdempotencyKeys(Protocol):
    """Where reservations are kept."""

    async def reserve(self, user: str, route: str, key: str, body_hash: str, new_id: str) -> Reservation:
        """Reserve `new_id` under (user, route, key), or tell what is reserved there.

        Of several at once exactly one gets `repeated=False`. Once this returns, a majority knows it. Raises
        Unavailable, after which the same call may be made again with another `new_id`.
        """
        ...


class MemoryIdempotencyKeys:
    """In this process only, for tests."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: dict[str, tuple[datetime, str, str]] = {}

    async def reserve(self, user: str, route: str, key: str, body_hash: str, new_id: str) -> Reservation:
        place = _place(user, route, key)
        found = self._kept.get(place)
        if found is None or self._clock.now() - found[0] > KEPT:
            self._kept[place] = (self._clock.now(), new_id, body_hash)
            return Reserved(new_id, repeated=False)
        return _repeat(found[1], found[2], body_hash)


class MongoIdempotencyKeys:
    """In the collection `idempotency_keys`, dropped by a TTL index."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._keys = database["idempotency_keys"]
        self._clock = clock

    async def prepare(self) -> None:
        """Make the index by which MongoDB forgets. Needed once; harmless again."""
        with foreign_errors():
            await self._keys.create_index("at", expireAfterSeconds=int(KEPT.total_seconds()), name="forget")

    async def reserve(self, user: str, route: str, key: str, body_hash: str, new_id: str) -> Reservation:
        place = _place(user, route, key)
        fresh = {"_id": place, "id": new_id, "bodyHash": body_hash, "at": self._clock.now()}
        for pause in (0.0, 0.02, 0.1, 0.5, None):
            with foreign_errors():
                try:
                    await self._keys.insert_one(dict(fresh))
                except DuplicateKeyError:
                    found = await self._keys.find_one({"_id": place})
                else:
                    return Reserved(new_id, repeated=False)
            if found is not None:
                return _repeat(found["id"], found["bodyHash"], body_hash)
            # Refused, yet not to be read: just forgotten, or written by another and not acknowledged by a majority
            # yet.
            if pause is not None:
                await self._clock.sleep(pause)
        raise Unavailable("MongoDB", "a reservation made by another request is not acknowledged yet", retry_after=1)


def body_hash(body: Any) -> str:
    """A hash of a JSON-ready body that does not depend on the order of its fields."""
    return sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _place(user: str, route: str, key: str) -> str:
    """One short text for the three, whatever characters they hold."""
    return sha256(orjson.dumps([user, route, key])).hexdigest()


def _repeat(found_id: str, found_hash: str, body_hash: str) -> Reservation:
    return Reserved(found_id, repeated=True) if found_hash == body_hash else ConflictingBody(found_id)
