"""S3 goes away behind a sender, falls silent or refuses us: the mail that needs it waits alone, and goes in the end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import pytest_asyncio

from deploy.local.endpoints import AwsEndpoints
from deploy.local.simulator.client import SimulatorClient
from services.email.adapters import objects
from services.email.domain.files import KnownFile, evolve
from services.email.entrypoints import sender_content
from services.email.settings import EmailSettings
from services.kit import metrics as m
from services.kit.aws import s3_client
from services.kit.kafka.topics_admin import apply
from services.kit.retry import Backoff
from tests.integration.email.conftest import Running, plain_clients, process, until
from tests.integration.lossy_proxy import LossyProxy, lossy_proxy
from tests.unit.email_service.files import key_of, upload, uploaded

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module", autouse=True)
def _short_waits() -> Iterator[None]:
    """S3 is given up and tried again within seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects, "READ_SECONDS", 2.0)
        patch.setattr(objects, "REFUSED_SECONDS", 1.0)
        patch.setattr(objects, "_BACKOFF", Backoff(first=0.5, most=1.0))
        patch.setattr(sender_content, "SHORTEST_WAIT", 0.5)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(settings: EmailSettings, aws: AwsEndpoints) -> AsyncIterator[tuple[Running, LossyProxy]]:
    """An intake that reaches everything, and a sender whose S3 lies behind a proxy; one pair for all tests."""
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


@pytest_asyncio.fixture(loop_scope="module")
async def place(both: tuple[Running, LossyProxy]) -> tuple[Running, LossyProxy]:
    """Both, with S3 in reach."""
    spoil(both[1], "fine")
    return both


def content_waits(mail: Running) -> float:
    return mail.email.metrics.value(m.CONTENT_WAITS)


async def until_waited(mail: Running, count: float) -> None:
    """Wait until the sender has put off mails `count` times in all."""

    async def waited() -> bool:
        return content_waits(mail) >= count

    await until(waited)


async def test_one_large_mail_waits_and_fifty_small_and_urgent_ones_are_sent(
    place: tuple[Running, LossyProxy],
) -> None:
    mail, proxy = place
    address = f"success+{uuid4().hex[:12]}@simulator.amazonses.com"
    waits = content_waits(mail)
    before = await mail.email.database["contents"].count_documents({"object": {"$exists": True}})
    spoil(proxy, "away")
    body = f"<p>{'x' * 300_000}</p>"
    large = [await mail.send(address, html=body, lane=lane) for lane in ("normal", "urgent")]
    small = [await mail.send(address) for _ in range(50)] + [await mail.send(address, lane="urgent") for _ in range(5)]
    for message_id in small:
        await mail.ends(message_id, "Sent")
    await until_waited(mail, waits + len(large))
    for message_id in large:
        await mail.ends(message_id, "Queued")
        assert await mail.types(message_id) == ["requested"]
    assert (await mail.email.health.readiness())[0], "the provider and the other mails are fine"
    spoil(proxy, "fine")
    for message_id in large:
        await mail.ends(message_id, "Sent")
    for message_id in (*small, *large):
        assert len(await mail.accepted(message_id)) == 1
    stored = await mail.email.database["contents"].count_documents({"object": {"$exists": True}})
    assert stored - before == len(large)


REFUSAL = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"
DENIED = b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"


def spoil(proxy: LossyProxy, how: str) -> None:
    """From now on S3 is like this."""
    proxy.down, proxy.says, proxy.pause = how == "away", None, 0.0
    if how == "refusing":
        proxy.says = DENIED % (len(REFUSAL), REFUSAL)
    if how == "silent":
        proxy.pause = 60.0


async def stored(mail: Running, settings: EmailSettings, *files: bytes) -> list[str]:
    """Files of `u1` that are there, and known to be."""
    found: list[str] = []
    async with s3_client(settings.account) as s3:
        bucket = f"crm-files-{uuid4().hex[:8]}"
        await s3.create_bucket(Bucket=bucket)
        await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        for data in files:
            file_id = str(uuid4())
            version = (await s3.put_object(Bucket=bucket, Key=key_of(file_id), Body=data))["VersionId"]
            nothing = KnownFile(file_id)
            known = evolve(nothing, upload(file_id, bucket=bucket), 1)
            known = evolve(known, uploaded(len(data), version), 2)
            assert await mail.email.files.save_many([(nothing, known)]) == set()
            found.append(file_id)
    return found


@pytest.mark.parametrize(
    "how", ["silent", *(pytest.param(how, marks=pytest.mark.long) for how in ("away", "refusing"))]
)
async def test_mail_with_files_waits_alone_and_is_tried_again(
    place: tuple[Running, LossyProxy], settings: EmailSettings, how: str
) -> None:
    mail, proxy = place
    address = f"success+{uuid4().hex[:12]}@simulator.amazonses.com"
    file_ids = await stored(mail, settings, b"%PDF-1.7 small", b"%PDF-1.7 large".ljust(2_000_000, b"."))
    waits = content_waits(mail)
    spoil(proxy, how)
    attached = [[{"fileId": each}] for each in file_ids]
    waiting = [await mail.send(address, attachments=each, lane=lane) for each in attached for lane in ("low", "urgent")]
    others = [await mail.send(address) for _ in range(30)] + [await mail.send(address, lane="urgent") for _ in range(5)]
    for message_id in others:
        await mail.ends(message_id, "Sent")
    for message_id in waiting:
        await mail.ends(message_id, "Queued")
        assert await mail.types(message_id) == ["requested"], "nothing is recorded for it, and no attempt is used"
    await until_waited(mail, waits + len(waiting))
    assert (await mail.email.health.readiness())[0], "the provider and the other mails are fine"
    spoil(proxy, "fine")
    for message_id in waiting:
        await mail.ends(message_id, "Sent")
    for message_id in (*others, *waiting):
        assert len(await mail.accepted(message_id)) == 1
