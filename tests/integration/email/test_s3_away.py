"""S3 goes away behind a sender: the mail that needs it waits alone, and goes once it is back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import pytest_asyncio

from deploy.local.endpoints import AwsEndpoints
from deploy.local.simulator.client import SimulatorClient
from services.email.settings import EmailSettings
from services.kit import metrics as m
from services.kit.kafka.topics_admin import apply
from tests.integration.email.conftest import Running, plain_clients, process
from tests.integration.lossy_proxy import LossyProxy, lossy_proxy

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def place(settings: EmailSettings, aws: AwsEndpoints) -> AsyncIterator[tuple[Running, LossyProxy]]:
    """An intake that reaches everything, and a sender whose S3 lies behind a proxy."""
    await apply(settings.kafka_bootstrap)
    async with (
        lossy_proxy(urlsplit(aws.endpoint_url).port or 80) as proxy,
        SimulatorClient(aws.ses_endpoint_url) as simulator,
    ):
        await simulator.reset()
        await simulator.settings(maxSendRate=1000)
        behind = settings.model_copy(update={"aws_endpoint": f"http://127.0.0.1:{proxy.port}"})
        async with (
            process(settings, "intake") as (intake, _),
            process(behind, "sender") as (sender, _),
            plain_clients(settings, intake) as (producer, http),
        ):
            yield Running(sender, producer, simulator, http, await simulator.position()), proxy


async def test_one_large_mail_waits_and_fifty_small_and_urgent_ones_are_sent(
    place: tuple[Running, LossyProxy],
) -> None:
    mail, proxy = place
    address = f"success+{uuid4().hex[:12]}@simulator.amazonses.com"
    proxy.down = True
    body = f"<p>{'x' * 300_000}</p>"
    large = [await mail.send(address, html=body, lane=lane) for lane in ("normal", "urgent")]
    small = [await mail.send(address) for _ in range(50)] + [await mail.send(address, lane="urgent") for _ in range(5)]
    for message_id in small:
        await mail.ends(message_id, "Sent")
    for message_id in large:
        await mail.ends(message_id, "Queued")
        assert await mail.types(message_id) == ["requested"]
    assert mail.email.metrics.value(m.CONTENT_WAITS) >= 2
    assert (await mail.email.health.readiness())[0], "the provider and the other mails are fine"
    proxy.down = False
    for message_id in large:
        await mail.ends(message_id, "Sent", seconds=90)
    for message_id in (*small, *large):
        assert len(await mail.accepted(message_id)) == 1
    objects = await mail.email.database["contents"].count_documents({"object": {"$exists": True}})
    assert objects == len(large)
