"""The HTTP door of uploads. Bytes never pass here: they go from the browser straight to S3.

POST /api/files/upload-url       rules first, then a form, or an upload in parts
POST /api/files/parts            addresses for parts, just in time
POST /api/files/parts/list       the parts that S3 has: to go on after a reload
POST /api/files/abort            give an upload in parts up
POST /api/files/upload-complete  look at what came, and decide
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from contracts.base import CommandData, Model, UtcDateTime
from contracts.files.commands import FileId
from contracts.files.events import FileUploadRequested
from contracts.files.values import FileCategory, PartChecksum, UploadMetadata, UploadMethod
from contracts.ids import time_of
from contracts.views import File as FileView
from services.files.domain.categories import Rules
from services.files.domain.commands import Look, Remove
from services.files.domain.file import File
from services.files.domain.names import object_key, safe_name
from services.files.domain.parts import LEAST, MIB, MOST_PARTS, is_of_parts, part_count, part_size, size_of
from services.files.entrypoints.upload_request import UploadRequest
from services.files.entrypoints.upload_tokens import UploadTokens
from services.files.handlers import Files
from services.files.links import NO_SUCH_FILE, address_of
from services.files.ports import Part, PartWanted, Put, Signer, UploadTicket, metadata_of
from services.files.streams import Held
from services.files.view import shown
from services.kit.answers import Refusal
from services.kit.auth import Principal, require
from services.kit.bodies import body_limit
from services.kit.clock import Clock, Ids
from services.kit.errors import (
    Conflict,
    Gone,
    InvalidRequest,
    MailroomError,
    NotFound,
    PermanentError,
    ServiceUnavailable,
    TransientError,
)
from services.kit.http import Answer, IdempotencyKey, correlation_id, router
from services.kit.idempotency import ConflictingBody, IdempotencyKeys, body_hash
from services.kit.tracing import current_traceparent

ROUTE: Final = "POST /api/files/upload-url"
PARTS_AT_ONCE: Final = 100
"""Addresses of parts in one answer at most."""

FIRST_PARTS: Final = 10
"""How many of them the first answer brings."""

_MAY_UPLOAD: Final = Depends(require("files:create"))
_ENDED: dict[int | str, dict[str, Any]] = {
    409: {"model": Refusal, "description": "It contradicts what stands already, or what lies in S3"},
    410: {"model": Refusal, "description": "The upload has expired, or the file was deleted"},
}


class PartAddress(Model):
    """Where one part goes: PUT exactly `size` bytes with exactly these headers. The answer's ETag names the part."""

    part_number: int
    size: int
    url: str
    headers: dict[str, str]


class Upload(Model):
    """How to upload: with `method` `post` a form to `uploadUrl`, all `fields` first and the file last; with
    `multipart` parts of `partSize` bytes. A repetition after the upload has ended finds the `file` instead.
    """

    file_id: str
    file_key: str
    expires_at: UtcDateTime
    method: UploadMethod
    upload_url: str | None = None
    fields: dict[str, str] | None = None
    upload_id: str | None = None
    upload_token: str | None = None
    part_size: int | None = None
    part_count: int | None = None
    parts: list[PartAddress] | None = None
    file: FileView | None = None


class PartsRequest(CommandData):
    """Which parts are to be uploaded now."""

    upload_token: str
    part_numbers: Annotated[list[int], Field(min_length=1, max_length=PARTS_AT_ONCE)]
    checksums: Annotated[list[PartChecksum], Field(max_length=PARTS_AT_ONCE)] | None = None
    """Of each of them, in the same order: the SHA-256 of its bytes, in base64. Needed, and held to by S3, where the
    upload was asked for with a checksum of parts.
    """


class PartsSigned(Model):
    """Where they go."""

    parts: list[PartAddress]
    expires_at: UtcDateTime


class TokenRequest(CommandData):
    """An upload in parts."""

    upload_token: str


class PartHere(Model):
    """A part that S3 has."""

    part_number: int
    size: int
    etag: str


class PartsHere(Model):
    """The parts that S3 has, and how the file is cut."""

    parts: list[PartHere]
    part_size: int
    part_count: int
    expires_at: UtcDateTime


class CompletedPart(CommandData):
    """A part as its upload was answered."""

    part_number: int
    etag: str


class CompleteRequest(CommandData):
    """The bytes are there. `uploadToken` for an upload in parts; `parts`, if given, must be those that S3 has."""

    file_id: FileId
    actual_size: Annotated[int, Field(ge=0)]
    upload_token: str | None = None
    parts: Annotated[list[CompletedPart], Field(max_length=MOST_PARTS, fail_fast=True)] | None = None


class Aborted(Model):
    """An upload that was given up."""

    file_id: str
    status: str


@dataclass(frozen=True, slots=True)
class Terms:
    """How long an upload may take."""

    post: timedelta
    multipart: timedelta


def uploads_router(
    *,
    files: Files,
    signer: Signer,
    tokens: UploadTokens,
    idempotency: IdempotencyKeys,
    rules: Mapping[FileCategory, Rules],
    terms: Terms,
    bucket: str,
    region: str,
    clock: Clock,
    ids: Ids,
) -> APIRouter:
    """The routes above."""
    routes = router("/api/files", tag="uploads")
    door = _Door(files, signer, tokens, idempotency, rules, terms, bucket, region, clock, ids)

    @routes.post(
        "/upload-url",
        status_code=201,
        responses={
            **_ENDED,
            200: {
                "model": Answer[Upload],
                "description": "A repetition, after the upload has ended: the file as it is",
            },
        },
        response_model_exclude_none=True,
        summary="Ask for an upload",
    )
    @body_limit(MIB // 2)  # 20 notes of 1,000 characters, 50 tags of 128, up to 12 bytes a character (\ud83d\udc8c)
    async def upload_url(
        body: UploadRequest,
        request: Request,
        response: Response,
        caller: Annotated[Principal, _MAY_UPLOAD],
        idempotency_key: IdempotencyKey = None,
    ) -> Answer[Upload]:
        """Name, type and size are checked against the category's rules before a byte moves. The answer lets exactly
        one object be stored, straight in S3, until `expiresAt`; then call `upload-complete`.
        """
        upload = await door.begin(body, caller, idempotency_key, request)
        if upload.file is not None:
            response.status_code = 200
        return Answer(data=upload)

    @routes.post("/parts", responses=_ENDED, summary="Addresses for parts")
    async def parts(body: PartsRequest, caller: Annotated[Principal, _MAY_UPLOAD]) -> Answer[PartsSigned]:
        """Signed just in time, and for exactly each part's bytes. Ask again for those whose address has expired."""
        ticket, file = await door.ticket(body.upload_token, caller)
        return Answer(data=await door.sign(ticket, file, body.part_numbers, body.checksums or ()))

    @routes.post("/parts/list", responses=_ENDED, summary="Parts that are there")
    async def parts_here(body: TokenRequest, caller: Annotated[Principal, _MAY_UPLOAD]) -> Answer[PartsHere]:
        """What S3 has of an upload: to go on after a reload with what is missing."""
        ticket, file = await door.ticket(body.upload_token, caller)
        return Answer(data=await door.here(ticket, file))

    @routes.post("/abort", responses=_ENDED, summary="Give an upload up")
    async def abort(body: TokenRequest, caller: Annotated[Principal, _MAY_UPLOAD]) -> Answer[Aborted]:
        """All that came is deleted. Doing it twice is fine; a file that is complete stays."""
        ticket, _ = await door.ticket(body.upload_token, caller)
        return Answer(data=await door.abort(ticket, caller))

    @routes.post(
        "/upload-complete", responses=_ENDED, response_model_exclude_none=True, summary="Say that the bytes are there"
    )
    @body_limit(MIB)  # 10,000 parts of 80 bytes
    async def upload_complete(body: CompleteRequest, caller: Annotated[Principal, _MAY_UPLOAD]) -> Answer[FileView]:
        """S3 is asked what came: its size, type, checksum and owner must be what was agreed, and its first bytes what
        its type says. What is wrong is deleted, and the file has failed. Saying it twice is fine; saying nothing, too:
        S3's own notification leads to the same decision.
        """
        return Answer(data=await door.complete(body, caller))

    return routes


@dataclass(frozen=True, slots=True)
class _Door:
    files: Files
    signer: Signer
    tokens: UploadTokens
    idempotency: IdempotencyKeys
    rules: Mapping[FileCategory, Rules]
    terms: Terms
    bucket: str
    region: str
    clock: Clock
    ids: Ids

    # --- beginning ---

    async def begin(self, body: UploadRequest, caller: Principal, key: str | None, request: Request) -> Upload:
        hashed = body_hash(body.to_wire())  # as it was said: how it is read may change from one version to the next
        body = body.typed(self.rules[body.category])
        body.check(self.rules[body.category])
        file_id = self.ids.new()
        if key is not None:
            reserved = await self.idempotency.reserve(caller.user_id, ROUTE, key, hashed, file_id)
            file_id = reserved.id
            if isinstance(reserved, ConflictingBody):
                raise Conflict(
                    "This Idempotency-Key was used with another body: use a new key for a new file.",
                    [{"fileId": file_id}],
                )
            if reserved.repeated:
                held = await self.files.streams.load(file_id)
                if isinstance(held.state, File):
                    return await self._again(held)
        try:
            return await self._offer(await self._requested(body, caller, file_id, hashed, request))
        except TransientError as error:
            if key is None:
                raise
            again = "The upload may have begun: repeat with the same Idempotency-Key."
            raise ServiceUnavailable(again, details=[{"fileId": file_id}]) from error

    async def _requested(
        self, body: UploadRequest, caller: Principal, file_id: str, hashed: str, request: Request
    ) -> Held:
        asked = self._asked(body, caller, file_id, hashed, request)
        await self.files.quotas.reserve(file_id, asked, of_service=caller.role == "service")
        try:
            return await self._begun(asked, caller, file_id, request)
        except MailroomError:
            await self.files.quotas.give_up(file_id, asked)
            raise

    async def _begun(self, asked: FileUploadRequested, caller: Principal, file_id: str, request: Request) -> Held:
        if asked.method == "multipart":
            upload_id = await self.files.objects.begin_multipart(self._put(file_id, asked))
            asked = asked.model_copy(update={"upload_id": upload_id})
        held = await self.files.request(
            file_id,
            asked,
            actor=caller.actor,
            correlation=correlation_id(request),
            traceparent=current_traceparent(),
        )
        if asked.upload_id is not None and held.file.request.upload_id != asked.upload_id:
            await self.files.objects.abort_multipart(asked.key, asked.upload_id)  # somebody else began in this moment
        return held

    def _asked(
        self, body: UploadRequest, caller: Principal, file_id: str, hashed: str, request: Request
    ) -> FileUploadRequested:
        now, rules = self.clock.now(), self.rules[body.category]
        method = body.chosen(rules)
        lasts = self.terms.post if method == "post" else self.terms.multipart
        metadata = UploadMetadata(
            uploaded_by=caller.user_id,
            ip_address=address_of(request),
            user_agent=(request.headers.get("user-agent") or "")[:500] or None,
            checksum=body.metadata.checksum,
            tags=body.metadata.tags,
            **body.metadata.notes,
        )
        return FileUploadRequested(
            # By the id's time, so that a repetition in the next month has its key in the same folder.
            key=object_key(body.category, time_of(file_id), file_id, secrets.token_urlsafe(12)),
            bucket=self.bucket,
            region=self.region,
            file_name=safe_name(body.file_name),
            original_name=body.file_name,
            content_type=body.content_type,
            declared_size=body.size,
            max_size_bytes=body.most(rules),
            content_encoding=body.content_encoding,
            original_size=body.original_size,
            category=body.category,
            is_public=body.is_public,
            scan_needed=rules.scan or None,
            user_id=caller.user_id,
            client_id=body.client_id,
            metadata=metadata,
            method=method,
            expires_at=(now + lasts).replace(microsecond=0),
            kept_until=None if rules.lifetime is None else (now + rules.lifetime).replace(microsecond=0),
            request_hash=hashed,
        )

    async def _again(self, held: Held) -> Upload:
        """A repetition: a fresh signature while the upload can go on, else the file as it is."""
        file = held.file
        if file.phase == "uploading":
            if file.request.expires_at <= self.clock.now():
                raise Gone("The upload has expired: ask for a new one, with a new Idempotency-Key.")
            return await self._offer(held)
        return Upload(
            file_id=held.file_id,
            file_key=file.request.key,
            expires_at=file.request.expires_at,
            method=file.request.method,
            file=shown(held.file_id, file),
        )

    async def _offer(self, held: Held) -> Upload:
        request = held.file.request
        if request.upload_id is None:
            signed = await self.signer.post(
                self._put(held.file_id, request), least=1, most=request.max_size_bytes, expires_at=request.expires_at
            )
            return Upload(
                file_id=held.file_id,
                file_key=request.key,
                expires_at=signed.expires_at,
                method="post",
                upload_url=signed.url,
                fields=dict(signed.fields),
            )
        ticket = UploadTicket(held.file_id, request.upload_id, request.key, request.user_id, request.expires_at)
        size = request.declared_size or request.max_size_bytes
        count = part_count(size)
        at_first = 0 if is_of_parts(request.metadata.checksum) else min(count, FIRST_PARTS)
        first = await self.sign(ticket, held.file, range(1, at_first + 1))
        return Upload(
            file_id=held.file_id,
            file_key=request.key,
            expires_at=request.expires_at,
            method="multipart",
            upload_id=request.upload_id,
            upload_token=self.tokens.issue(ticket),
            part_size=part_size(size),
            part_count=count,
            parts=first.parts,
        )

    def _put(self, file_id: str, request: FileUploadRequested) -> Put:
        rules = self.rules[request.category]
        return Put(
            key=request.key,
            content_type=request.content_type,
            metadata=metadata_of(file_id, request),
            storage=rules.storage,
            kms_key=rules.kms_key,
            checksum=request.metadata.checksum,
            content_encoding=request.content_encoding,
        )

    # --- parts ---

    async def ticket(self, token: str, caller: Principal) -> tuple[UploadTicket, File]:
        """What a token binds, and its file. Raises InvalidRequest, Gone; NotFound for another's."""
        ticket = self.tokens.verify(token, self.clock.now())
        if not caller.may_see(ticket.owner):
            raise NotFound(NO_SUCH_FILE)
        held = await self.files.streams.load(ticket.file_id)
        if not isinstance(held.state, File) or held.state.request.upload_id != ticket.upload_id:
            raise NotFound(NO_SUCH_FILE)
        return ticket, held.state

    async def sign(
        self, ticket: UploadTicket, file: File, numbers: Sequence[int], checksums: Sequence[str] = ()
    ) -> PartsSigned:
        """Addresses for these parts. Raises InvalidRequest; Conflict once the upload has ended."""
        _is_uploading(file)
        known: Sequence[str | None] = _checked(file, numbers, checksums)
        size = file.request.declared_size or file.request.max_size_bytes
        expires_at = min(ticket.expires_at, self.clock.now() + self.terms.post)
        found: list[PartAddress] = []
        end = expires_at
        for number, checksum in zip(numbers, known, strict=True):
            try:
                length = size_of(number, size)
            except ValueError as error:
                raise InvalidRequest(details=[{"field": "partNumbers", "message": str(error)}]) from None
            wanted = PartWanted(number, length, checksum)
            signed = await self.signer.part(ticket.key, ticket.upload_id, wanted, expires_at=expires_at)
            found.append(PartAddress(part_number=number, size=length, url=signed.url, headers=dict(signed.headers)))
            end = min(end, signed.expires_at)
        return PartsSigned(parts=found, expires_at=end)

    async def here(self, ticket: UploadTicket, file: File) -> PartsHere:
        """What S3 has. Raises Conflict once the upload has ended."""
        _is_uploading(file)
        size = file.request.declared_size or file.request.max_size_bytes
        parts = await self._parts(ticket)
        return PartsHere(
            parts=[PartHere(part_number=each.number, size=each.size, etag=each.etag) for each in parts],
            part_size=part_size(size),
            part_count=part_count(size),
            expires_at=ticket.expires_at,
        )

    async def abort(self, ticket: UploadTicket, caller: Principal) -> Aborted:
        """Give it up. Raises Conflict for a file that is complete."""
        held = await self.files.streams.load(ticket.file_id)
        if held.file.phase in ("completed", "deleted"):
            raise Conflict("The file is complete already: delete it instead.")
        held = await self.files.look(ticket.file_id, lambda seen: Remove(seen, "user", actor=caller.actor))
        return Aborted(file_id=ticket.file_id, status=held.file.phase)

    async def _parts(self, ticket: UploadTicket) -> list[Part]:
        found = await self.files.objects.parts(ticket.key, ticket.upload_id)
        if found is None:
            raise Gone("The upload is over: S3 knows it no more.")
        return found

    # --- completing ---

    async def complete(self, body: CompleteRequest, caller: Principal) -> FileView:
        held = await self.files.streams.load(body.file_id)
        if not isinstance(held.state, File) or not caller.may_see(held.state.request.user_id):
            raise NotFound(NO_SUCH_FILE)
        if held.file.phase == "uploading" and held.file.request.upload_id is not None:
            await self._assemble(held, body, caller)
        held = await self.files.look(
            body.file_id, lambda seen: Look(seen, "client", claimed_size=body.actual_size, actor=caller.actor)
        )
        return _judged(held, body.actual_size)

    async def _assemble(self, held: Held, body: CompleteRequest, caller: Principal) -> None:
        """Make one object of the parts that S3 has, once they are all there. One that is made already is fine."""
        if body.upload_token is None:
            raise InvalidRequest(details=[{"field": "uploadToken", "message": "is needed for an upload in parts"}])
        ticket, _ = await self.ticket(body.upload_token, caller)
        if ticket.file_id != held.file_id:
            raise InvalidRequest(details=[{"field": "uploadToken", "message": "belongs to another file"}])
        parts = await self.files.objects.parts(ticket.key, ticket.upload_id)
        if parts is None:
            return  # complete, or given up: the look tells
        size = held.file.request.declared_size or held.file.request.max_size_bytes
        _are_whole(parts, size, body.parts)
        try:
            await self.files.objects.complete_multipart(ticket.key, ticket.upload_id, parts)
        except PermanentError as error:
            raise Conflict(f"The parts do not make a file: {error.detail}.") from error


def _is_uploading(file: File) -> None:
    if file.phase != "uploading":
        raise Conflict(f"The upload has ended: the file is {file.phase}.")


def _checked(file: File, numbers: Sequence[int], checksums: Sequence[str]) -> Sequence[str | None]:
    """The checksum of each part. S3 takes them of all parts, or of none: as the upload was begun."""
    agreed = is_of_parts(file.request.metadata.checksum)
    if len(checksums) != (len(numbers) if agreed else 0):
        why = "one for each of partNumbers is needed" if agreed else "the upload was asked for without one of its parts"
        raise InvalidRequest(details=[{"field": "checksums", "message": why}])
    return checksums if agreed else [None] * len(numbers)


def _are_whole(parts: Sequence[Part], size: int, named: Sequence[CompletedPart] | None) -> None:
    """Raises Conflict, with what is missing or wrong."""
    there = {each.number: each for each in parts}
    count = part_count(size)
    missing = [number for number in range(1, count + 1) if number not in there]
    if missing:
        raise Conflict(
            f"{len(missing)} of {count} parts are missing: upload them, then say it again.",
            [{"partNumber": number, "message": "is missing"} for number in missing[:PARTS_AT_ONCE]],
        )
    wrong = [
        each.number
        for each in parts
        if each.number > count or each.size != size_of(each.number, size) or (each.number < count and each.size < LEAST)
    ]
    if wrong:
        raise Conflict(
            "Some parts have not the bytes that they should have: upload them again.",
            [{"partNumber": number, "message": "has another size"} for number in wrong[:PARTS_AT_ONCE]],
        )
    said = {each.part_number: each.etag.strip('"') for each in named or ()}
    differs = [number for number, etag in said.items() if number not in there or there[number].etag.strip('"') != etag]
    if differs:
        raise Conflict(
            "Some parts are not those that S3 has: list them, and upload what differs again.",
            [{"partNumber": number, "message": "S3 has another"} for number in differs[:PARTS_AT_ONCE]],
        )


def _judged(held: Held, claimed: int) -> FileView:
    """The file, if it is complete. Raises Conflict, Gone."""
    file = held.file
    if file.phase == "uploading":
        raise Conflict("Nothing has arrived in S3 yet: upload the bytes, then say it again.")
    if file.phase == "failed":
        why = f": {file.failure_detail}" if file.failure_detail else ""
        raise Conflict(
            f"The upload has failed ({file.failure}){why}. Ask for a new one.",
            [{"fileId": held.file_id, "reason": file.failure}],
        )
    if file.phase == "deleted":
        raise Gone("The file was deleted.")
    if file.verified is not None and file.verified.size != claimed:
        raise Conflict(
            f"The file is complete with {file.verified.size} bytes, not with {claimed}.",
            [{"field": "actualSize", "message": f"is {file.verified.size}"}],
        )
    return shown(held.file_id, file)
