"""The files service over real HTTP semantics (ASGI), with everything behind it in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx

from contracts.base import EventData
from contracts.files.values import FileCategory
from contracts.registry import event_from_wire, read_json
from services.files.domain.categories import Rules, with_changes
from services.files.domain.file import File, Policy
from services.files.domain.quotas import Quota
from services.files.entrypoints.http_categories import categories_router
from services.files.entrypoints.http_files import files_router
from services.files.entrypoints.http_uploads import Terms, uploads_router
from services.files.entrypoints.upload_tokens import UploadTokens
from services.files.handlers import Files
from services.files.links import Distribution, Links
from services.files.quotas import UploadQuotas
from services.files.streams import FileStreams
from services.kit.auth import Authenticator, Role, SecretVerifier, mint_token
from services.kit.event_store.memory import MemoryEventStore
from services.kit.health import Health
from services.kit.http import create_app
from services.kit.idempotency import MemoryIdempotencyKeys
from services.kit.metrics import Metrics
from services.kit.request_limits import Limit, RequestLimits
from services.kit.testing import FakeClock, FakeIds
from services.kit.testing.publisher import MemoryPublisher
from tests.unit.files_service.fakes import Kills, MemoryObjects, MemoryQuotas, PlainSigner

SECRET = "s" * 40
PDF = b"%PDF-1.7\n" + b"x" * 500
BODY: dict[str, Any] = {"fileName": "a.pdf", "contentType": "application/pdf", "category": "document"}
SCOPES = ("files:create", "files:read", "files:delete")


def as_(user: str, *scopes: str, role: Role = "user") -> dict[str, str]:
    """Headers of a caller; all scopes of people unless told otherwise."""
    return {"authorization": f"Bearer {mint_token(SECRET, user, scopes or SCOPES, role)}"}


@dataclass
class Door:
    """One process of the service."""

    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    distribution: Distribution | None = None
    limits: dict[str, Limit | None] = field(default_factory=dict)
    user_quota: Quota = field(default_factory=Quota)
    client_quota: Quota = field(default_factory=Quota)

    def __post_init__(self) -> None:
        self.clock, self.ids = FakeClock(), FakeIds()
        self.objects, self.signer, self.kills = MemoryObjects(), PlainSigner(), Kills()
        self.publisher, self.metrics = MemoryPublisher(), Metrics()
        self.store = MemoryEventStore(clock=self.clock)
        self.streams = FileStreams(self.store, self.clock, self.ids, Policy(), lambda _: None)
        self.quotas = MemoryQuotas(self.clock)
        quotas = UploadQuotas(self.quotas, self.user_quota, self.client_quota, service_factor=3)
        self.files = Files(self.streams, self.objects, self.clock, self.metrics, self.kills, quotas)
        rules: dict[FileCategory, Rules] = with_changes(self.changes)
        links = Links(
            self.signer,
            self.distribution,
            self.publisher,
            ("image/png", "application/pdf"),
            timedelta(minutes=5),
            self.clock,
            self.ids,
        )
        uploads = uploads_router(
            files=self.files,
            signer=self.signer,
            tokens=UploadTokens([b"k" * 32]),
            idempotency=MemoryIdempotencyKeys(self.clock),
            rules=rules,
            terms=Terms(timedelta(minutes=15), timedelta(hours=24)),
            bucket="b",
            region="eu-central-1",
            clock=self.clock,
            ids=self.ids,
        )
        app = create_app(
            title="Mailroom: files",
            service="files",
            version="1",
            authenticator=Authenticator(SecretVerifier(SECRET)),
            health=Health(self.clock),
            metrics=self.metrics,
            limits=RequestLimits(self.limits, self.clock, writes="upload"),
            routers=[categories_router(rules), uploads, files_router(files=self.files, links=links, rules=rules)],
        )
        self.app = app
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://mailroom", headers=as_("ann"))

    async def ask(self, key: str | None = None, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
        """Ask for an upload with the usual body and these changes; None takes a field out."""
        wire = {name: value for name, value in {**BODY, **body}.items() if value is not None}
        keyed = {} if key is None else {"Idempotency-Key": key}
        return await self.client.post("/api/files/upload-url", json=wire, headers={**keyed, **(headers or {})})

    async def complete(self, file_id: str, size: int = len(PDF), **more: Any) -> httpx.Response:
        """Say that the bytes are there."""
        body = {"fileId": file_id, "actualSize": size, **more}
        return await self.client.post("/api/files/upload-complete", json=body)

    async def uploaded(self, data: bytes = PDF, **body: Any) -> str:
        """A file that is complete; its id."""
        asked = (await self.ask(**body)).json()["data"]
        self.objects.store(self.signer.puts[-1], data)
        answer = await self.complete(asked["fileId"], len(data))
        assert answer.status_code == 200, answer.text
        return str(asked["fileId"])

    async def file(self, file_id: str) -> File:
        return (await self.streams.load(file_id)).file

    async def events(self, file_id: str) -> list[str]:
        return [each.type.removeprefix("file.") for each in (await self.store.load(file_id)).events]

    def told(self) -> list[EventData]:
        """What was published beside the streams."""
        return [event_from_wire(read_json(item.value)).data for item in self.publisher.published]
