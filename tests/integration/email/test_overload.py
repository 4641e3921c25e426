"""More callers than a process of the email service answers at a time, over HTTP and down to MongoDB and Kafka."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import httpx

from deploy.local.endpoints import AwsEndpoints
from deploy.local.simulator.client import SimulatorClient
from services.email.settings import EmailSettings
from services.kit.kafka.topics_admin import apply
from services.kit.metrics import HTTP_SHED, MONGO_IN_FLIGHT, MONGO_WAITING
from tests.integration.email.conftest import Running, plain_clients, process

MOST, CALLERS = 4, 80


async def test_each_caller_gets_202_or_503_at_once_and_what_was_taken_is_there(
    settings: EmailSettings, aws: AwsEndpoints
) -> None:
    await apply(settings.kafka_bootstrap)
    few = settings.model_copy(update={"requests_in_flight": MOST})
    async with (
        SimulatorClient(aws.ses_endpoint_url) as simulator,
        process(few, "http") as (email, _),
        plain_clients(few, email) as (producer, http),
    ):
        mail = Running(email, producer, simulator, http, 0)
        body = {"to": "a@b.example", "subject": "Hi", "textContent": "hello", "category": "notification"}

        async def call() -> httpx.Response:
            headers = {"Authorization": f"Bearer {mail.token()}", "Idempotency-Key": uuid4().hex}
            return await http.post("/api/email", json=body, headers=headers, timeout=60)

        answers = await asyncio.gather(*(call() for _ in range(CALLERS)))
        taken = [answer.json()["data"]["messageId"] for answer in answers if answer.status_code == 202]
        refused = [answer for answer in answers if answer.status_code != 202]
        assert {(answer.status_code, answer.headers["retry-after"]) for answer in refused} == {(503, "2")}
        assert email.metrics.value(HTTP_SHED, service="email") == len(refused)
        assert len(taken) >= MOST
        stored = await email.database["contents"].distinct("messageId")
        assert sorted(stored) == sorted(taken), "what was refused left nothing"

        assert (await call()).status_code == 202
        for client in ("mailroom-email", "mailroom-email-background"):
            assert email.metrics.value(MONGO_WAITING, client=client) == 0
        assert email.metrics.value(MONGO_IN_FLIGHT, client="mailroom-email") == 0
