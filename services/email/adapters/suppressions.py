"""Who must not be written to, read from the recipients' own streams: no copy that could be behind."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from contracts.recipients.events import SuppressionReason
from services.email.domain.recipient import Recipient, fold
from services.email.ports import Blocked, RecipientKeys, SuppressionQuery
from services.kit.errors import PermanentError
from services.kit.event_store.port import EventStore
from services.kit.logs import get_logger

log = get_logger(__name__)


class StreamSuppressionList:
    """A `SuppressionList` over the event store, whose reads are majority reads from the primary."""

    def __init__(self, streams: EventStore, keys: RecipientKeys) -> None:
        self._streams, self._keys = streams, keys

    async def blocked(self, queries: Sequence[SuppressionQuery], now: datetime) -> list[Blocked]:
        """See the port. A recipient whose stream this build cannot read is not known to be free."""
        key_of = {address: self._keys.key(address) for query in queries for address in query.addresses}
        streams = await self._streams.load_many(set(key_of.values()))
        states: dict[str, Recipient] = {}
        unreadable: set[str] = set()
        for key, stream in streams.items():
            try:
                states[key] = fold(stream.events)
            except PermanentError as error:
                unreadable.add(key)
                log.error("a recipient's stream cannot be read", aggregate_id=key, error=str(error))  # noqa: TRY400
        found: list[Blocked] = []
        for query in queries:
            unknown = frozenset(address for address in query.addresses if key_of[address] in unreadable)
            suppressed: dict[str, SuppressionReason] = {}
            for address in query.addresses:
                state = states.get(key_of[address])
                reason = None if state is None else state.blocks(query.category, query.list_id, now)
                if reason is not None:
                    suppressed[address] = reason
            found.append(Blocked(suppressed, unknown))
        return found
