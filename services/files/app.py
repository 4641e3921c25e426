"""The one composition root of the files service: settings in, a running process out.

    python -m services.files all | http | commands | ingest | translator | settler | relay

Each role is a part of the data's way, and `all` is every part; `relay` also sweeps. Every process answers /healthz,
/readyz and /metrics on its port.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI

from services.files.adapters.cloudfront import CloudFront
from services.files.adapters.mongo_quotas import MongoQuotas
from services.files.adapters.s3_notifications import S3Notifications
from services.files.adapters.s3_objects import S3Objects
from services.files.adapters.s3_signer import S3Signer
from services.files.entrypoints.commands import CommandIntake
from services.files.entrypoints.http_categories import categories_router
from services.files.entrypoints.http_files import files_router
from services.files.entrypoints.http_uploads import Terms, uploads_router
from services.files.entrypoints.ingest import split
from services.files.entrypoints.settler import Settler
from services.files.entrypoints.sweeper import Sweeper
from services.files.entrypoints.translator import Translator
from services.files.entrypoints.upload_tokens import UploadTokens
from services.files.handlers import Files
from services.files.kafka_access import COMMANDS, ROLES, SETTLER, TRANSLATOR, Role, access_of
from services.files.links import Links
from services.files.ports import NoCheckpoints
from services.files.quotas import UploadQuotas
from services.files.settings import FilesSettings
from services.files.streams import LANE, FileStreams
from services.kit import aws, mongo
from services.kit.application import application
from services.kit.clock import Clock, Ids, SystemClock, SystemIds
from services.kit.component import Component, LoopComponent
from services.kit.errors import Unavailable
from services.kit.event_store.mongo import MongoEventStore
from services.kit.event_store.outbox import Outbox
from services.kit.event_store.relay import Relay, StreamPublisher
from services.kit.facts import TranslatorCounts
from services.kit.gauges import due_streams, keep_looking, parked_open
from services.kit.health import Health, Progress
from services.kit.idempotency import MongoIdempotencyKeys
from services.kit.ingest import Ingest, IngestCounts, ingest_part
from services.kit.kafka.component import consumer_part, publisher_part
from services.kit.kafka.consumer_loop import ConsumerLoop
from services.kit.kafka.publisher import KafkaPublisher
from services.kit.kafka.records import BatchHandler
from services.kit.lifecycle import Process, Stage
from services.kit.logs import configure
from services.kit.metrics import Metrics
from services.kit.mongo import Database
from services.kit.parking_mongo import MongoParkingLot
from services.kit.parking_retry import ParkedRetries
from services.kit.process_name import process_name
from services.kit.releases_mongo import MongoReleases
from services.kit.retry import retrying
from services.kit.server import HttpServer

__all__ = ["ROLES", "FilesService", "Role", "run"]

VERSION = "1.0.0"

START_SECONDS = 30.0
"""How long a start waits for MongoDB and S3 before it gives up (and is started again by whoever runs it)."""

BATCH = 200


@dataclass
class FilesService:
    """What a process of the files service is made of."""

    settings: FilesSettings
    role: Role
    clock: Clock = field(default_factory=SystemClock)
    ids: Ids = field(default_factory=SystemIds)
    metrics: Metrics = field(default_factory=Metrics)
    port: int | None = None

    def __post_init__(self) -> None:
        self.health = Health(self.clock)
        self.components: dict[str, Component] = {}
        self.first: dict[str, Component] = {}
        self.handlers: dict[str, BatchHandler] = {}

    def has(self, *roles: str) -> bool:
        """Whether this process plays one of these."""
        return self.role == "all" or self.role in roles

    async def run(self) -> int:
        """Assemble, run until a signal comes or a part dies; the exit status."""
        async with AsyncExitStack() as stack:
            process = await self.assemble(stack)
            return await process.run()

    # --- putting it together ---

    async def assemble(self, stack: AsyncExitStack) -> Process:
        """Connect and build; what is opened is closed with `stack`. Raises SettingsError, Unavailable."""
        settings = self.settings
        for_requests, in_background = mongo.connect_apart(
            settings.mongo_url.get_secret_value(),
            name="mailroom-files",
            connections=settings.mongo_connections,
            serves=self.has("http"),
            metrics=self.metrics,
        )
        stack.push_async_callback(for_requests.close)
        stack.push_async_callback(in_background.close)
        self.for_requests = for_requests[settings.database]
        self.database = in_background[settings.database]
        self.ring = settings.key_ring()
        self.health.depends_on("MongoDB", partial(mongo.ping, for_requests))
        self.publisher = KafkaPublisher(
            settings.kafka,
            publishes=access_of(self.role).writes,
            clock=self.clock,
            metrics=self.metrics,
        )
        self.health.depends_on("Kafka", self._kafka)
        self.first["publisher"] = publisher_part(self.publisher)
        await self._build_objects(stack)
        self._build_stores()
        await retrying(self._prepare, clock=self.clock, within=START_SECONDS)
        self._build_consumers()
        await self._build_ingest(stack)
        self._build_background()
        server = HttpServer(
            self._application(),
            host=settings.http_host,
            port=settings.http_port if self.port is None else self.port,
            port_variable="MAILROOM_FILES_PORT",
            trusted_proxies=settings.trusted_proxies,
        )
        self.server = server
        stages = [
            Stage("outgoing", self.first, 2.5),
            Stage("loops", self.components, 8.5),
            Stage("http", {"http": server}, 4.5),
        ]
        return Process(stages, health=self.health, metrics=self.metrics)

    async def _kafka(self) -> None:
        if trouble := self.publisher.trouble:
            raise Unavailable("Kafka", trouble)

    async def _build_objects(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        client = await stack.enter_async_context(aws.s3_client(settings.account))
        self.objects = S3Objects(client, settings.bucket, tag_uploads=settings.tag_uploads)
        public = client
        if settings.s3_public_endpoint is not None:
            outside = replace(settings.account, endpoint_url=settings.s3_public_endpoint)
            public = await stack.enter_async_context(aws.s3_client(outside))
        self.signer = S3Signer(
            public, settings.bucket, self.clock.now, _credentials_end(public), tag_uploads=settings.tag_uploads
        )
        self.distribution: CloudFront | None = None
        if settings.cloudfront_domain is not None:
            key = settings.cloudfront_private_key
            self.distribution = CloudFront(
                settings.cloudfront_domain,
                settings.cloudfront_key_pair_id or "",
                "" if key is None else key.get_secret_value(),
                self.clock.now,
            )

    def _build_stores(self) -> None:
        self.store = MongoEventStore(self.database["files"], clock=self.clock, metrics=self.metrics)
        self.parking = MongoParkingLot(self.database, self.ring)
        self.releases = MongoReleases(self.database)
        self.idempotency = MongoIdempotencyKeys(self.for_requests, self.clock)
        self.stream_publisher = StreamPublisher(self.store, self.publisher)
        self.outbox = Outbox(self.stream_publisher, self.clock, Progress(self.clock))
        self.components["outbox"] = LoopComponent("outbox", self.outbox.run, self.outbox.progress)
        self.files = self._files(self.database)

    def _files(self, database: Database) -> Files:
        store = MongoEventStore(database["files"], clock=self.clock, metrics=self.metrics)
        streams = FileStreams(store, self.clock, self.ids, self.settings.policy, self.outbox.put)
        quotas = UploadQuotas(
            MongoQuotas(database),
            self.settings.user_quota(),
            self.settings.client_quota(),
            self.settings.limit_service_factor,
        )
        return Files(streams, self.objects, self.clock, self.metrics, NoCheckpoints(), quotas)

    async def _prepare(self) -> None:
        await self.objects.check()
        await self.store.prepare()
        await self.parking.ensure_indexes()
        await self.releases.ensure_indexes()
        await self.idempotency.prepare()
        await MongoQuotas(self.database).prepare()

    def _build_consumers(self) -> None:
        if self.has("commands"):
            intake = CommandIntake(self.files, self.settings.categories, self.settings.command_roles)
            self._consume(*COMMANDS, intake)
        if self.has("translator"):
            form = S3Notifications(self.settings.bucket)
            translator = Translator(form, self.publisher, TranslatorCounts(self.metrics, "s3"))
            self._consume(*TRANSLATOR, translator)
        if self.has("settler"):
            self._consume(*SETTLER, Settler(self.files))

        self.retries = ParkedRetries(self.parking, self.handlers, self.clock)

    def _consume(self, group: str, topic: str, handler: BatchHandler) -> None:
        access_of(self.role).check(group, topic)
        self.handlers[group] = handler
        loop = ConsumerLoop(
            self.settings.kafka,
            group,
            [topic],
            handler,
            self.parking,
            releases=self.releases,
            batch=BATCH,
            clock=self.clock,
            metrics=self.metrics,
        )
        self.components[group] = consumer_part(loop)

    async def _build_ingest(self, stack: AsyncExitStack) -> None:
        if not self.has("ingest"):
            return
        sqs = await stack.enter_async_context(aws.sqs_client(self.settings.account))
        ingest = Ingest(
            sqs,
            self.settings.queue_url,
            split,
            self.publisher,
            self.clock,
            IngestCounts(self.metrics),
            visibility_seconds=self.settings.queue_visibility_seconds,
        )
        self.components["ingest"] = ingest_part(ingest)

    def _build_background(self) -> None:
        if not self.has("relay"):
            return
        progress = Progress(self.clock)
        relay = Relay(self.store, self.stream_publisher, clock=self.clock, progress=progress, metrics=self.metrics)
        self.components["relay"] = LoopComponent("relay", relay.run, progress)
        looks = (
            parked_open(self.parking, self.metrics),
            due_streams(self.store, (LANE,), self.clock, self.metrics),
        )
        progress = Progress(self.clock)
        self.components["gauges"] = LoopComponent(
            "gauges", partial(keep_looking, looks, self.clock, progress), progress
        )
        progress = Progress(self.clock, stuck_after=600)
        owner = f"{process_name()}:{self.ids.new()}"
        sweeper = Sweeper(self.files, owner, self.clock, progress)
        self.components["sweeper"] = LoopComponent("sweeper", sweeper.run, progress)

    # --- HTTP ---

    def _application(self) -> FastAPI:
        return application(
            self.settings,
            self.clock,
            service="files",
            version=VERSION,
            health=self.health,
            metrics=self.metrics,
            routers=self._routers() if self.has("http") else (),
            writes="upload",
            ids=self.ids,
        )

    def _routers(self) -> list[APIRouter]:
        """Over a MongoDB client of their own: a request never waits behind bulks."""
        settings, files = self.settings, self._files(self.for_requests)
        links = Links(
            self.signer,
            self.distribution,
            self.publisher,
            settings.inline_types,
            timedelta(minutes=settings.download_minutes),
            self.clock,
            self.ids,
        )
        uploads = uploads_router(
            files=files,
            signer=self.signer,
            tokens=UploadTokens(self.ring.derive_all("upload")),
            idempotency=self.idempotency,
            rules=settings.categories,
            terms=Terms(timedelta(minutes=settings.upload_minutes), timedelta(hours=settings.multipart_hours)),
            bucket=settings.bucket,
            region=settings.region,
            clock=self.clock,
            ids=self.ids,
        )
        categories = categories_router(settings.categories)
        return [categories, uploads, files_router(files=files, links=links, rules=settings.categories)]


def _credentials_end(client: Any) -> Callable[[], Awaitable[datetime | None]]:
    """When the client's credentials run out; None for lasting ones. The client library tells it nowhere in public."""

    async def end() -> datetime | None:
        credentials = client._request_signer._credentials  # noqa: SLF001
        if credentials is not None:
            await (
                credentials.get_frozen_credentials()
            )  # temporary ones are renewed now, and not by the signing after it
        found: datetime | None = getattr(credentials, "_expiry_time", None)
        return found

    return end


async def run(role: Role, settings: FilesSettings, **overrides: Any) -> int:
    """One process of the service, until it is told to stop; the exit status."""
    configure(settings.log_level, settings.log_format, service=f"files-{role}", secrets=settings.secret_values())
    files = FilesService(settings, role, **overrides)
    files.metrics.describe_build("files", VERSION)
    return await files.run()
