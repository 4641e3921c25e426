"""Lifetimes on a real bucket and a real store, with a clock of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from deploy.local.endpoints import AwsEndpoints
from services.files.adapters.s3_objects import S3Objects
from services.files.domain.commands import Look, Restore
from services.files.domain.file import Policy
from services.files.entrypoints.sweeper import Sweeper
from services.files.handlers import Files
from services.files.ports import NoCheckpoints
from services.files.streams import FileStreams
from services.kit.aws import AwsAccount, s3_client
from services.kit.clock import SystemIds
from services.kit.event_store.mongo import MongoEventStore
from services.kit.health import Progress
from services.kit.metrics import Metrics
from services.kit.mongo import connect
from services.kit.testing import FakeClock
from tests.unit.files_service.requests import requested

PDF = b"%PDF-1.7\n" + b"x" * 500


@dataclass
class Place:
    """The files service's own parts over a bucket and a database of the test's."""

    files: Files
    clock: FakeClock
    s3: Any
    bucket: str

    async def uploaded(self, **changes: Any) -> tuple[str, str, str]:
        """A file that is complete: its id, key and version."""
        file_id = str(uuid4())
        key = f"document/2026/11/{file_id}/Zm9vYmFyMQ"
        asked = requested(
            key=key, bucket=self.bucket, expires_at=self.clock.now() + timedelta(minutes=15), **changes
        )  # fmt: skip
        await self.files.request(file_id, asked, actor=None)
        answer = await self.s3.put_object(
            Bucket=self.bucket, Key=key, Body=PDF, ContentType="application/pdf", Metadata={"file-id": file_id}
        )
        held = await self.files.look(file_id, lambda seen: Look(seen, "client"))
        assert held.file.phase == "completed"
        return file_id, key, str(answer["VersionId"])

    async def events(self, file_id: str) -> list[str]:
        stream = await self.files.streams.store.load(file_id)
        return [each.type.removeprefix("file.") for each in stream.events]


@pytest.fixture
async def place(aws: AwsEndpoints, mongo_url: str) -> AsyncIterator[Place]:
    account = AwsAccount(aws.region, aws.access_key_id, aws.secret_access_key, aws.endpoint_url)
    bucket, client, clock = f"files-{uuid4().hex[:8]}", connect(mongo_url), FakeClock()
    database = client[f"lifetime_{uuid4().hex[:8]}"]
    async with s3_client(account) as s3:
        await s3.create_bucket(Bucket=bucket)
        await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        store = MongoEventStore(database["files"], clock=clock, metrics=Metrics())
        await store.prepare()
        streams = FileStreams(store, clock, SystemIds(), Policy(), lambda _: None)
        yield Place(Files(streams, S3Objects(s3, bucket), clock, Metrics(), NoCheckpoints()), clock, s3, bucket)
    await client.drop_database(database.name)
    await client.close()


async def test_a_file_ends_with_its_lifetime_and_can_be_brought_back(place: Place) -> None:
    ends = place.clock.now() + timedelta(days=30)
    mortal, key, version = await place.uploaded(kept_until=ends)
    lasting, *_ = await place.uploaded()
    sweeper = Sweeper(place.files, "me", place.clock, Progress(place.clock))
    place.clock.move(timedelta(days=29).total_seconds())
    await sweeper.sweep()
    assert await place.events(mortal) == await place.events(lasting) == ["uploadRequested", "uploaded", "uploadClosed"]
    place.clock.move(timedelta(days=1).total_seconds())
    await sweeper.sweep()
    held = await place.files.streams.load(mortal)
    assert (held.file.phase, held.file.removal, held.file.recoverable) == ("deleted", "lifecycle", True)
    versions = await place.files.objects.versions(key)
    assert [(each.is_marker, each.version_id == version) for each in versions] == [(True, False), (False, True)]
    assert (await place.files.streams.load(lasting)).file.phase == "completed"

    await place.files.look(mortal, Restore)
    assert (await place.s3.head_object(Bucket=place.bucket, Key=key))["VersionId"] == version
    place.clock.move(timedelta(days=400).total_seconds())
    await sweeper.sweep()
    assert (await place.events(mortal))[-2:] == ["deleted", "restored"], "whoever brings it back wants it"
