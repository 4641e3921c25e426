"""The email service on real Kafka and MongoDB, the emulator and the simulator, in this process, on its own database."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer

from contracts.topics import LANES
from deploy.local.endpoints import AwsEndpoints
from deploy.local.simulator.client import SimulatorClient
from deploy.local.stack import OURS, Stack
from services.email.app import Email, Role
from services.email.domain.message import Message
from services.email.settings import EmailSettings
from services.email.streams import hold
from services.kit.errors import PermanentError
from services.kit.kafka.topics_admin import apply
from services.kit.settings import load
from tests.integration.own_stack import own_stack
from tests.unit.email_service.own_templates import write_own

SECRET = "integration-tests-only-0123456789abcdef"
HANG = 180.0
"""Seconds that only something that hangs takes."""


@dataclass
class Running:
    """One process of the service that runs in the test, and ways to talk to it."""

    email: Email
    producer: AIOKafkaProducer
    simulator: SimulatorClient
    http: httpx.AsyncClient
    position: int

    async def command(self, kind: str, message_id: str, *, lane: str = "normal", **data: Any) -> str:
        """Publish a command with a plain Kafka client and hand-written JSON."""
        envelope = {
            "specversion": "1.0", "id": str(uuid4()), "source": "crm", "type": f"email.{kind}", "subject": message_id,
            "data": {"messageId": message_id, **data},
        }  # fmt: skip
        await self.producer.send_and_wait(LANES[lane].name, json.dumps(envelope).encode(), message_id.encode())
        return message_id

    async def send(self, *to: str, lane: str = "normal", message_id: str | None = None, **fields: Any) -> str:
        """Ask for a mail; returns its id."""
        data: dict[str, Any] = {
            "to": list(to), "subject": "Hello", "text": "hello there", "category": "notification", "userId": "u1",
            "priority": lane,
        }  # fmt: skip
        return await self.command("send", message_id or str(uuid4()), lane=lane, **(data | fields))

    async def message(self, message_id: str) -> Message | None:
        held = hold(await self.email.store.load(message_id))
        assert not isinstance(held, PermanentError)
        return held.state if isinstance(held.state, Message) else None

    async def types(self, message_id: str) -> list[str]:
        return [event.type.removeprefix("email.") for event in (await self.email.store.load(message_id)).events]

    async def ends(self, message_id: str, *phases: str, seconds: float = HANG) -> None:
        """Wait until the deliveries are in these phases, in the order of the request."""

        async def there() -> bool:
            found = await self.message(message_id)
            return found is not None and [type(each).__name__ for each in found.deliveries.values()] == list(phases)

        await until(there, seconds)

    async def accepted(self, message_id: str) -> list[dict[str, Any]]:
        """What the provider's own log says of a message."""
        found = await self.simulator.acceptances(self.position)
        return [each for each in found if each["tags"].get("mailroom-message-id") in (message_id, [message_id])]

    def token(self, scope: str = "email:create email:read email:operate", user: str = "u1", role: str = "user") -> str:
        claims = {"sub": user, "role": role, "scope": scope, "exp": int(time.time()) + 600}
        return jwt.encode(claims, SECRET, "HS256")


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = HANG) -> None:
    """Wait for a condition; AssertionError after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, "not within the time limit"
        await asyncio.sleep(0.05)


@pytest.fixture(scope="session")
def own_kafka() -> Iterator[str]:
    """Bootstrap address of a Kafka with the usual topics that no other service reads."""
    with own_stack("kafka") as stack:
        yield stack.site.addresses().kafka_bootstrap


@pytest.fixture(scope="module")
def settings(
    test_stack: Stack,
    own_kafka: str,
    mongo_url: str,
    aws: AwsEndpoints,
    tmp_path_factory: pytest.TempPathFactory,
) -> EmailSettings:
    """With templates beside those that ship: `receipt`, and `reminder`, which is broken."""
    templates = tmp_path_factory.mktemp("templates")
    write_own(templates, "receipt")
    write_own(templates, "reminder", text="{{ nobody }}")
    test_stack.stop(OURS)  # where earlier tests of this process have started them, they would share the queue
    return load(
        EmailSettings,
        {
            "AWS_REGION": aws.region,
            "AWS_ACCESS_KEY_ID": aws.access_key_id,
            "AWS_SECRET_ACCESS_KEY": aws.secret_access_key,
            "AWS_ENDPOINT_URL": aws.endpoint_url,
            "AWS_ENDPOINT_URL_SESV2": aws.ses_endpoint_url,
            "MAILROOM_CONTENT_BUCKET": aws.bucket,
            "SES_CONFIGURATION_SET": aws.configuration_set,
            "AWS_SES_FROM_EMAIL": "Mailroom <no-reply@mailroom.example>",
            "MAILROOM_UNSUBSCRIBE_MAILTO": "leave@mailroom.example",
            "MAILROOM_TEMPLATES_DIR": str(templates),
            "MAILROOM_NOTIFICATIONS_QUEUE_URL": aws.queue_url,
            "MAILROOM_KAFKA_BOOTSTRAP": own_kafka,
            "MAILROOM_MONGO_URL": mongo_url,
            "MAILROOM_EMAIL_DATABASE": f"email_{uuid4().hex[:12]}",
            "MAILROOM_PUBLIC_URL": "http://127.0.0.1:8080",
            "MAILROOM_JWT_ALGORITHM": "HS256",
            "MAILROOM_JWT_SECRET": SECRET,
            "FILE_ENCRYPTION_KEY": base64.b64encode(b"k" * 32).decode(),
        },
    )


@asynccontextmanager
async def process(
    settings: EmailSettings, role: Role = "all"
) -> AsyncIterator[tuple[Email, Callable[[], Awaitable[int]]]]:
    """A process of the service; the second value tells it to stop and gives its exit status."""
    email = Email(settings, role, port=0)
    async with AsyncExitStack() as stack:
        running = await email.assemble(stack)
        task = asyncio.create_task(running.run())

        async def stop() -> int:
            if not task.done():
                running.tell("the test")
            return await task

        async def ready() -> bool:
            assert not task.done(), "the process ended"
            return (await email.health.readiness())[0]

        try:
            try:
                await until(ready)
            except AssertionError as error:
                raise AssertionError(await email.health.readiness()) from error
            yield email, stop
        finally:
            await stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(settings: EmailSettings, aws: AwsEndpoints) -> AsyncIterator[Running]:
    """One process for all tests of a module: joining its consumer groups takes longer than most of them."""
    await apply(settings.kafka_bootstrap)
    async with SimulatorClient(aws.ses_endpoint_url) as simulator:
        await simulator.settings(maxSendRate=1000)
        async with process(settings) as (email, _), plain_clients(settings, email) as (producer, http):
            yield Running(email, producer, simulator, http, await simulator.position())


@pytest_asyncio.fixture(loop_scope="module")
async def mail(running: Running) -> Running:
    """The process, and a provider without faults."""
    await running.simulator.faults()
    running.position = await running.simulator.position()
    return running


@asynccontextmanager
async def plain_clients(
    settings: EmailSettings, email: Email
) -> AsyncIterator[tuple[AIOKafkaProducer, httpx.AsyncClient]]:
    """What any service of the CRM would use."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, acks="all")
    await producer.start()
    try:
        base = f"http://127.0.0.1:{email.server.port}"
        async with httpx.AsyncClient(base_url=base, timeout=HANG, trust_env=False) as http:
            yield producer, http
    finally:
        await producer.stop()
