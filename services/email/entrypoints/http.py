"""The HTTP door of the email service: send, cancel, read the content.

    POST   /api/email               store bodies and files encrypted, publish `email.send`, answer 202
    DELETE /api/email/{id}          publish `email.cancel`, answer 202; 409 where nothing is left to stop
    GET    /api/email/{id}/content  html and text as sent, for the owner

The door decides nothing: it publishes commands. Whatever it stored before a crash is found again by a repetition with
the same Idempotency-Key, or swept once no command can need it any more.
"""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, ClassVar, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field

from contracts.base import CommandData, Model
from contracts.email.commands import CancelEmail, MessageId, SendEmail, StoredAttachment
from contracts.email.values import Category, SealedRef, SingleLine
from contracts.envelope import CommandEnvelope
from contracts.topics import COMMANDS_URGENT, LANES, Topic
from services.email.domain.content import MessageContent, SealedBody
from services.email.domain.decisions import can_be_stopped
from services.email.domain.message import Message, State, fold
from services.email.entrypoints.send_request import SendRequest, TemplateChecks
from services.email.entrypoints.uploads import UploadedAttachment
from services.email.ports import ContentKey, ContentStore, NewContent
from services.email.settings import largest_request
from services.kit.actors import Role, may_change
from services.kit.answers import Refusal
from services.kit.auth import Principal, require
from services.kit.bodies import body_limit
from services.kit.clock import Clock, Ids
from services.kit.command_roles import check_claim
from services.kit.errors import (
    Conflict,
    ContentTooLarge,
    Forbidden,
    Gone,
    NotFound,
    PermanentError,
    ServiceUnavailable,
    TransientError,
)
from services.kit.event_store.port import EventStore
from services.kit.http import Answer, IdempotencyKey, correlation_id, router
from services.kit.idempotency import ConflictingBody, IdempotencyKeys, body_hash
from services.kit.kafka.codec import encode
from services.kit.kafka.publisher import Publisher
from services.kit.logs import get_logger
from services.kit.tracing import current_traceparent

log = get_logger(__name__)

SOURCE = "/mailroom/email/http"
READ_YOUR_WRITE_SECONDS = 1.0
ROUTE = "POST /api/email"

Upload = tuple[UploadedAttachment, bytes]

_NO_SUCH_EMAIL = "There is no such email."
_CONFLICT: dict[int | str, dict[str, Any]] = {
    409: {"model": Refusal, "description": "It contradicts what stands already"}
}
_GONE: dict[int | str, dict[str, Any]] = {
    410: {"model": Refusal, "description": "The content was deleted after its retention"}
}


class Taken(Model):
    """A message that was taken on. `emailLogId` equals `messageId`."""

    message_id: str
    email_log_id: str
    status: Literal["queued"] = "queued"


class Cancelling(CommandData):
    """Why; it is kept with the mail."""

    reason: Annotated[SingleLine | None, Field(max_length=500)] = None


class Recorded(Model):
    """A wish to cancel that was taken on."""

    message_id: str
    status: Literal["cancelRequested"] = "cancelRequested"


class Content(Model):
    """What recipients got; absent where there was none."""

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
    scoped: Collection[str] = (),
    roles: Mapping[str, tuple[Role, ...]] | None = None,
) -> APIRouter:
    """The routes above. `max_attachment_bytes`: of all files of a request together, decoded; `scoped`: categories and
    priorities that need the scope `email:create:<its name>` too; `roles`: which may be claimed on the topics of
    commands, where callers' roles are written (`CommandRoles`).
    """
    routes = router("/api/email", tag="email")
    door = _Door(contents, publisher, streams, idempotency, clock, ids, max_attachment_bytes, roles or {})
    scoped_names = frozenset(scoped)
    catalogue = templates

    class SendEmailRequest(SendRequest):
        """What to send. At least one of `htmlContent`, `textContent` and `templateId` is needed."""

        templates: ClassVar[TemplateChecks | None] = catalogue

    @routes.post("", status_code=202, responses=_CONFLICT, summary="Send an email")
    @body_limit(largest_request(max_attachment_bytes))
    async def send(
        body: SendEmailRequest,
        request: Request,
        caller: Annotated[Principal, Depends(require("email:create"))],
        idempotency_key: IdempotencyKey = None,
    ) -> Answer[Taken]:
        """Take a message on. 202 means that it stands on Kafka; `GET /api/email/{id}` tells what becomes of it.

        An installation may demand a further scope for a category or for priority `urgent`, for instance
        `email:create:auth`; the 403 names it.
        """
        caller.need([f"email:create:{name}" for name in (body.category, body.priority) if name in scoped_names])
        message_id = await door.send(body, caller, idempotency_key, correlation_id(request))
        return Answer(data=Taken(message_id=message_id, email_log_id=message_id))

    @routes.delete("/{message_id}", status_code=202, responses=_CONFLICT, summary="Cancel an email")
    async def cancel(
        message_id: MessageId,
        request: Request,
        caller: Annotated[Principal, Depends(require("email:create"))],
        cancelling: Annotated[Cancelling, Query()],
    ) -> Answer[Recorded]:
        """Stop every recipient who was not attempted yet. What is with the provider cannot be called back.

        A message that is not known yet is stopped when it comes, if it is the caller's.
        """
        await door.cancel(message_id, cancelling.reason, caller, correlation_id(request))
        return Answer(data=Recorded(message_id=message_id))

    @routes.get(
        "/{message_id}/content",
        responses=_GONE,
        response_model_exclude_none=True,
        summary="Read the content of an email",
    )
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
        clock: Clock,
        ids: Ids,
        max_attachment_bytes: int,
        roles: Mapping[str, tuple[Role, ...]],
    ) -> None:
        self._contents, self._publisher, self._streams = contents, publisher, streams
        self._idempotency = idempotency
        self._clock, self._ids, self._max_attachment_bytes = clock, ids, max_attachment_bytes
        self._roles = roles

    async def send(self, body: SendRequest, caller: Principal, key: str | None, correlation: str) -> str:
        self._check_role(LANES[body.priority], caller)
        uploads = self._uploads(body)
        message_id = self._ids.new()
        if key is not None:
            reserved = await self._idempotency.reserve(
                caller.user_id, ROUTE, key, body_hash(body.to_wire()), message_id
            )
            message_id = reserved.id
            if isinstance(reserved, ConflictingBody):
                raise Conflict(
                    "This Idempotency-Key was used with another body: use a new key for a new message.",
                    [{"messageId": message_id}],
                )
            # A stream that has its request stores nothing more, and would ignore a second command.
            if reserved.repeated and isinstance(await self._load(message_id), Message):
                return message_id
        if not self._publisher.healthy:
            raise ServiceUnavailable(
                "Kafka is not available at the moment; nothing was sent: repeat later.",
                details=[{"messageId": message_id}] if key else [],
            )
        command = await self._store(body, uploads, message_id, caller)
        advice = "repeat with the same key" if key else f"ask GET /api/email/{message_id} before repeating"
        await self._publish(LANES[command.priority], "email.send", command, caller, correlation, advice)
        return message_id

    async def cancel(self, message_id: str, reason: str | None, caller: Principal, correlation: str) -> None:
        self._check_role(COMMANDS_URGENT, caller)
        state = await self._load(message_id)
        if isinstance(state, Message):
            if not may_change(caller.actor, state.request.user_id):
                raise NotFound(_NO_SUCH_EMAIL)
            if not can_be_stopped(state):
                raise Conflict("Nothing is left to stop: every recipient was sent to, has failed or was cancelled.")
        if not self._publisher.healthy:
            raise ServiceUnavailable("Kafka is not available at the moment; nothing was stopped: repeat later.")
        command = CancelEmail(message_id=message_id, reason=reason)
        await self._publish(COMMANDS_URGENT, "email.cancel", command, caller, correlation, "repeat")

    def _check_role(self, topic: Topic, caller: Principal) -> None:
        """What intake would park after the caller's 202 is refused here."""
        try:
            check_claim(self._roles, topic.name, caller.actor)
        except PermanentError:
            raise Forbidden(f"The role {caller.role} may not write to {topic.name} here.") from None

    async def content(self, message_id: str, caller: Principal) -> Content:
        state = await self._await_message(message_id)
        if state is None or not caller.may_see(state.request.user_id):
            raise NotFound(_NO_SUCH_EMAIL)
        request = state.request
        if request.category == "auth":
            raise Forbidden(
                "The content of category auth is never shown: it holds codes and links that sign people in."
            )
        if request.content is None:
            raise NotFound("This email has no content: it could not be rendered.")
        key = ContentKey(message_id, request.content.ref)
        found = (await self._contents.get_many([key])).get(key)
        if isinstance(found, TransientError):
            raise found
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

    def _uploads(self, body: SendRequest) -> list[Upload]:
        uploads = body.uploads()
        size = sum(len(content) for _, content in uploads)
        if size > self._max_attachment_bytes:
            raise ContentTooLarge(
                f"The attachments have {size} bytes together; at most {self._max_attachment_bytes} are taken. "
                "Upload large files through /api/files and attach them by fileId."
            )
        return uploads

    async def _store(self, body: SendRequest, uploads: list[Upload], message_id: str, caller: Principal) -> SendEmail:
        """Bodies, template data and files, encrypted, before the command names them. Repeating it changes nothing."""
        category: Category = body.category
        sealed_body = SealedBody(html=body.html_content, text=body.text_content, template_data=body.template_data)
        needed_until = body.expires_at or body.send_at
        items = [NewContent(message_id, category, "sealed", sealed_body.to_bytes(), needed_until)]
        items += [NewContent(message_id, category, "attachment", content, needed_until) for _, content in uploads]
        sealed, *files = await self._contents.put_many(items)
        stored = [
            StoredAttachment(
                filename=upload.filename,
                content_type=upload.content_type,
                ref=ref.ref,
                sha256=ref.sha256,
                size=ref.size,
            )
            for (upload, _), ref in zip(uploads, files, strict=True)
        ]
        return body.command(message_id, caller.user_id, SealedRef(ref=sealed.ref, sha256=sealed.sha256), stored)

    async def _publish(
        self,
        topic: Topic,
        name: str,
        data: SendEmail | CancelEmail,
        caller: Principal,
        correlation: str,
        advice: str,
    ) -> None:
        """Raises ServiceUnavailable where nobody knows whether Kafka has it."""
        envelope = CommandEnvelope(
            id=self._ids.new(),
            source=SOURCE,
            type=name,
            subject=data.message_id,
            time=self._clock.now(),
            correlationid=correlation,
            traceparent=current_traceparent(),
            actor=caller.actor,
            data=data,
        )
        (error,) = await self._publisher.publish([encode(envelope, topic)])
        if error is None:
            return
        if isinstance(error, PermanentError):
            raise ContentTooLarge("The command is too large for Kafka: use fewer recipients or less customData.")
        log.warning("door.publishUnknown", aggregate_id=data.message_id, error=type(error).__name__)
        raise ServiceUnavailable(f"Outcome unknown: {advice}.", details=[{"messageId": data.message_id}])

    async def _load(self, message_id: str) -> State:
        """The message's state; a `Message` once it was requested."""
        return fold((await self._streams.load(message_id)).events)

    async def _await_message(self, message_id: str) -> Message | None:
        """The message, waiting a moment for one that was taken on just now."""
        deadline = self._clock.monotonic() + READ_YOUR_WRITE_SECONDS
        while True:
            state = await self._load(message_id)
            if isinstance(state, Message):
                return state
            if self._clock.monotonic() >= deadline:
                return None
            await self._clock.sleep(0.1)
