"""Files that mails attach by `fileId`: looked up before each attempt, read once all of a mail's are usable.

A mail whose file may yet become usable waits alone, put off like one whose content cannot be had. How long is counted
from what its stream says, so that nothing has to be written down for it, and a crash changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from services.email.domain.files import Never, NotYet, Usable, judge
from services.email.domain.message import Policy, files_until
from services.email.entrypoints.sender_work import Work
from services.email.ports import FileBytes, KnownFiles
from services.kit.clock import Clock
from services.kit.errors import TransientError

WAITS = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between two looks, longer for a mail that has waited for long: many of them cost little then."""


@dataclass(slots=True)
class Looked:
    """What a look at the files of some mails shows.

    Attributes:
        usable: by file id; of mails that are in neither of the others.
        never: mails that can never be sent, with why.
        waiting: seconds until another look → mails.
    """

    usable: dict[str, Usable] = field(default_factory=dict)
    never: dict[Work, str] = field(default_factory=dict)
    waiting: dict[float, list[Work]] = field(default_factory=dict)

    def stops(self, work: Work) -> bool:
        """Whether this mail cannot be sent now."""
        return work in self.never or any(work in works for works in self.waiting.values())


class AttachedFiles:
    """Judges and reads the files of mails at hand. `most_bytes`: of all attachments of one mail."""

    def __init__(
        self, known: KnownFiles, file_bytes: FileBytes, policy: Policy, clock: Clock, *, most_bytes: int
    ) -> None:
        self._known, self._bytes, self._policy, self._clock = known, file_bytes, policy, clock
        self._most_bytes = most_bytes

    async def sizes(self, file_ids: Collection[str]) -> dict[str, int]:
        """Bytes of each, once decoded, by what was heard; 0 of one that was not verified yet. Raises Unavailable."""
        known = await self._known.load_many(file_ids) if file_ids else {}
        return {file_id: known[file_id].original_size or known[file_id].size or 0 for file_id in file_ids}

    async def look(self, works: Sequence[Work]) -> Looked:
        """Whether each of them, whose content is at hand, may go with its files now. Raises Unavailable."""
        looked = Looked()
        attaching = [work for work in works if work.file_ids()]
        if not attaching:
            return looked
        known = await self._known.load_many({file_id for work in attaching for file_id in work.file_ids()})
        for work in attaching:
            message = work.held.message
            verdicts = {
                file_id: judge(known[file_id], message.request.user_id, message.requested_by)
                for file_id in work.file_ids()
            }
            never = [_says(file_id, each.why) for file_id, each in verdicts.items() if isinstance(each, Never)]
            not_yet = [_says(file_id, each.why) for file_id, each in verdicts.items() if isinstance(each, NotYet)]
            usable = {file_id: each for file_id, each in verdicts.items() if isinstance(each, Usable)}
            if never:
                looked.never[work] = never[0]
            elif not_yet:
                self._wait(work, not_yet[0], looked)
            elif (size := _size(work, usable)) > self._most_bytes:
                looked.never[work] = (
                    f"the attachments have {size} bytes together; at most {self._most_bytes} are sent"
                )  # fmt: skip
            else:
                looked.usable |= usable
        return looked

    async def read(self, files: Mapping[str, Usable]) -> dict[str, bytes | TransientError]:
        """Their bytes, by file id; see `FileBytes`."""
        return await self._bytes.read_many(list(files.values())) if files else {}

    def _wait(self, work: Work, why: str, looked: Looked) -> None:
        left = files_until(work.held.message, self._policy) - self._clock.now()
        if left <= timedelta():
            looked.never[work] = why
            return
        waited = self._policy.files_within - left
        looked.waiting.setdefault(min(_step(waited / 3), _step(left)), []).append(work)


def gone(file_id: str) -> str:
    """Why a mail can never be sent whose file is usable by all that was heard, and not there."""
    return _says(file_id, "its bytes are not there any more, or are not what was declared")


def _says(file_id: str, why: str) -> str:
    return f"the file {file_id} cannot be attached: {why}"


def _size(work: Work, usable: Mapping[str, Usable]) -> int:
    assert work.content is not None  # noqa: S101 - at hand, by contract
    return sum(usable[each.file_id].carried if each.file_id else each.size for each in work.content.attachments)


def _step(time: timedelta) -> float:
    return next((wait for wait in WAITS if wait >= time.total_seconds()), WAITS[-1])
