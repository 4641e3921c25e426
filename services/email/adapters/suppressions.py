"""Who must not be written to, read from the recipients' own streams: no copy that could be behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from contracts.recipients.events import SuppressionReason
from services.email.domain.recipient import fold
from services.email.ports import RecipientKeys, SuppressionQuery
from services.kit.errors import PermanentError, Unavailable
from services.kit.event_store.port import EventStore


class StreamSuppressionList:
    """A `SuppressionList` over the event store, whose reads are majority reads from the primary."""

    def __init__(self, streams: EventStore, keys: RecipientKeys) -> None:
        self._streams, self._keys = streams, keys

    async def blocked(self, queries: Sequence[SuppressionQuery], now: datetime) -> list[dict[str, SuppressionReason]]:
        """See the port. A recipient whose stream this build cannot read is not known to be free: Unavailable."""
        key_of = {address: self._keys.key(address) for query in queries for address in query.addresses}
        streams = await self._streams.load_many(set(key_of.values()))
        try:
            states = {key: fold(stream.events) for key, stream in streams.items() if stream.version}
        except PermanentError as error:
            raise Unavailable("suppression list", f"{error.reason}: a recipient's stream cannot be read") from error
        found: list[dict[str, SuppressionReason]] = []
        for query in queries:
            blocked: dict[str, SuppressionReason] = {}
            for address in query.addresses:
                state = states.get(key_of[address])
                reason = None if state is None else state.blocks(query.category, query.list_id, now)
                if reason is not None:
                    blocked[address] = reason
            found.append(blocked)
        return found
