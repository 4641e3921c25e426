"""What is asked of the read model `file`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from contracts.files.values import FileCategory
from contracts.views import File, FileStatus
from services.events.cursors import Place
from services.events.projections.file import TOPIC
from services.events.queries import WAIT_SECONDS, Documents, Page, Queries
from services.kit.clock import Clock


@dataclass(frozen=True, slots=True)
class FileFilter:
    """Which files; all conditions hold, None = any.

    Attributes:
        user_id: whose files.
        tag: one of the file's tags, exactly.
        since, before: of createdAt, `since` included and `before` not; aware.
        name: text that the file's name holds, as it was given or in its safe form, upper and lower case alike.
    """

    user_id: str | None = None
    client_id: str | None = None
    category: FileCategory | None = None
    status: FileStatus | None = None
    tag: str | None = None
    since: datetime | None = None
    before: datetime | None = None
    name: str | None = None


FileDocuments = Documents[FileFilter, File, int]
"""Their sums are how many match."""
FilePage = Page[File, int]


class FileQueries(Queries[FileFilter, File, int]):
    """Reads files."""

    def __init__(
        self, documents: FileDocuments, clock: Clock, *, topic: str = TOPIC, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        super().__init__(documents, clock, topic=topic, place=_place, wait_seconds=wait_seconds)


def _place(file: File) -> Place:
    return Place(file.created_at, file.file_id)
