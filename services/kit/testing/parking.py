"""A parking lot in memory; it passes the same suite as the one in MongoDB."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from services.kit.errors import Unavailable
from services.kit.parking import ParkedFilter, ParkedPage, ParkedRecord, ParkKind
from services.kit.parking_mongo import decode_cursor, encode_cursor


class MemoryParkingLot:
    """A `ParkingLot` that forgets with the process. `away = True` makes every call raise Unavailable."""

    def __init__(self) -> None:
        self._records: dict[str, ParkedRecord] = {}
        self.away = False

    async def park(self, records: Sequence[ParkedRecord]) -> None:
        self._reach()
        for parked in records:
            at = _milliseconds(parked.at)
            known = self._records.get(parked.id)
            if known is None:
                next_try_at = None if parked.next_try_at is None else _milliseconds(parked.next_try_at)
                self._records[parked.id] = replace(parked, at=at, next_try_at=next_try_at)
            elif known.status == "retried":
                self._records[parked.id] = replace(
                    known,
                    status="parked",
                    reason=parked.reason,
                    kind=parked.kind,
                    detail=parked.detail,
                    error_class=parked.error_class,
                    kept=parked.kept,
                    next_try_at=parked.next_try_at,
                    closed_at=None,
                )

    async def list(self, where: ParkedFilter, *, limit: int = 50, cursor: str | None = None) -> ParkedPage:
        self._reach()
        before = None if cursor is None else decode_cursor(cursor)
        found = sorted(
            (
                replace(parked, raw=None, stack="")
                for parked in self._records.values()
                if _matches(parked, where) and (before is None or (parked.at, parked.id) < before)
            ),
            key=lambda parked: (parked.at, parked.id),
            reverse=True,
        )
        records = tuple(found[:limit])
        return ParkedPage(records, encode_cursor(records[-1]) if len(found) > limit else None)

    async def show(self, parked_id: str) -> ParkedRecord | None:
        self._reach()
        return self._records.get(parked_id)

    async def find(self, parked_id: str) -> ParkedRecord | None:
        found = await self.show(parked_id)
        return None if found is None else replace(found, raw=None, stack="")

    async def known(self, parked_ids: Collection[str]) -> set[str]:
        self._reach()
        return self._records.keys() & set(parked_ids)

    async def left_out(
        self, consumer: str, topic: str, spans: Mapping[int, tuple[int, int]]
    ) -> Mapping[tuple[int, int], str]:
        self._reach()
        return {
            (each.partition, each.offset): each.reason
            for each in self._records.values()
            if (each.consumer, each.topic) == (consumer, topic)
            and each.partition in spans
            and spans[each.partition][0] <= each.offset <= spans[each.partition][1]
            and each.status in ("parked", "discarded")
            and not each.kept
        }

    async def any_from(self, consumer: str, topic: str, offsets: Mapping[int, int]) -> bool:
        self._reach()
        return any(
            (each.consumer, each.topic) == (consumer, topic)
            and each.partition in offsets
            and each.offset >= offsets[each.partition]
            for each in self._records.values()
        )

    async def mark_retried(self, parked_id: str, *, at: datetime, by: str = "") -> bool:
        return self._change(
            parked_id,
            lambda parked: {
                "status": "retried",
                "closed_at": _milliseconds(at),
                "closed_by": by,
                "closed_reason": "",
                "next_try_at": None,
                "tries": parked.tries + 1,
            },
        )

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
        return self._change(
            parked_id,
            lambda parked: {
                "last_error": error,
                "next_try_at": None if next_try_at is None else _milliseconds(next_try_at),
                "tries": parked.tries + 1,
                "reason": parked.reason if reason is None else reason,
                "kind": parked.kind if kind is None else kind,
                "kept": parked.kept if kept is None else kept,
            },
        )

    async def discard(self, parked_id: str, *, reason: str, by: str, at: datetime) -> bool:
        return self._change(
            parked_id,
            lambda _: {
                "status": "discarded",
                "closed_at": _milliseconds(at),
                "closed_by": by,
                "closed_reason": reason,
                "next_try_at": None,
            },
        )

    async def claim_due(
        self, kind: ParkKind, consumer: str, *, now: datetime, since: datetime, lease_until: datetime, limit: int
    ) -> Sequence[ParkedRecord]:
        self._reach()
        due = [
            parked
            for parked in self._records.values()
            if parked.status == "parked"
            and (parked.kind, parked.consumer) == (kind, consumer)
            and parked.at >= since
            and parked.next_try_at is not None
            and parked.next_try_at <= now
        ]
        due.sort(key=lambda parked: parked.next_try_at or now)
        for parked in due[:limit]:
            self._records[parked.id] = replace(parked, next_try_at=_milliseconds(lease_until))
        return due[:limit]

    async def counts(self) -> Mapping[tuple[str, ParkKind], int]:
        self._reach()
        counts: dict[tuple[str, ParkKind], int] = {}
        for parked in self._records.values():
            if parked.status == "parked":
                key = (parked.consumer, parked.kind)
                counts[key] = counts.get(key, 0) + 1
        return counts

    def all(self) -> Sequence[ParkedRecord]:
        """Every record ever parked, whatever its status, for a test's eyes."""
        return list(self._records.values())

    def _change(self, parked_id: str, fields: Any) -> bool:
        self._reach()
        parked = self._records.get(parked_id)
        if parked is None or parked.status != "parked":
            return False
        self._records[parked_id] = replace(parked, **fields(parked))
        return True

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("parking", "switched off by the test")


def _matches(parked: ParkedRecord, where: ParkedFilter) -> bool:
    return all(
        wanted is None or getattr(parked, name) == wanted
        for name in ("consumer", "topic", "kind", "reason", "status")
        for wanted in (getattr(where, name),)
    )


def _milliseconds(at: datetime) -> datetime:
    """As a BSON date keeps it."""
    return at.replace(microsecond=at.microsecond // 1000 * 1000)
