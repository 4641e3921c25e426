"""`GET /api/files…`: files as their owners and admins see them. Links to their bytes are the files service's."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import Field

from contracts.base import Model
from contracts.files.values import FileCategory
from contracts.views import File, FileStatus
from services.events.entrypoints.http_reading import (
    HistoryItem,
    HistoryQuery,
    Listed,
    ListQuery,
    Search,
    Text,
    json,
    owner_for,
)
from services.events.file_queries import FileFilter, FileQueries
from services.kit.auth import Principal, require
from services.kit.errors import NotFound
from services.kit.etag import NOT_MODIFIED, IfNoneMatch, unless_known
from services.kit.http import Answer, router

Reader = Annotated[Principal, Depends(require("files:read"))]
FileId = Annotated[str, Path(min_length=1, max_length=128, description="fileId")]


class FileListQuery(ListQuery):
    """What may be asked of the list. Days are UTC."""

    category: FileCategory | None = None
    status: FileStatus | None = None
    tag: Annotated[Text | None, Field(description="one of the file's tags")] = None
    q: Annotated[Search | None, Field(description="text that the name holds")] = None

    def filter_for(self, principal: Principal) -> FileFilter:
        """The filter, held to what `principal` may see."""
        return FileFilter(
            user_id=self.whose(principal),
            client_id=self.client_id,
            category=self.category,
            status=self.status,
            tag=self.tag,
            since=self.since,
            before=self.before,
            name=self.q,
        )


class FileList(Listed):
    """A page of files, latest first."""

    files: list[File]


class FileHistory(Model):
    """Every event of a file, in the order in which they make what is shown of it."""

    file_id: str
    events: list[HistoryItem]
    next_cursor: Annotated[str | None, Field(description="goes on after these; absent with the last")] = None


def files_router(queries: FileQueries) -> APIRouter:
    """The routes, all with the scope `files:read`."""
    routes = router("/api/files", tag="files")

    @routes.get("", response_model=Answer[FileList], responses=NOT_MODIFIED, summary="Files, latest first")
    async def list_files(
        asked: Annotated[FileListQuery, Query()], principal: Reader, if_none_match: IfNoneMatch = None
    ) -> Response:
        """Non-admins see their own files, those that failed or were deleted among them: `status` tells."""
        page = await queries.page(
            asked.filter_for(principal), limit=asked.limit, number=asked.number, cursor=asked.cursor
        )
        listed = FileList(
            files=list(page.shown), page=asked.number, limit=asked.limit, total=page.sums, next_cursor=page.cursor
        )
        return unless_known(json(listed.to_wire()), if_none_match)

    @routes.get("/{file_id}", response_model=Answer[File], responses=NOT_MODIFIED, summary="One file")
    async def one_file(file_id: FileId, principal: Reader, if_none_match: IfNoneMatch = None) -> Response:
        """A file whose upload was just asked for is waited for, up to a second."""
        return unless_known(json((await _found(queries, file_id, principal)).to_wire()), if_none_match)

    @routes.get(
        "/{file_id}/history",
        response_model=Answer[FileHistory],
        responses=NOT_MODIFIED,
        summary="Everything that happened to one file",
    )
    async def file_history(
        file_id: FileId,
        asked: Annotated[HistoryQuery, Query()],
        principal: Reader,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        """Each event with its origin in the log: topic, partition, offset."""
        await _found(queries, file_id, principal)
        page = await queries.history(file_id, limit=asked.limit, cursor=asked.cursor)
        items = [HistoryItem.of(entry) for entry in page.entries]
        told = FileHistory(file_id=file_id, events=items, next_cursor=page.cursor)
        return unless_known(json(told.to_wire()), if_none_match)

    return routes


async def _found(queries: FileQueries, file_id: str, principal: Principal) -> File:
    """Raises NotFound for what is not there, and for what is another's."""
    file = await queries.wait_for(file_id, owner_for(principal))
    if file is None:
        raise NotFound("There is no such file.")
    return file
