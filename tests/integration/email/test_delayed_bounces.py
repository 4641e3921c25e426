"""A delayed bounce of SendGrid's on the real components: it names an address alone, and finds its mail."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from deploy.local.endpoints import AwsEndpoints
from deploy.local.simulator.client import SimulatorClient
from services.email.handlers import suppressions_of
from services.email.settings import EmailSettings
from services.kit.kafka.topics_admin import apply
from tests.integration.email.conftest import Running, plain_clients, process, until


@pytest.mark.asyncio(loop_scope="module")
async def test_a_delayed_bounce_suppresses_the_recipient_of_the_one_mail_that_it_can_be_about(
    settings: EmailSettings, aws: AwsEndpoints
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    more = {
        "providers": ("sendgrid",),
        "sendgrid_key": "SG.key",
        "sendgrid_url": aws.ses_endpoint_url,
        "sendgrid_keys": (base64.b64encode(public).decode(),),
    }
    fields = type(settings).model_fields
    given = settings.model_dump(by_alias=False) | more | {"database": f"{settings.database}_late"}
    changed = type(settings).model_validate({fields[name].alias or name: value for name, value in given.items()})
    await apply(settings.kafka_bootstrap)
    async with (
        SimulatorClient(aws.ses_endpoint_url) as simulator,
        process(changed) as (email, _),
        plain_clients(changed, email) as (producer, http),
    ):
        await simulator.webhook("sendgrid", f"http://127.0.0.1:{email.server.port}/api/webhooks/sendgrid", private)
        mail = Running(email, producer, simulator, http, await simulator.position())
        address = "LateBounce@inbox.example"
        message_id = await mail.send(address)
        await mail.ends(message_id, "Sent")

        async def suppressed() -> bool:
            found = await suppressions_of(email.recipients, address, email.clock.now())
            about = [(each.scope, each.reason, each.cause.partition(":")[0]) for each in found]
            return about == [("all", "hardBounce", message_id)]

        await until(suppressed)
        await mail.ends(await mail.send(address), "Failed")
