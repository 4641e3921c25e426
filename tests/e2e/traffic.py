"""Load as upstream services make it: hand-written JSON through a plain Kafka client, and plain HTTP calls.

Everything is drawn from one seed. What was acknowledged (acks=all, or 202) is owed; what was not may or may not exist,
and over HTTP is repeated under the same key until it is acknowledged, as the API asks its callers to do.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from contracts.email.events import EmailOpened
from contracts.envelope import Envelope
from contracts.ids import uuid7
from contracts.topics import EMAIL_EVENTS, LANES
from deploy.local.simulator.client import SimulatorClient
from deploy.local.stack import Stack
from services.kit.auth import mint_token
from tests.e2e.judge import Expected, Json

USUAL = ("success",) * 12 + (
    "open",
    "click",
    "delay",
    "bounce",
    "complaint",
    "ooto",
    "softbounce",
    "reject",
    "blackhole",
)
"""Behaviours of the simulator as often as a mix of mail has them, more or less."""

CATEGORIES = ("notification", "system", "client-portal")

PATIENCE = 0.5
LONGEST_PATIENCE = 4.0
"""Seconds before what was not acknowledged is repeated: more each time, up to the longest."""


@dataclass
class Traffic:
    """One run's mail.

    Attributes:
        requested: message id → recipients of everything that was acknowledged.
        published_at: message id → when its command was handed to Kafka, on the machine's clock (seconds).
        refusals: answers other than 202, by status; 0 where there was no answer.
        came_out: how many mails the provider has accepted; `watched_by` keeps it up to date.
    """

    seed: int
    producer: AIOKafkaProducer
    http: httpx.AsyncClient
    behaviours: Sequence[str] = USUAL
    categories: Sequence[str] = CATEGORIES
    http_share: float = 0.2
    requested: dict[str, frozenset[str]] = field(default_factory=dict)
    published_at: dict[str, float] = field(default_factory=dict)
    unsure: dict[str, frozenset[str]] = field(default_factory=dict)
    refusals: dict[int, int] = field(default_factory=dict)
    came_out: int = 0

    def __post_init__(self) -> None:
        self.run = uuid.uuid4().hex[:8]
        self._random = random.Random(self.seed)
        self._count = 0
        self._recipients = 0
        self._on_their_way: list[asyncio.Task[Any]] = []

    # --- what is sent ---

    def mail(self, *, priority: str | None = None, recipients: int | None = None) -> Json:
        """The next mail, in the names of `email.send`'s data but without ids."""
        self._count += 1
        chance = self._random
        count = recipients or chance.choice((1, 1, 1, 2, 3))
        self._recipients += count
        to = [f"{chance.choice(self.behaviours)}+{self.run}-{self._count}-{n}@inbox.example" for n in range(count)]
        return {
            "to": to,
            "subject": f"Traffic {self.run} number {self._count}",
            "text": f"This is mail {self._count} of run {self.run}.",
            "html": f'<p>This is mail {self._count}. <a href="https://crm.example/">Open it</a></p>',
            "category": chance.choice(self.categories),
            "priority": priority or chance.choice(tuple(LANES)),
            "tags": {"n": f"{self.run}-{self._count}"},
        }

    async def flow(self, per_second: float, until: asyncio.Event, *, backlog: float = math.inf) -> None:
        """Send at this pace until told to stop, then wait for what is on its way.

        While more than `backlog` recipients have got nothing yet (`came_out` says how many have), none is sent: what a
        slow machine cannot do in time would only be waited for in the end.
        """
        clock = asyncio.get_running_loop().time
        following = clock()
        while not until.is_set():
            if self._recipients - self.came_out <= backlog:
                self.send()
            following = max(following + 1 / per_second, clock() - 1)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, following - clock())):
                    await until.wait()
        await self.sent()

    async def watched_by(self, simulator: SimulatorClient, until: asyncio.Event) -> None:
        """Keep `came_out` up to date until told to stop."""
        before = (await simulator.health())["accepted"]
        while not until.is_set():
            self.came_out = (await simulator.health())["accepted"] - before
            await asyncio.sleep(1)

    def send(self) -> None:
        """Send the next mail by one of the doors, in the background."""
        by_http = self._random.random() < self.http_share
        task: asyncio.Task[Any] = asyncio.create_task(
            self._by_http(self.mail()) if by_http else self.by_kafka(self.mail())
        )
        self._on_their_way.append(task)

    async def sent(self) -> None:
        """Wait until everything is acknowledged. AssertionError for an answer that no caller should get."""
        await asyncio.gather(*self._on_their_way)

    async def busy_message(self, until: asyncio.Event, *, facts: int, per_second: float) -> None:
        """One mail whose recipient opens it without end: more facts than its document holds inline.

        `facts` at once and then so many a second until told to stop, straight on the log, as the translator would.
        """
        message_id = await self.by_kafka(self.mail(recipients=1))
        (recipient,) = self.requested[message_id]
        began = datetime.now(UTC)
        for number in itertools.count():
            if number >= facts:
                await asyncio.sleep(1 / per_second)
            if until.is_set():
                return
            with suppress(KafkaError):
                await self.producer.send(
                    EMAIL_EVENTS.name, _opened(message_id, recipient, number, began), key=message_id.encode()
                )

    # --- the doors ---

    async def by_kafka(self, mail: Json) -> str:
        """Publish `email.send`; the message's id. What Kafka did not acknowledge is published again, as it is."""
        message_id = uuid7()
        owed = frozenset(mail["to"])
        self.unsure[message_id] = owed
        record = command(message_id, {"messageId": message_id, "userId": f"traffic-{self.run}", **mail})
        topic = f"email.commands.{mail['priority']}"
        self.published_at[message_id] = time.time()
        for _ in range(20):
            try:
                await self.producer.send_and_wait(topic, record, key=message_id.encode())
            except (KafkaError, TimeoutError):
                await asyncio.sleep(PATIENCE)
            else:
                del self.unsure[message_id]
                self.requested[message_id] = owed
                break
        return message_id

    async def _by_http(self, mail: Json) -> None:
        body = {**mail, "textContent": mail["text"], "htmlContent": mail["html"]}
        del body["text"], body["html"]
        key = str(uuid.uuid4())
        for number in range(60):
            status = 0
            with suppress(httpx.HTTPError):
                answer = await self.http.post("/api/email", json=body, headers={"Idempotency-Key": key})
                status = answer.status_code
                if status == 202:
                    self.requested[answer.json()["data"]["messageId"]] = frozenset(mail["to"])
                    return
            self.refusals[status] = self.refusals.get(status, 0) + 1
            assert status in (0, 502, 503, 504), f"POST /api/email answered {status} {answer.text}"
            await asyncio.sleep(min(PATIENCE * 1.5**number, LONGEST_PATIENCE))
        raise AssertionError("a POST /api/email was not taken on in minutes")

    def give_up(self) -> None:
        """Stop what is on its way."""
        for task in self._on_their_way:
            task.cancel()

    # --- what is owed ---

    @property
    def ids(self) -> set[str]:
        """Every message that may exist, but for unacknowledged HTTP calls."""
        return {*self.requested, *self.unsure}

    def expected(self, **more: Any) -> Expected:
        """What the judge is to hold the system to. `more`: fields of `Expected`."""
        return Expected(self.requested, **more)


def _opened(message_id: str, recipient: str, number: int, began: datetime) -> bytes:
    return Envelope(
        id=str(uuid.uuid5(uuid.UUID(message_id), str(number))),
        source="/traffic",
        type="email.opened",
        subject=message_id,
        time=began + timedelta(milliseconds=number),
        correlationid=message_id,
        revision=1,
        data=EmailOpened(recipient=recipient, provider="ses", machine=number % 3 == 0),
    ).to_bytes()


def command(message_id: str, data: Json, **attributes: Any) -> bytes:
    """`email.send` as somebody without our contracts would write it."""
    event = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "/crm/traffic", "type": "email.send"}
    return json.dumps({**event, "subject": message_id, "data": data, **attributes}).encode()


@asynccontextmanager
async def traffic(stack: Stack, seed: int, **options: Any) -> AsyncIterator[Traffic]:
    """Traffic on a stack that is up, straight to the email service and Kafka."""
    env = stack.env()
    producer = AIOKafkaProducer(
        bootstrap_servers=env["MAILROOM_KAFKA_BOOTSTRAP"], acks="all", enable_idempotence=True, linger_ms=2
    )
    token = mint_token(env["MAILROOM_JWT_SECRET"], f"traffic-{seed}", ["email:create", "email:read"])
    headers = {"Authorization": f"Bearer {token}"}
    await producer.start()
    try:
        async with httpx.AsyncClient(base_url=stack.site.url("email"), headers=headers, timeout=15) as http:
            load = Traffic(seed, producer, http, **options)
            try:
                yield load
            finally:
                load.give_up()
    finally:
        await producer.stop()
