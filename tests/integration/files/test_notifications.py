"""From a bucket through its queue to facts: what the emulator really sends, by way of the poller and the translator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from deploy.local.endpoints import AwsEndpoints
from services.files.adapters.s3_notifications import S3Notifications
from services.files.domain.scans import VALIDATION_KEY
from services.files.entrypoints.ingest import split
from services.files.entrypoints.translator import Translator
from services.kit.aws import AwsAccount, s3_client, sqs_client
from services.kit.clock import SystemClock
from services.kit.facts import TranslatorCounts
from services.kit.ingest import Ingest, IngestCounts
from services.kit.kafka.records import Outcome, Park, Record
from services.kit.metrics import Metrics
from services.kit.testing.publisher import MemoryPublisher
from tests.unit.files_service.s3_examples import FILE, KEY, record
from tests.unit.policies.template import Rendered

NOTIFIED = Rendered().properties("FilesBucket")["NotificationConfiguration"]["QueueConfigurations"]
EVENTS = [each["Event"] for each in NOTIFIED]
"""What the template's bucket tells its queue."""


@dataclass
class Place:
    """A versioned bucket that tells its queue, and an ingest over that."""

    s3: Any
    sqs: Any
    bucket: str
    url: str
    raw: MemoryPublisher = field(default_factory=MemoryPublisher)

    async def heard(self, count: int) -> list[Record]:
        """Let the queue run empty; the records that came of it, of which there must be `count`."""
        metrics = Metrics()
        ingest = Ingest(
            self.sqs, self.url, split, self.raw, SystemClock(), IngestCounts(metrics), pollers=1, wait_seconds=1
        )
        await ingest.start()
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        async with asyncio.timeout(180):
            while True:
                left = await self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
                if len(self.raw.published) >= count and not any(int(left["Attributes"][name]) for name in names):
                    break
                await asyncio.sleep(0.05)
        await ingest.stop(3.0)
        assert len(self.raw.published) == count
        return [
            Record(item.topic, 0, n, 0, item.key, item.value, item.headers) for n, item in enumerate(self.raw.published)
        ]


@pytest.fixture
async def place(aws: AwsEndpoints) -> AsyncIterator[Place]:
    account = AwsAccount(aws.region, aws.access_key_id, aws.secret_access_key, aws.endpoint_url)
    name = f"files-{uuid4().hex[:8]}"
    async with AsyncExitStack() as stack:
        sqs, s3 = [await stack.enter_async_context(make(account)) for make in (sqs_client, s3_client)]
        url = (await sqs.create_queue(QueueName=name))["QueueUrl"]
        arn = (await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"]))["Attributes"]["QueueArn"]
        policy = {
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": "s3.amazonaws.com"},
                    "Action": "sqs:SendMessage",
                    "Resource": arn,
                }
            ]
        }
        await sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
        await s3.create_bucket(Bucket=name)  # the emulator lies in us-east-1, which is no location to ask for
        await s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        await s3.put_bucket_notification_configuration(
            Bucket=name,
            NotificationConfiguration={"QueueConfigurations": [{"Id": "files", "QueueArn": arn, "Events": EVENTS}]},
        )
        yield Place(s3, sqs, name, url)
        await sqs.delete_queue(QueueUrl=url)


async def test_what_happens_to_an_object_becomes_its_facts(place: Place) -> None:
    where = {"Bucket": place.bucket, "Key": KEY}
    version = (await place.s3.put_object(**where, Body=b"0123456789"))["VersionId"]
    # The emulator takes the subscription to taggings and tells of none: this is said in S3's stead.
    tagged = record("ObjectTagging:Put", bucket=place.bucket, key=KEY, version=version)
    await place.sqs.send_message(QueueUrl=place.url, MessageBody=json.dumps({"Records": [tagged]}))
    marker = (await place.s3.delete_object(**where))["VersionId"]
    await place.s3.delete_object(**where, VersionId=marker)
    await place.s3.put_object(Bucket=place.bucket, Key="some body's/ö+ä.pdf", Body=b"x")
    await place.s3.put_object(Bucket=place.bucket, Key=VALIDATION_KEY, Body=b"x")
    records = await place.heard(6)  # S3's greeting is none of them

    facts = MemoryPublisher()
    translate = Translator(S3Notifications(place.bucket), facts, TranslatorCounts(Metrics(), "s3"))
    outcomes: list[Outcome] = list(await translate(records))
    assert sorted(each.kind for each in outcomes if isinstance(each, Park)) == ["orphan"]
    told = {each["type"]: each for each in (json.loads(item.value) for item in facts.on("files.events"))}
    assert told.keys() == {
        "file.objectCreated",
        "file.objectTagged",
        "file.deleteMarkerCreated",
        "file.objectRemoved",
    }
    assert {each["subject"] for each in told.values()} == {FILE}
    created = told["file.objectCreated"]["data"]
    assert (created["versionId"], created["size"], created["eventName"]) == (version, 10, "ObjectCreated:Put")
    assert told["file.objectTagged"]["data"]["versionId"] == version
    assert told["file.deleteMarkerCreated"]["data"]["versionId"] == marker
    assert told["file.objectRemoved"]["data"]["versionId"] == marker
    order = [
        told[f"file.{name}"]["data"]["sequencer"] for name in ("objectCreated", "deleteMarkerCreated", "objectRemoved")
    ]
    assert order == sorted(order)
