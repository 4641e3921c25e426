"""What processes tell each other of providers, and what operators order, in MongoDB, by the server's clock alone.

`providers`: {_id: "circuit/<provider>", until, reason, probeUntil, prober}, {_id: "off/<provider>", actor, at, why},
{_id: "pin/<category or template:id>", provider, actor, at, why}. A few documents, read whole.
"""

from __future__ import annotations

from typing import Any, Final

from services.email.ports import Board, Order, Shut
from services.kit.mongo import Database, Document, foreign_errors

COLLECTION: Final = "providers"
_CIRCUIT, _OFF, _PIN = "circuit/", "off/", "pin/"


class MongoProviderBoard:
    """A `ProviderBoard`."""

    def __init__(self, database: Database) -> None:
        self._board = database[COLLECTION]

    async def read(self) -> Board:
        shut: dict[str, Shut] = {}
        off: dict[str, Order] = {}
        pins: dict[str, Order] = {}
        left = {"$subtract": ["$until", "$$NOW"]}
        with foreign_errors():
            found = await (await self._board.aggregate([{"$addFields": {"left": left}}])).to_list(None)
        for each in found:
            kind, _, name = each["_id"].partition("/")
            if f"{kind}/" == _CIRCUIT:
                shut[name] = Shut(each["left"] / 1000, each["reason"])
            elif f"{kind}/" == _OFF:
                off[name] = Order(name, each["actor"], each["at"], each["why"])
            elif f"{kind}/" == _PIN:
                pins[name] = Order(each["provider"], each["actor"], each["at"], each["why"])
        return Board(shut, off, pins)

    async def shut(self, provider: str, seconds: float, reason: str) -> None:
        until = {"$max": ["$until", _in(seconds)]}
        changed: Document = {"until": until, "reason": {"$literal": reason}, "probeUntil": _in(0), "prober": None}
        with foreign_errors():
            await self._board.update_one({"_id": _CIRCUIT + provider}, [{"$set": changed}], upsert=True)

    async def take_probe(self, provider: str, owner: str, seconds: float) -> bool:
        over = {"$and": [{"$lte": ["$until", "$$NOW"]}, {"$lte": ["$probeUntil", "$$NOW"]}]}
        taken: Document = {"probeUntil": _in(seconds), "prober": {"$literal": owner}}
        with foreign_errors():
            done = await self._board.update_one({"_id": _CIRCUIT + provider, "$expr": over}, [{"$set": taken}])
        return done.modified_count == 1

    async def leave_probe(self, provider: str, owner: str) -> None:
        with foreign_errors():
            await self._board.update_one(
                {"_id": _CIRCUIT + provider, "prober": owner}, [{"$set": {"probeUntil": "$$NOW", "prober": None}}]
            )

    async def reopen(self, provider: str) -> None:
        with foreign_errors():
            await self._board.delete_one({"_id": _CIRCUIT + provider})

    async def switch_off(self, provider: str, actor: str, why: str) -> None:
        order: Document = {"actor": {"$literal": actor}, "at": "$$NOW", "why": {"$literal": why}}
        first = [{"$replaceWith": {"$mergeObjects": [order, "$$ROOT"]}}]
        with foreign_errors():
            await self._board.update_one({"_id": _OFF + provider}, first, upsert=True)

    async def switch_on(self, provider: str) -> bool:
        with foreign_errors():
            return (await self._board.delete_one({"_id": _OFF + provider})).deleted_count == 1

    async def pin(self, what: str, provider: str, actor: str, why: str) -> None:
        said = {"provider": provider, "actor": actor, "why": why}
        order: Document = {**{name: {"$literal": value} for name, value in said.items()}, "at": "$$NOW"}
        with foreign_errors():
            await self._board.update_one({"_id": _PIN + what}, [{"$set": order}], upsert=True)

    async def unpin(self, what: str) -> bool:
        with foreign_errors():
            return (await self._board.delete_one({"_id": _PIN + what})).deleted_count == 1


def _in(seconds: float) -> dict[str, Any]:
    return {"$add": ["$$NOW", round(seconds * 1000)]}
