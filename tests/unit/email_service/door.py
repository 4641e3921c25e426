"""The email door over real HTTP semantics (ASGI), with everything behind it in memory."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import httpx

from contracts.base import CommandData
from contracts.email.commands import SendEmail
from contracts.registry import command_from_wire, read_json
from services.email.adapters.templates import DIRECTORY, Site, TemplateCatalogue
from services.email.domain.commands import Cancel, Request
from services.email.entrypoints.http import email_router
from services.email.streams import Held, Step
from services.kit.auth import Authenticator, Role, SecretVerifier, mint_token
from services.kit.health import Health
from services.kit.http import create_app
from services.kit.idempotency import MemoryIdempotencyKeys
from services.kit.metrics import Metrics
from services.kit.testing import FakeClock
from services.kit.testing.publisher import MemoryPublisher
from tests.unit.email_service.fakes import Post
from tests.unit.email_service.mail import requested

SECRET = "s" * 40
CATALOGUE = TemplateCatalogue.load(DIRECTORY, Site("https://crm.example"))
BODY: dict[str, Any] = {
    "to": "ann@inbox.example",
    "subject": "Hello",
    "textContent": "How are you?",
    "category": "notification",
}


class LosingPublisher(MemoryPublisher):
    """Looks healthy; with `losing_answers` it keeps what it is given and loses the acknowledgement."""

    @property
    def healthy(self) -> bool:
        return not self.away


def as_(user: str, *scopes: str, role: Role = "user") -> dict[str, str]:
    """Headers of a caller; both scopes of senders unless told otherwise."""
    token = mint_token(SECRET, user, scopes or ("email:create", "email:read"), role)
    return {"authorization": f"Bearer {token}"}


def attached(content: bytes | str = b"x", **more: Any) -> dict[str, Any]:
    """A file in a request; text is taken for base64 as it stands."""
    encoded = content if isinstance(content, str) else base64.b64encode(content).decode()
    return {"filename": "a.txt", "contentType": "text/plain", "content": encoded, **more}


class Door:
    """The door of one process; several may share a `Post` and idempotency keys."""

    def __init__(
        self,
        *,
        max_attachment_bytes: int = 10_000_000,
        scoped: tuple[str, ...] = (),
        roles: Mapping[str, tuple[Role, ...]] | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.post = Post(clock=self.clock)
        self.publisher = LosingPublisher()
        self.idempotency = MemoryIdempotencyKeys(self.clock)
        app = create_app(
            title="Mailroom: email",
            service="email",
            version="1",
            authenticator=Authenticator(
                SecretVerifier(SECRET), cookie="mailroom_session", origins=["https://crm.example"]
            ),
            health=Health(self.clock),
            metrics=Metrics(),
            routers=[
                email_router(
                    contents=self.post.contents,
                    publisher=self.publisher,
                    streams=self.post.store,
                    idempotency=self.idempotency,
                    templates=CATALOGUE,
                    clock=self.clock,
                    ids=self.post.ids,
                    max_attachment_bytes=max_attachment_bytes,
                    scoped=scoped,
                    roles=roles,
                )
            ],
        )
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://mailroom", headers=as_("ann"))

    async def send(self, key: str | None = None, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        """POST the usual body with these changes; None takes a field out."""
        wire = {name: value for name, value in {**BODY, **body}.items() if value is not None}
        keyed = {} if key is None else {"Idempotency-Key": key}
        return await self.client.post("/api/email", json=wire, headers={**keyed, **(headers or {})})

    async def cancel(self, message_id: str, headers: dict[str, str] | None = None, **query: str) -> httpx.Response:
        """DELETE it."""
        return await self.client.delete(f"/api/email/{message_id}", params=query, headers=headers)

    def commands(self) -> list[CommandData]:
        """What was published, read as the intake reads it."""
        return [command_from_wire(read_json(item.value)).data for item in self.publisher.published]

    def sends(self) -> list[SendEmail]:
        """The `email.send` among them."""
        return [command for command in self.commands() if isinstance(command, SendEmail)]

    async def stands(self, message_id: str, *, user: str = "ann", cancelled: bool = False, **fields: Any) -> None:
        """Let the message stand in its stream, as the intake would have left it."""
        request = requested(message_id=message_id, user_id=user, **fields)
        held = await self.post.streams.load(message_id)
        more = [Cancel(f"user:{user}")] if cancelled else []
        (result,) = await self.post.streams.append(
            [Step(held, self.post.streams.decide(held, Request(request), *more))]
        )
        assert isinstance(result, Held)
