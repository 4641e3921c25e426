"""Tokens of webhooks that were used, in MongoDB."""

from __future__ import annotations

from pymongo.errors import DuplicateKeyError

from services.email.domain.webhooks import OneUse
from services.kit.clock import Clock
from services.kit.errors import Unavailable
from services.kit.mongo import Database, foreign_errors


class MongoUsedTokens:
    """`UsedTokens` in the collection `webhook_tokens`, dropped by a TTL index once each is refused for its age."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._tokens = database["webhook_tokens"]
        self._clock = clock

    async def prepare(self) -> None:
        """Make the index by which MongoDB forgets. Needed once; harmless again."""
        with foreign_errors():
            await self._tokens.create_index("until", expireAfterSeconds=0, name="forget")

    async def body_of(self, token: str) -> str | None:
        with foreign_errors():
            found = await self._tokens.find_one({"_id": token})
        return None if found is None else str(found["bodyHash"])

    async def record(self, use: OneUse) -> str:
        for pause in (0.0, 0.02, 0.1, 0.5, None):
            with foreign_errors():
                try:
                    await self._tokens.insert_one({"_id": use.token, "bodyHash": use.body_hash, "until": use.until})
                except DuplicateKeyError:
                    found = await self.body_of(use.token)
                else:
                    return use.body_hash
            if found is not None:
                return found
            # Refused, yet not to be read: just forgotten, or written by another and not acknowledged by a majority yet.
            if pause is not None:
                await self._clock.sleep(pause)
        raise Unavailable("MongoDB", "a token used by another request is not acknowledged yet", retry_after=1)
