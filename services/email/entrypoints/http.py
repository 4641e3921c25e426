"""The HTTP door of the email service: send, cancel, read the content.

    POST   /api/email               store bodies and files encrypted, publish `email.send`, answer 202
    DELETE /api/email/{id}          publish `email.cancel`, answer 202; 409 where nothing is left to stop
    GET    /api/email/{id}/content  html and text as sent, for the owner

The door decides nothing: it publishes commands. Whatever it stored before a crash is found again by a repetition with
the same Idempotency-Key, or swept after an hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Depends, Request

from contracts.base import CommandData, Model
from contracts.email.commands import CancelEmail, MessageId, SendEmail, StoredAttachment
from contracts.email.values import Category, SealedRef
from contracts.envelope import CommandEnvelope
from contracts.topics import COMMANDS_URGENT, LANES, Topic
from services.email.domain.content import MessageContent, SealedBody
from services.email.domain.decisions import can_be_stopped
from services.email.domain.message import Message, fold
from services.email.entrypoints.send_request import SendRequest
from services.email.ports import ContentKey, ContentStore, NewContent
from services.kit.answers import Refusal
from services.kit.auth import Principal, require
from services.kit.clock import Clock, Ids
from services.kit.errors import (
    Conflict,
    ContentTooLarge,
    Detail,
    Forbidden,
    Gone,
    InvalidRequest,
    NotFound,
    PermanentError,
    ServiceUnavailable,
)
from services.kit.event_store.port import EventStore
from services.kit.http import Answer, IdempotencyKey, correlation_id, router
from services.kit.idempotency import ConflictingBody, IdempotencyKeys, body_hash
from services.kit.kafka.publisher import Outgoing, Publisher
from services.kit.logs import get_logger
from services.kit.tracing import current_traceparent

log = get_logger(__name__)

SOURCE = "/mailroom/email/http"
PUBLISH_SECONDS = 8.0
READ_YOUR_WRITE_SECONDS = 1.0
ROUTE = "POST /api/email"


class TemplateProblem(Protocol):
    """One thing wrong with a request that names a template."""

    @property
    def field(self) -> str:
        """Where, for instance `templateData.name`."""
        ...

    @property
    def message(self) -> str:
        """What to do."""
        ...


class TemplateChecks(Protocol):
    """Says before anything is stored what would keep a template from being rendered."""

    def problems(
        self, template_id: str, data: Mapping[str, object], *, category: str | None = None
    ) -> Sequence[TemplateProblem]:
        """Every problem. Raises PermanentError for an unknown template."""
        ...


class Taken(Model):
    """A message that was taken on. `emailLogId` equals `messageId`."""

    message_id: str
    email_log_id: str
    status: Literal["queued"] = "queued"


class Recorded(Model):
    """A wish to cancel that was taken on."""

    message_id: str
    status: Literal["cancelRequested"] = "cancelRequested"


class Content(Model):
    """What recipients got."""

    message_id: str
    html: str | None = None
    text: str | None = None
    template_version: str | None = None


def email_router(
    *,
    contents: ContentStore,
    publisher: Publisher,
    streams: EventStore,
    idempotency: IdempotencyKeys,
    templates: TemplateChecks,
    clock: Clock,
    ids: Ids,
    max_attachment_bytes: int = 10_000_000,
) -> APIRouter:
    """The routes above."""
    routes = router("/api/email", tag="email")
    door = _Door(contents, publisher, streams, idempotency, templates, clock, ids, max_attachment_bytes)
    refused: dict[int | str, dict[str, Any]] = {
        409: {"model": Refusal, "description": "It contradicts what stands already"}
    }

    @routes.post("", status_code=202, responses=refused, summary="Send an email")
    async def send(
        body: SendRequest,
        request: Request,
        caller: Annotated[Principal, Depends(require("email:create"))],
        idempotency_key: IdempotencyKey = None,
    ) -> Answer[Taken]:
        """Take a message on. 202 means that it stands on Kafka; `GET /api/email/{id}` tells what becomes of it."""
        message_id = await door.send(body, caller, idempotency_key, correlation_id(request))
        return Answer(data=Taken(message_id=message_id, email_log_id=message_id))

    @routes.delete("/{message_id}", status_code=202, responses=refused, summary="Cancel an email")
    async def cancel(
        message_id: MessageId,
        request: Request,
        caller: Annotated[Principal, Depends(require("email:create"))],
        reason: str | None = None,
    ) -> Answer[Recorded]:
        """Stop every recipient who was not attempted yet. What is with the provider cannot be called back."""
        await door.cancel(message_id, reason, caller, correlation_id(request))
        return Answer(data=Recorded(message_id=message_id))

    gone: dict[int | str, dict[str, Any]] = {
        410: {"model": Refusal, "description": "The content was deleted after its retention"}
    }

    @routes.get("/{message_id}/content", responses=gone, summary="Read the content of an email")
    async def content(
        message_id: MessageId, caller: Annotated[Principal, Depends(require("email:read"))]
    ) -> Answer[Content]:
        """Html and text as they were sent. The content of category `auth` is never shown."""
        return Answer(data=await door.content(message_id, caller))

    return routes


class _Door:
    def __init__(
        self,
        contents: ContentStore,
        publisher: Publisher,
        streams: EventStore,
        idempotency: IdempotencyKeys,
        templates: TemplateChecks,
        clock: Clock,
        ids: Ids,
        max_attachment_bytes: int,
    ) -> None:
        self._contents, self._publisher, self._streams = contents, publisher, streams
        self._idempotency, self._templates = idempotency, templates
        self._clock, self._ids, self._max_attachment_bytes = clock, ids, max_attachment_bytes

    async def send(self, body: SendRequest, caller: Principal, key: str | None, correlation: str) -> str:
        self._check(body)
        message_id = self._ids.new()
        if key is not None:
            reserved = await self._idempotency.reserve(
                caller.user_id, ROUTE, key, body_hash(body.to_wire()), message_id
            )
            if isinstance(reserved, ConflictingBody):
                raise Conflict(
                    "This Idempotency-Key was used with another body: use a new key for a new message.",
                    [{"messageId": reserved.id}],
                )
            message_id = reserved.id
        if not self._publisher.healthy:
            raise ServiceUnavailable(
                "Kafka is not available; nothing was sent. Repeat later.", details=[{"messageId": message_id}]
            )
        command = await self._store(body, message_id, caller)
        await self._publish(LANES[command.priority], "email.send", message_id, command, caller, correlation, key)
        return message_id

    async def cancel(self, message_id: str, reason: str | None, caller: Principal, correlation: str) -> None:
        state = fold((await self._streams.load(message_id)).events)
        if isinstance(state, Message):
            if not caller.may_see(state.request.user_id):
                raise NotFound("There is no such email.")
            if not can_be_stopped(state):
                raise Conflict("Nothing is left to stop: every recipient was sent to, has failed or was cancelled.")
        try:
            command = CancelEmail(message_id=message_id, reason=reason)
        except ValueError:
            raise InvalidRequest(
                details=[{"field": "reason", "message": "one line of at most 500 characters"}]
            ) from None
        await self._publish(COMMANDS_URGENT, "email.cancel", message_id, command, caller, correlation, None)

    async def content(self, message_id: str, caller: Principal) -> Content:
        state = await self._await_message(message_id)
        if state is None or not caller.may_see(state.request.user_id):
            raise NotFound("There is no such email.")
        request = state.request
        if request.category == "auth":
            raise Forbidden(
                "The content of category auth is never shown: it holds codes and links that sign people in."
            )
        if request.content is None:
            raise NotFound("This email has no content: it could not be rendered.")
        key = ContentKey(message_id, request.content.ref)
        found = (await self._contents.get_many([key])).get(key)
        # An audit line for every read, whoever reads: bodies are the most personal thing we keep.
        log.info("content.read", aggregate_id=message_id, actor=caller.actor, found=found is not None)
        if found is None:
            raise Gone("The content was deleted after its retention.")
        content = MessageContent.from_bytes(found)
        return Content(
            message_id=message_id,
            html=content.html,
            text=content.text,
            template_version=request.content.template_version,
        )

    # --- inside --------------------------------------------------------------------------------------------------

    def _check(self, body: SendRequest) -> None:
        """What the model alone cannot know: the template's data, and how much the files weigh together."""
        problems: list[Detail] = []
        if body.template_id is not None:
            try:
                found = self._templates.problems(body.template_id, body.template_data or {}, category=body.category)
                problems += [{"field": problem.field, "message": problem.message} for problem in found]
            except PermanentError as error:
                problems.append({"field": "templateId", "message": error.detail})
        if problems:
            raise InvalidRequest(details=problems)
        size = sum(len(content) for _, content in body.uploads)
        if size > self._max_attachment_bytes:
            raise ContentTooLarge(
                f"The attachments have {size} bytes together; at most {self._max_attachment_bytes} are taken. "
                "Upload large files through /api/files and attach them by fileId."
            )

    async def _store(self, body: SendRequest, message_id: str, caller: Principal) -> SendEmail:
        """Bodies, template data and files, encrypted, before the command names them. Repeating it changes nothing."""
        category: Category = body.category
        sealed_body = SealedBody(html=body.html_content, text=body.text_content, template_data=body.template_data)
        uploads = body.uploads
        items = [NewContent(message_id, category, "sealed", sealed_body.to_bytes())]
        items += [NewContent(message_id, category, "attachment", content) for _, content in uploads]
        refs = await self._contents.put_many(items)
        sealed = SealedRef(ref=refs[0].ref, sha256=refs[0].sha256)
        stored = [
            StoredAttachment(
                filename=upload.filename,
                content_type=upload.content_type,
                ref=ref.ref,
                sha256=ref.sha256,
                size=ref.size,
            )
            for (upload, _), ref in zip(uploads, refs[1:], strict=True)
        ]
        return body.command(message_id, caller.user_id, sealed, stored)

    async def _publish(
        self,
        topic: Topic,
        name: str,
        message_id: str,
        data: CommandData,
        caller: Principal,
        correlation: str,
        key: str | None,
    ) -> None:
        envelope = CommandEnvelope(
            id=self._ids.new(),
            source=SOURCE,
            type=name,
            subject=message_id,
            time=self._clock.now(),
            correlationid=correlation,
            traceparent=current_traceparent(),
            actor=caller.actor,
            data=data,
        )
        record = Outgoing(topic.name, message_id.encode(), envelope.to_bytes())
        try:
            (error,) = await asyncio.wait_for(self._publisher.publish([record]), PUBLISH_SECONDS)
        except TimeoutError as late:
            error = late
        if error is None:
            return
        if isinstance(error, PermanentError):
            raise ContentTooLarge("The command is too large for Kafka: use fewer recipients or less customData.")
        log.warning("door.publishUnknown", aggregate_id=message_id, error=type(error).__name__)
        advice = "repeat with the same Idempotency-Key" if key else f"ask GET /api/email/{message_id} before repeating"
        raise ServiceUnavailable(f"Outcome unknown: {advice}.", details=[{"messageId": message_id}])

    async def _await_message(self, message_id: str) -> Message | None:
        """The message, waiting a moment for one that was taken on just now."""
        deadline = self._clock.monotonic() + READ_YOUR_WRITE_SECONDS
        while True:
            state = fold((await self._streams.load(message_id)).events)
            if isinstance(state, Message):
                return state
            if self._clock.monotonic() >= deadline:
                return None
            await self._clock.sleep(0.1)
