"""What email has to know of files it hears like anybody else: decisions on `files.events`, folded into `files_known`.

One group for the service, in the processes that settle: what is known of a file is one document for all senders, which
only read it. In every sender a group would be one more rebalance at each of their starts, and senders are started and
stopped with the load; what settlers do is as much work whoever sends.

A batch may come again, and so may any old record: the fold bears both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contracts.envelope import Envelope
from contracts.errors import ContractError
from contracts.registry import EVENTS, read_json
from services.email.domain.files import KnownFile, evolve
from services.email.ports import KnownFiles
from services.kit.errors import PermanentError, TransientError
from services.kit.kafka.codec import decode
from services.kit.kafka.records import DONE, Outcome, Park, Record, Retry

ROUNDS = 4
"""How often files whose race was lost are folded again before their records are handed back."""

_DECISIONS = frozenset(name for name, event in EVENTS.items() if event.kind == "decision" and name.startswith("file."))


class FilesFollower:
    """Batch handler of the group that reads `files.events`."""

    def __init__(self, files: KnownFiles) -> None:
        self._files = files

    async def __call__(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """One outcome a record, in order: done when what it says stands in the fold, by a majority."""
        outcomes: list[Outcome] = [DONE] * len(records)
        heard: dict[str, list[tuple[int, Envelope]]] = {}
        for n, record in enumerate(records):
            read = _read(record)
            if isinstance(read, Park):
                outcomes[n] = read
            elif read is not None:
                heard.setdefault(read.subject, []).append((n, read))
        waiting: Mapping[str, TransientError]
        try:
            waiting = await self._keep({file_id: [each for _, each in found] for file_id, found in heard.items()})
        except TransientError as away:
            waiting = dict.fromkeys(heard, away)
        for file_id, why in waiting.items():
            for n, _ in heard[file_id]:
                outcomes[n] = Retry(why)
        return outcomes

    async def _keep(self, heard: Mapping[str, Sequence[Envelope]]) -> Mapping[str, TransientError]:
        """Fold them in; the files of which others keep writing, with the reason to come again."""
        going = set(heard)
        for _ in range(ROUNDS):
            changes: list[tuple[KnownFile, KnownFile]] = []
            for file_id, before in (await self._files.load_many(going)).items():
                after = before
                for event in heard[file_id]:
                    assert event.streamversion is not None  # noqa: S101 - `_read` has looked
                    after = evolve(after, event.data, event.streamversion)
                if after != before:
                    changes.append((before, after))
            going = await self._files.save_many(changes)
            if not going:
                return {}
        return dict.fromkeys(going, TransientError("others keep writing what is known of this file", retry_after=0.1))


def _read(record: Record) -> Envelope | Park | None:
    """A decision on a file; None for all else, which is told by its type alone."""
    try:
        if read_json(record.value).get("type") not in _DECISIONS:
            return None
        event = decode(record)
    except (ContractError, PermanentError) as error:
        return Park(error.reason, kind="poison", detail=error.detail)
    if event.streamversion is None:
        return Park("invalid", kind="poison", detail="a decision carries its place in the stream, streamversion")
    return event
