"""What was sent, kept in memory for tests to read: the newest, up to a limit of bytes."""

from base64 import b64encode
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from deploy.local.simulator.events import timestamp
from deploy.local.simulator.mime import decoded
from deploy.local.simulator.submission import Submission


@dataclass(frozen=True, slots=True)
class Kept:
    """One accepted mail."""

    provider_message_id: str
    at: datetime
    submission: Submission

    def describe(self, *, raw: bool) -> dict[str, Any]:
        submission = self.submission
        told: dict[str, Any] = {
            "providerMessageId": self.provider_message_id,
            "at": timestamp(self.at),
            "source": submission.source,
            "destination": submission.destination,
            "subject": decoded(submission.parsed.first("subject") or ""),
            "configurationSet": submission.configuration_set,
            "tags": submission.tags,
            "size": len(submission.raw),
        }
        if raw:
            told["raw"] = b64encode(submission.raw).decode()
        return told


_OVERHEAD = 3000
"""Bytes that a mail takes beside its MIME: headers as they were read, tags, ids."""


class Mailbox:
    """Keeps at most `limit` bytes of mail; the oldest goes first, the newest stays in any case."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[str, Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, kept: Kept) -> None:
        self._kept[kept.provider_message_id] = kept
        self._size += len(kept.submission.raw) + _OVERHEAD
        while self._size > self._limit and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._size -= len(gone.submission.raw) + _OVERHEAD

    def get(self, provider_message_id: str) -> Kept | None:
        return self._kept.get(provider_message_id)

    def find(self, to: str | None, limit: int) -> list[Kept]:
        """The newest `limit` mails, to this envelope recipient if one is given, oldest of them first."""
        found: list[Kept] = []
        for kept in self._newest_first():
            if to is None or any(to.lower() == address.lower() for address in kept.submission.destination):
                found.append(kept)
                if len(found) == limit:
                    break
        return found[::-1]

    def clear(self) -> None:
        self._kept.clear()
        self._size = 0

    def _newest_first(self) -> Iterator[Kept]:
        return iter(reversed(self._kept.values()))
