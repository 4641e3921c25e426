"""All background connections to MongoDB are taken: requests and health checks have others."""

from __future__ import annotations

import asyncio
from uuid import uuid4

from deploy.local.endpoints import AwsEndpoints
from deploy.local.simulator.client import SimulatorClient
from services.email.settings import EmailSettings
from services.kit.kafka.topics_admin import apply
from tests.integration.email.conftest import Running, plain_clients, process
from tests.integration.taken_connections import all_connections_taken

CONNECTIONS = 2


async def test_a_mail_is_taken_and_its_content_shown(settings: EmailSettings, aws: AwsEndpoints) -> None:
    await apply(settings.kafka_bootstrap)
    few = settings.model_copy(update={"mongo_connections": CONNECTIONS})
    async with (
        SimulatorClient(aws.ses_endpoint_url) as simulator,
        process(few, "http") as (email, _),
        plain_clients(few, email) as (producer, http),
    ):
        mail = Running(email, producer, simulator, http, 0)
        headers = {"Authorization": f"Bearer {mail.token()}", "Idempotency-Key": uuid4().hex}
        body = {"to": "a@b.example", "subject": "Hi", "textContent": "hello", "category": "notification"}
        async with all_connections_taken(email.database, CONNECTIONS) as still_taken:
            answer = await http.post("/api/email", json=body, headers=headers)
            assert answer.status_code == 202
            content = await http.get(f"/api/email/{answer.json()['data']['messageId']}/content", headers=headers)
            assert content.status_code in (200, 404)  # nobody takes it in here, and looking for it needs MongoDB
            assert (await email.health.readiness())[0]
            assert still_taken()
            waiting = asyncio.create_task(email.store.load("any"))
            await asyncio.sleep(0.1)
            assert not waiting.done(), "the background has no connection left"
        await waiting
