"""The one composition root of the email service: settings in, a running process out. Everything can be overridden.

    python -m services.email all | lanes | http | intake | sender | ingest | translator | settler | relay

Each role is a part of the data's way; `lanes` is intake and sender in one process, where fresh mail goes from one to
the other without a look at the store, and `all` is every part. `MAILROOM_EMAIL_LANES` says which lanes a process takes
in and sends: urgent mail can have a process of its own, so that a campaign does not share its event loop. Every process
answers /healthz, /readyz and /metrics on its port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI

from contracts.topics import LANES
from services.email.adapters.content import MongoContentStore
from services.email.adapters.dsn import DsnNotifications
from services.email.adapters.file_bytes import S3FileBytes
from services.email.adapters.known_files import MongoKnownFiles
from services.email.adapters.mailgun_notifications import MailgunNotifications
from services.email.adapters.prices import DatedPrices
from services.email.adapters.provider_board import MongoProviderBoard
from services.email.adapters.rendering import CatalogueRenderer
from services.email.adapters.sendgrid_notifications import SendGridNotifications
from services.email.adapters.ses import SesProvider
from services.email.adapters.ses_notifications import SesNotifications
from services.email.adapters.sns_certificates import SnsCertificates
from services.email.adapters.suppressions import StreamSuppressionList
from services.email.adapters.templates import DIRECTORY, Site, TemplateCatalogue
from services.email.adapters.used_tokens import MongoUsedTokens
from services.email.adapters.webhooks import MailgunWebhook, SendgridWebhook, SesWebhook, SnsSubscriptions
from services.email.adapters.writing import MailWriter
from services.email.domain.routing import Wishes
from services.email.domain.unsubscribe import UnsubscribeClaims, UnsubscribeSource, UnsubscribeTokens
from services.email.entrypoints.files_follower import FilesFollower
from services.email.entrypoints.http import email_router
from services.email.entrypoints.http_providers import providers_router
from services.email.entrypoints.http_suppressions import suppressions_router
from services.email.entrypoints.http_webhooks import webhooks_router
from services.email.entrypoints.ingest import split
from services.email.entrypoints.intake import Intake
from services.email.entrypoints.mailgun_poller import MailgunPoller
from services.email.entrypoints.provider_watch import ProviderWatch
from services.email.entrypoints.sender import Sender
from services.email.entrypoints.sender_daily import DailyLimits, daily_use
from services.email.entrypoints.sender_quota import QuotaWatch
from services.email.entrypoints.sender_work import Limits as SenderLimits
from services.email.entrypoints.settler import Settler
from services.email.entrypoints.sweeper import Sweeper
from services.email.entrypoints.translator import Translator
from services.email.entrypoints.unsubscribe_page import unsubscribe_router
from services.email.handlers import MailedUnsubscribes, RecipientStreams, StreamLookup, unsubscribe
from services.email.kafka_access import FILES, INTAKE, ROLES, SETTLER, TRANSLATOR, Role, access_of, roles_in
from services.email.ports import MailProvider, NoCheckpoints, Webhook
from services.email.provider_orders import ProviderOrders
from services.email.providers import MAKING, Parts, mailgun_events
from services.email.right_of_way import RightOfWay
from services.email.settings import EmailSettings
from services.email.streams import MessageStreams
from services.email.webhook_settings import secrets
from services.kit import aws, daily_mongo, mongo
from services.kit import metrics as m
from services.kit.addresses import recipient_keys
from services.kit.application import application
from services.kit.clock import Clock, Ids, SystemClock, SystemIds
from services.kit.component import Component, LoopComponent
from services.kit.crypto import p256_key
from services.kit.daily_mongo import MongoDailyCounts
from services.kit.errors import PermanentError, Unavailable
from services.kit.event_store.mongo import MongoEventStore
from services.kit.event_store.outbox import Outbox
from services.kit.event_store.relay import Relay, StreamPublisher
from services.kit.facts import TranslatorCounts
from services.kit.gauges import due_streams, keep_looking, parked_open
from services.kit.health import Health, Progress
from services.kit.idempotency import MongoIdempotencyKeys
from services.kit.ingest import Ingest, IngestCounts, ingest_part
from services.kit.kafka.codec import encode
from services.kit.kafka.component import consumer_part, publisher_part
from services.kit.kafka.consumer_loop import ConsumerLoop, Limits
from services.kit.kafka.publisher import KafkaPublisher
from services.kit.kafka.records import BatchHandler, Outcome, Record
from services.kit.lifecycle import Process, Stage
from services.kit.logs import configure, get_logger
from services.kit.metrics import Metrics
from services.kit.parking_mongo import MongoParkingLot
from services.kit.parking_retry import ParkedRetries
from services.kit.process_name import process_name
from services.kit.rate import RateBudget
from services.kit.rate_mongo import MongoRateLimits
from services.kit.releases_mongo import MongoReleases
from services.kit.retry import retrying
from services.kit.server import HttpServer

__all__ = ["ROLES", "Email", "Role", "run"]

log = get_logger(__name__)

VERSION = "1.0.0"

START_SECONDS = 30.0
"""How long a start waits for MongoDB before it gives up (and is started again by whoever runs it)."""

INTAKE_BATCH = 200
SETTLER_BATCH = 1000


@dataclass
class Email:
    """What a process of the email service is made of; fields not set yet are filled in by `assemble`."""

    settings: EmailSettings
    role: Role
    clock: Clock = field(default_factory=SystemClock)
    ids: Ids = field(default_factory=SystemIds)
    metrics: Metrics = field(default_factory=Metrics)
    providers: Sequence[MailProvider] = ()
    extra_routers: Sequence[APIRouter] = ()
    port: int | None = None

    def __post_init__(self) -> None:
        self.health = Health(self.clock)
        self.components: dict[str, Component] = {}
        self.first: dict[str, Component] = {}
        self.handlers: dict[str, BatchHandler] = {}
        self.right_of_way = RightOfWay(self.clock)
        self._uncorrelated = Progress(self.clock, stuck_after=float("inf"))

    def has(self, *roles: str) -> bool:
        """Whether this process plays one of these."""
        return not roles_in(self.role).isdisjoint(roles)

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
            name="mailroom-email",
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
        self._build_stores()
        await retrying(self._prepare, clock=self.clock, within=START_SECONDS)
        await self._build_content(stack)
        await self._build_sending(stack)
        self._build_consumers()
        await self._build_ingest(stack)
        self._build_background()
        server = HttpServer(
            self._application(),
            host=settings.http_host,
            port=settings.http_port if self.port is None else self.port,
            port_variable="MAILROOM_EMAIL_PORT",
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

    def _build_stores(self) -> None:
        self.store = MongoEventStore(self.database["messages"], clock=self.clock, metrics=self.metrics)
        self.recipient_store = MongoEventStore(self.database["recipients"], clock=self.clock, metrics=self.metrics)
        self.parking = MongoParkingLot(self.database, self.ring)
        self.releases = MongoReleases(self.database)
        self.idempotency = MongoIdempotencyKeys(self.for_requests, self.clock)
        self.used_tokens = MongoUsedTokens(self.for_requests, self.clock)
        self.rates = MongoRateLimits(self.database["rates"])
        self.daily_counts = MongoDailyCounts(self.database[daily_mongo.COLLECTION], self.clock)
        self.board = MongoProviderBoard(self.database)
        self.files = MongoKnownFiles(self.database)
        self.stream_publisher = StreamPublisher(self.store, self.publisher)
        self.recipient_publisher = StreamPublisher(self.recipient_store, self.publisher)
        outbox = Outbox(
            self.stream_publisher,
            self.clock,
            Progress(self.clock),
            mark_at_once=self.has("intake") and not self.has("sender"),
        )
        recipient_outbox = Outbox(self.recipient_publisher, self.clock, Progress(self.clock))
        self.outbox = outbox
        self.first["publisher"] = publisher_part(self.publisher)
        for name, box in (("outbox", outbox), ("recipients-outbox", recipient_outbox)):
            self.components[name] = LoopComponent(name, box.run, box.progress)
        self.recipient_outbox = recipient_outbox

    async def _prepare(self) -> None:
        await self.store.prepare()
        await self.recipient_store.prepare()
        await self.parking.ensure_indexes()
        await self.releases.ensure_indexes()
        await self.idempotency.prepare()
        await self.used_tokens.prepare()
        key = self.settings.address_key
        self.keys = await recipient_keys(self.database, key.get_secret_value() if key else None, self.ring)
        self.streams = self._message_streams(self.store)
        self.recipients = self._recipient_streams(self.recipient_store)

    def _message_streams(self, store: MongoEventStore) -> MessageStreams:
        return MessageStreams(
            store, self.clock, self.ids, self.settings.policy, self.keys, self.outbox.put, self.metrics
        )

    def _recipient_streams(self, store: MongoEventStore) -> RecipientStreams:
        return RecipientStreams(store, self.keys, self.clock, self.ids, self.recipient_outbox.put)

    async def _build_content(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        self.s3 = await stack.enter_async_context(aws.s3_client(settings.account))
        self.contents = MongoContentStore(self.database, self.s3, settings.bucket, self.ring, self.clock)
        await retrying(self.contents.prepare, clock=self.clock, within=START_SECONDS)
        public = settings.public_url
        site = Site(
            settings.crm_url or public,
            product_name=settings.product_name,
            portal_url=settings.portal_url,
            support_address=settings.support_address,
        )
        self.templates = TemplateCatalogue.load(DIRECTORY, site, settings.templates_directory)
        for template_id, problems in self.templates.broken.items():
            log.error("template cannot be used", template_id=template_id, problems=problems)
        self.metrics.set(m.TEMPLATES_BROKEN, len(self.templates.broken))
        tokens = self.ring.derive_all("unsubscribe")
        self.tokens = UnsubscribeTokens(tokens[0], tokens[1:])
        self.prices = DatedPrices(settings.prices)
        self.provider_orders = self._provider_orders(self.database)

    async def _build_sending(self, stack: AsyncExitStack) -> None:
        self.sender: Sender | None = None
        settings = self.settings
        if not self.providers and self.has("sender", "http"):
            writer = MailWriter(
                keys=self.keys,
                tokens=self.tokens,
                public_url=settings.public_url,
                unsubscribe_mailto=settings.unsubscribe_mailto,
            )
            parts = Parts(self.prices, writer, self.clock.now)
            self.providers = [
                await stack.enter_async_context(MAKING[name](settings, parts)) for name in settings.providers
            ]
        if not self.providers or not self.has("sender"):
            return
        owner = f"{process_name()}:{self.ids.new()}"
        self.sender = Sender(
            self.streams,
            self.contents,
            self.files,
            S3FileBytes(self.s3, self.clock),
            StreamSuppressionList(self.recipient_store, self.keys),
            self.providers,
            RateBudget(self.rates, self.clock, metrics=self.metrics),
            DailyLimits(
                self.daily_counts,
                self.clock,
                ramps=settings.ramps,
                providers=settings.daily_limits,
                carriers=[each.name for each in self.providers],
            ),
            self.clock,
            self.ids,
            self.metrics,
            NoCheckpoints(),
            lanes=settings.lanes,
            owner=owner,
            limits=SenderLimits(attachment_bytes=settings.max_attachment_bytes, bytes_in_hand=settings.bytes_in_hand),
            right_of_way=self.right_of_way,
        )
        self.sender.providers.wishes = Wishes(by=settings.provider_choice)
        for provider in self.providers:
            progress = Progress(self.clock, stuck_after=180)
            most = settings.send_rate if provider.name == "ses" else None
            quota = QuotaWatch(provider, self.rates, self.clock, progress, self.metrics, most_per_second=most)
            self.components[f"quota-{provider.name}"] = LoopComponent(f"quota-{provider.name}", quota.run, progress)
        progress = Progress(self.clock)
        watch = ProviderWatch(self.board, self.sender.providers, self.clock, owner, self.metrics, progress)
        self.components["providers"] = LoopComponent("providers", watch.run, progress)
        self.components["sender"] = self.sender

    def _build_consumers(self) -> None:
        if self.has("intake"):
            intake = Intake(
                self.streams,
                self.contents,
                CatalogueRenderer(self.templates),
                self.settings.identity,
                self.clock,
                NoCheckpoints(),
                sender=self.sender,
                right_of_way=self.right_of_way,
                roles=self.settings.command_roles,
            )
            for lane in self.settings.lanes:
                self._consume(*INTAKE[lane], intake, INTAKE_BATCH)
        if self.has("translator"):
            formats = (SesNotifications(), SendGridNotifications(), MailgunNotifications(), DsnNotifications())
            translator = Translator(
                {form.provider: form for form in formats},
                self.publisher,
                StreamLookup(self.streams),
                MailedUnsubscribes(self.streams, self.keys, self.tokens),
                TranslatorCounts(self.metrics, "ses"),
            )
            self._consume(*TRANSLATOR, self._politely(translator), SETTLER_BATCH, Limits(fetch_wait=0.1))
        if self.has("settler"):
            settler = Settler(self.streams, self.recipients, self.prices, self.clock, self.metrics, NoCheckpoints())
            # Nobody waits for what it does, and four batches a second cost far less than one for each event.
            limits = Limits(fetch_wait=0.25, fetch_bytes=1 << 18)
            self._consume(*SETTLER, self._politely(settler), SETTLER_BATCH, limits)
            follower = FilesFollower(self.files)
            self._consume(*FILES, self._politely(follower), SETTLER_BATCH, limits)
        self.retries = ParkedRetries(self.parking, self.handlers, self.clock)
        if self.has("translator"):
            self.components["uncorrelated"] = LoopComponent(
                "uncorrelated", self._retry_uncorrelated, self._uncorrelated
            )

    def _politely(self, handler: BatchHandler) -> BatchHandler:
        """The handler, after stepping aside for urgent mail."""

        async def handle(records: Sequence[Record]) -> Sequence[Outcome]:
            await self.right_of_way.step_aside()
            return await handler(records)

        return handle

    async def _retry_uncorrelated(self, stopping: asyncio.Event) -> None:
        self._uncorrelated.idle()
        await self.retries.auto_retry("uncorrelated", "email-translator", stopping)

    def _consume(self, group: str, topic: str, handler: BatchHandler, batch: int, limits: Limits | None = None) -> None:
        access_of(self.role).check(group, topic)
        self.handlers[group] = handler
        loop = ConsumerLoop(
            self.settings.kafka,
            group,
            [topic],
            handler,
            self.parking,
            releases=self.releases,
            batch=batch,
            clock=self.clock,
            metrics=self.metrics,
            limits=limits,
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
            before_receiving=self.right_of_way.step_aside,
        )
        self.components["ingest"] = ingest_part(ingest)
        if "mailgun" not in self.settings.providers:
            return
        events = await stack.enter_async_context(mailgun_events(self.settings))
        progress = Progress(self.clock, stuck_after=600)
        poller = MailgunPoller(
            self.streams,
            MailgunNotifications(),
            events.about,
            self.publisher,
            self.clock,
            progress,
            self.metrics,
            after=timedelta(seconds=self.settings.mailgun_ask_after),
        )
        self.components["mailgun"] = LoopComponent("mailgun", poller.run, progress)

    def _build_background(self) -> None:
        if not self.has("relay"):
            return
        for name, store, publisher in (
            ("relay", self.store, self.stream_publisher),
            ("recipients-relay", self.recipient_store, self.recipient_publisher),
        ):
            progress = Progress(self.clock)
            relay = Relay(store, publisher, clock=self.clock, progress=progress, metrics=self.metrics)
            self.components[name] = LoopComponent(name, relay.run, progress)
        looks = (
            parked_open(self.parking, self.metrics),
            due_streams(self.store, tuple(LANES), self.clock, self.metrics),
            daily_use(self.daily_counts, self.settings.ramps, self.settings.daily_limits, self.clock, self.metrics),
        )
        progress = Progress(self.clock)
        self.components["gauges"] = LoopComponent(
            "gauges", partial(keep_looking, looks, self.clock, progress), progress
        )
        progress = Progress(self.clock, stuck_after=300)
        sweeper = Sweeper(self.streams, self.contents, self.clock, progress)
        self.components["sweeper"] = LoopComponent("sweeper", sweeper.run, progress)

    # --- HTTP ---

    def _application(self) -> FastAPI:
        return application(
            self.settings,
            self.clock,
            service="email",
            version=VERSION,
            health=self.health,
            metrics=self.metrics,
            routers=[*(self._routers() if self.has("http") else ()), *self.extra_routers],
            writes="send",
            ids=self.ids,
        )

    def _routers(self) -> list[APIRouter]:
        """Over a MongoDB client of their own: a request never waits behind bulks."""
        provider_lists = [each for each in self.providers if isinstance(each, SesProvider)]
        database = self.for_requests
        store = MongoEventStore(database["messages"], clock=self.clock, metrics=self.metrics)
        recipient_store = MongoEventStore(database["recipients"], clock=self.clock, metrics=self.metrics)
        recipients = self._recipient_streams(recipient_store)
        unsubscribing = partial(self._unsubscribe, self._message_streams(store), recipients)
        return [
            email_router(
                contents=MongoContentStore(database, self.s3, self.settings.bucket, self.ring, self.clock),
                publisher=self.publisher,
                streams=store,
                idempotency=self.idempotency,
                templates=self.templates,
                clock=self.clock,
                ids=self.ids,
                scoped=self.settings.scoped,
                roles=self.settings.command_roles,
                max_attachment_bytes=self.settings.max_attachment_bytes,
            ),
            suppressions_router(
                recipients=recipients,
                provider_lists=provider_lists,
                idempotency=self.idempotency,
                clock=self.clock,
                ids=self.ids,
            ),
            providers_router(self._provider_orders(database)),
            unsubscribe_router(self.tokens, unsubscribing, product_name=self.settings.product_name),
            webhooks_router(
                self._webhooks(),
                publisher=self.publisher,
                tokens=self.used_tokens,
                subscriptions=SnsSubscriptions(self.settings.account),
                metrics=self.metrics,
            ),
        ]

    def _provider_orders(self, database: mongo.Database) -> ProviderOrders:
        settings = self.settings
        return ProviderOrders(
            MongoProviderBoard(database),
            settings.providers,
            [each.template_id for each in self.templates.list()],
            MongoDailyCounts(database[daily_mongo.COLLECTION], self.clock),
            settings.daily_limits,
            settings.ramps,
        )

    def _webhooks(self) -> list[Webhook]:
        """Those of providers that are set up."""
        settings, now = self.settings, self.clock.now
        found: list[Webhook] = []
        if settings.sns_topics:
            found.append(SesWebhook(settings.sns_topics, SnsCertificates(), now, settings.sns_max_age))
        if settings.sendgrid_keys:
            keys = [p256_key(each) for each in settings.sendgrid_keys]
            found.append(SendgridWebhook(keys, now, settings.sendgrid_max_age))
        if settings.mailgun_keys:
            found.append(MailgunWebhook(secrets(settings.mailgun_keys), now, settings.mailgun_max_age))
        return found

    async def _unsubscribe(
        self,
        streams: MessageStreams,
        recipients: RecipientStreams,
        claims: UnsubscribeClaims,
        source: UnsubscribeSource,
    ) -> None:
        """The suppression stands first; the fact for the log may come late, since its cause is known then.

        Raises what kept it from being recorded: nobody is told that they left a list while they did not.
        """
        fact = await unsubscribe(streams, recipients, claims, source, self.clock.now())
        if fact is None:
            raise PermanentError("unknownMessage", "the message of this link is not known here (any more)")
        (error,) = await self.publisher.publish([encode(fact)])
        if error is not None:
            raise error


async def run(role: Role, settings: EmailSettings, **overrides: Any) -> int:
    """One process of the service, until it is told to stop; the exit status."""
    configure(settings.log_level, settings.log_format, service=f"email-{role}", secrets=settings.secret_values())
    email = Email(settings, role, **overrides)
    email.metrics.describe_build("email", VERSION)
    return await email.run()
