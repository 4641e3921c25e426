"""The HTTP door of files that are there: links, changes, deletion. Reading lists is the events service's.

GET    /api/files/{id}/download   a link for a few minutes, to the verified version
GET    /api/files/{id}/public     a redirect to it, for public files, for anybody
PATCH  /api/files/{id}            visibility, tags, name
DELETE /api/files/{id}            recoverable while the bucket keeps the version
POST   /api/files/{id}/restore    undo that
POST   /api/files/batch           delete or tag up to 1,000, answered item by item
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse
from pydantic import Field, model_validator

from contracts.base import CommandData, Model, UtcDateTime
from contracts.files.commands import FileId
from contracts.files.values import FileCategory, FileTags, OriginalName
from contracts.views import File as FileView
from services.files.domain.categories import Rules, bad_name
from services.files.domain.commands import Remove, Restore, Update
from services.files.domain.file import File
from services.files.domain.names import safe_name
from services.files.domain.seen import Seen
from services.files.handlers import Files
from services.files.links import NO_SUCH_FILE, Links, address_of
from services.files.streams import Held
from services.files.view import shown
from services.kit import metrics as m
from services.kit.answers import Refusal
from services.kit.auth import Principal, require
from services.kit.bodies import SMALL, body_limit
from services.kit.errors import (
    ApiError,
    Conflict,
    Forbidden,
    Gone,
    InvalidRequest,
    MailroomError,
    NotFound,
    PermanentError,
    TransientError,
)
from services.kit.http import Answer, router
from services.kit.logs import get_logger
from services.kit.request_limits import limited

log = get_logger(__name__)

MOST_IN_BATCH: Final = 1000
AT_ONCE: Final = 16
"""Files of a batch that are worked on at the same time."""

LOADED_TOGETHER: Final = 100
"""Streams that are read by one query."""

_ENDED: dict[int | str, dict[str, Any]] = {
    409: {"model": Refusal, "description": "It contradicts what stands already"},
    410: {"model": Refusal, "description": "The file, or its bytes, are gone"},
}


class Link(Model):
    """A link that works for everybody who has it, until `expiresAt`."""

    url: str
    expires_at: UtcDateTime


class ChangeRequest(CommandData):
    """What to change. What is absent stays."""

    name: OriginalName | None = None
    is_public: bool | None = None
    tags: FileTags | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> ChangeRequest:
        if self.name is None and self.is_public is None and self.tags is None:
            raise ValueError("one of name, isPublic or tags is needed")
        return self


class BatchRequest(CommandData):
    """Delete these files, or set their tags."""

    action: Literal["delete", "tag"]
    file_ids: Annotated[list[FileId], Field(min_length=1, max_length=MOST_IN_BATCH)]
    tags: FileTags | None = None

    @model_validator(mode="after")
    def _has_tags(self) -> BatchRequest:
        if (self.action == "tag") != (self.tags is not None):
            raise ValueError("tags are needed for the action tag, and for no other")
        return self


class ItemResult(Model):
    """What became of one of them."""

    file_id: str
    success: bool
    error: str | None = None


class BatchResult(Model):
    """What became of each, in the order asked."""

    results: list[ItemResult]
    succeeded: int
    failed: int


def files_router(*, files: Files, links: Links, rules: dict[FileCategory, Rules]) -> APIRouter:
    """The routes above."""
    routes = router("/api/files", tag="files")
    door = _Door(files, links, rules)

    @routes.post("/batch", response_model_exclude_none=True, summary="Delete or tag many files")
    @body_limit(2 * SMALL)  # 1,000 ids, however they are set out
    async def batch(
        body: BatchRequest, caller: Annotated[Principal, Depends(require("files:delete"))]
    ) -> Answer[BatchResult]:
        """Each file by itself: some may succeed where others fail. To tag needs the scope `files:create`, too."""
        return Answer(data=await door.batch(body, caller))

    @routes.get("/{file_id}/download", responses=_ENDED, summary="A link to the bytes")
    async def download(
        file_id: FileId, request: Request, caller: Annotated[Principal, Depends(require("files:read"))]
    ) -> Answer[Link]:
        """To exactly the version that was verified, with the file's own name. It is counted before it is given."""
        held = await door.own(file_id, caller)
        link = await links.issue(held, user_id=caller.user_id, ip_address=address_of(request))
        return Answer(data=Link(url=link.url, expires_at=link.expires_at))

    @routes.get(
        "/{file_id}/public",
        status_code=302,
        response_class=RedirectResponse,
        dependencies=[Depends(limited("public"))],
        responses={**_ENDED, 302: {"description": "To the bytes"}},
        summary="A public file",
    )
    async def public(file_id: FileId) -> RedirectResponse:
        """For anybody, no token needed. A file that is not public does not exist here. The redirect may be kept for
        half of the time that its link has left; a metric counts it, and nothing else does.
        """
        held = await files.streams.load(file_id)
        if not isinstance(held.state, File) or not held.state.is_public:
            raise NotFound(NO_SUCH_FILE)
        link = await links.show(held.state)
        files.metrics.inc(m.PUBLIC_VIEWS)
        seconds = max(0, int((link.expires_at - links.clock.now()).total_seconds() / 2))
        return RedirectResponse(link.url, 302, headers={"cache-control": f"public, max-age={seconds}"})

    @routes.patch("/{file_id}", responses=_ENDED, response_model_exclude_none=True, summary="Change a file")
    async def change(
        file_id: FileId, body: ChangeRequest, caller: Annotated[Principal, Depends(require("files:create"))]
    ) -> Answer[FileView]:
        """Its name, its tags, and who may see it."""
        return Answer(data=await door.change(file_id, body, caller))

    @routes.delete("/{file_id}", responses=_ENDED, response_model_exclude_none=True, summary="Delete a file")
    async def delete(
        file_id: FileId, caller: Annotated[Principal, Depends(require("files:delete"))]
    ) -> Answer[FileView]:
        """It is hidden at once, and can be restored while its bytes are kept. An upload under way is given up."""
        held = await door.remove(file_id, caller)
        return Answer(data=shown(file_id, held.file))

    @routes.post("/{file_id}/restore", responses=_ENDED, response_model_exclude_none=True, summary="Restore a file")
    async def restore(
        file_id: FileId, caller: Annotated[Principal, Depends(require("files:delete"))]
    ) -> Answer[FileView]:
        """Undo a deletion: the very version that was verified is the current one again."""
        await door.own(file_id, caller)
        with_reasons = _refusing(files.look(file_id, lambda seen: Restore(seen, actor=caller.actor)))
        return Answer(data=shown(file_id, (await with_reasons).file))

    return routes


@dataclass(frozen=True, slots=True)
class _Door:
    files: Files
    links: Links
    rules: dict[FileCategory, Rules]

    async def own(self, file_id: str, caller: Principal) -> Held:
        """The file, if it exists for the caller. Raises NotFound."""
        held = await self.files.streams.load(file_id)
        if not _exists_for(held, caller):
            raise NotFound(NO_SUCH_FILE)
        return held

    async def change(self, file_id: str, body: ChangeRequest, caller: Principal) -> FileView:
        held = await self.own(file_id, caller)
        request = held.file.request
        if body.is_public and not self.rules[request.category].public:
            raise InvalidRequest(
                details=[{"field": "isPublic", "message": "files of this category cannot be public"}]
            )  # fmt: skip
        rules = self.rules[request.category]
        if body.name is not None and (why := bad_name(rules, body.name, request.content_type)) is not None:
            raise InvalidRequest(details=[{"field": "name", "message": why}])
        update = Update(
            original_name=body.name,
            file_name=None if body.name is None else safe_name(body.name),
            is_public=body.is_public,
            tags=None if body.tags is None else tuple(body.tags),
            actor=caller.actor,
        )
        return shown(file_id, (await _refusing(self.files.update(file_id, update))).file)

    async def remove(self, file_id: str, caller: Principal) -> Held:
        held = await self.own(file_id, caller)
        if held.file.phase in ("failed", "deleted"):
            return held  # nothing is left to do, and S3 need not be asked
        asked = self._removal(held.file, caller)
        return await _refusing(self.files.look(file_id, lambda seen: replace(asked, seen=seen)))

    async def batch(self, body: BatchRequest, caller: Principal) -> BatchResult:
        if body.action == "delete":
            results = await self._remove_all(body.file_ids, caller)
        else:
            results = await self._tag_all(body.file_ids, body.tags or [], caller)
        good = sum(each.success for each in results)
        return BatchResult(results=results, succeeded=good, failed=len(results) - good)

    async def _remove_all(self, file_ids: Sequence[str], caller: Principal) -> list[ItemResult]:
        found: dict[str, Held | PermanentError] = {}
        unique = list(dict.fromkeys(file_ids))
        for start in range(0, len(unique), LOADED_TOGETHER):
            found |= await self.files.streams.load_many(unique[start : start + LOADED_TOGETHER])
        outcomes: dict[str, Held | MailroomError | ApiError] = dict(found)
        wanted: list[Held] = []
        for file_id, held in found.items():
            if isinstance(held, PermanentError):
                continue
            if not _exists_for(held, caller):
                outcomes[file_id] = NotFound(NO_SUCH_FILE)
            elif held.file.phase not in ("failed", "deleted"):
                wanted.append(held)
        done = await self.files.remove_many(wanted, lambda file: self._removal(file, caller))
        outcomes |= {held.file_id: result for held, result in zip(wanted, done, strict=True)}
        return [_item(file_id, outcomes[file_id]) for file_id in file_ids]

    async def _tag_all(self, file_ids: Sequence[str], tags: list[str], caller: Principal) -> list[ItemResult]:
        if "files:create" not in caller.scopes:
            raise Forbidden("The token lacks the scope files:create.", [{"missingScope": "files:create"}])
        change, places = ChangeRequest(tags=tags), asyncio.Semaphore(AT_ONCE)

        async def one(file_id: str) -> ItemResult:
            async with places:
                try:
                    await self.change(file_id, change, caller)
                except (ApiError, MailroomError) as error:
                    return _item(file_id, error)
            return ItemResult(file_id=file_id, success=True)

        return list(await asyncio.gather(*(one(file_id) for file_id in file_ids)))

    @staticmethod
    def _removal(file: File, caller: Principal) -> Remove:
        reason: Literal["user", "admin"] = "user" if file.request.user_id == caller.user_id else "admin"
        return Remove(Seen(), reason, actor=caller.actor)


def _exists_for(held: Held, caller: Principal) -> bool:
    return isinstance(held.state, File) and caller.may_see(held.state.request.user_id)


def _item(file_id: str, outcome: object) -> ItemResult:
    match outcome:
        case ApiError():
            return ItemResult(file_id=file_id, success=False, error=outcome.error)
        case TransientError():
            return ItemResult(file_id=file_id, success=False, error="This cannot be done at the moment: repeat later.")
        case MailroomError():
            log.warning("an item of a batch failed", aggregate_id=file_id, error=str(outcome))
            return ItemResult(file_id=file_id, success=False, error="This cannot be done.")
    return ItemResult(file_id=file_id, success=True)


async def _refusing(change: Awaitable[Held]) -> Held:
    """What the rules refuse, as the answer that it stands for."""
    try:
        return await change
    except PermanentError as error:
        message = f"{error.detail[:1].upper()}{error.detail[1:]}."
        if error.reason == "notFound":
            raise NotFound(NO_SUCH_FILE) from error
        if error.reason == "unrecoverable":
            raise Gone(message) from error
        if error.reason in ("notDeleted", "ended", "notRecognised"):
            raise Conflict(message) from error
        raise
