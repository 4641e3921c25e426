"""Gathers the evidence of files from a running stack, and waits until there is nothing more to come.

Asks S3, Kafka and MongoDB directly: what the service says of itself is not evidence.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from contracts.topics import FILES_EVENTS
from deploy.local.endpoints import aws_endpoints
from services.files.domain.names import file_of
from tests.e2e.evidence import Observer, Since
from tests.e2e.files_judge import FilesEvidence, FilesExpected, Stored, problems
from tests.e2e.judge import assert_none
from tests.e2e.uploads import Uploads


class FilesObserver:
    """The files of one stack as seen from outside."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
        aws = aws_endpoints(observer.stack)
        self.bucket = aws.files_bucket
        self.s3: Any = aws.client("s3")

    async def assert_fair(self, since: Since, load: Uploads, seconds: float, **expected: Any) -> FilesEvidence:
        """Wait until all is at rest, at most so long; AssertionError with every contradiction of what is there then."""
        wanted = FilesExpected({case.file_id: case for case in load.cases}, **expected)
        evidence = await self._at_rest(since, load, wanted.files, seconds)
        assert_none(problems(evidence, wanted))
        return evidence

    async def gather(self, since: Since, user: str, file_ids: Collection[str]) -> FilesEvidence:
        """The evidence about these files, all others of this user, and the system as a whole."""
        observer = self.observer
        streams = {each["_id"]: each async for each in observer.files["files"].find({"userId": user})}
        wanted = {*file_ids, *streams}
        keys = {name.encode() for name in wanted}
        name = await observer.read_model("file")
        stored = await asyncio.to_thread(self._stored, since)
        named = {file_id for each in stored if (file_id := file_of(each.key)) is not None}
        owned = {
            each["_id"]: _key_of(each) async for each in observer.files["files"].find({"_id": {"$in": list(named)}})
        }
        return FilesEvidence(
            log=[each for each in await observer.log(FILES_EVENTS.name, since) if each.key in keys],
            documents={each["_id"]: each async for each in observer.events[name].find({"_id": {"$in": list(wanted)}})},
            rows=[each async for each in observer.events[f"{name}__facts"].find({"aggregate": {"$in": list(wanted)}})],
            streams=streams,
            stored=stored,
            keys=owned,
            open_uploads=await asyncio.to_thread(self._open_uploads, streams),
            parked=[what async for what in observer.parked(since)],
            lag=await observer.lag(),
            queues={queue: count for queue, count in (await observer.queues()).items() if count},
        )

    @asynccontextmanager
    async def no_notifications(self) -> AsyncIterator[None]:
        """Meanwhile S3 tells nobody of anything."""
        asked = await asyncio.to_thread(self.s3.get_bucket_notification_configuration, Bucket=self.bucket)
        before = {name: value for name, value in asked.items() if name != "ResponseMetadata"}

        def tell(configuration: dict[str, Any]) -> None:
            self.s3.put_bucket_notification_configuration(Bucket=self.bucket, NotificationConfiguration=configuration)

        await asyncio.to_thread(tell, {})
        try:
            yield
        finally:
            await asyncio.to_thread(tell, before)

    # --- inside ---

    async def _at_rest(self, since: Since, load: Uploads, file_ids: Collection[str], seconds: float) -> FilesEvidence:
        """The evidence when nothing is on its way, mail of the same test included; or what is there when time is up:
        let the judge say what is wrong.
        """
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            late = asyncio.get_running_loop().time() > deadline
            if late or not await self._goes_on(load):
                evidence = await self.gather(since, load.user, file_ids)
                if late or not (evidence.lag or evidence.queues):
                    return evidence
            await asyncio.sleep(0.3)

    async def _goes_on(self, load: Uploads) -> bool:
        """Whether anything is still on its way; looked at along the data's way."""
        observer = self.observer
        if any((await observer.queues()).values()):
            return True
        pending = {"pendingSince": {"$exists": True}}
        if await observer.lag() or await observer.files["files"].find_one(pending) is not None:
            return True
        name = await observer.read_model("file")
        wanted = {case.file_id: case.status for case in load.cases}
        found = {
            each["_id"]: each.get("status")
            async for each in observer.events[name].find({"_id": {"$in": list(wanted)}}, {"status": 1})
        }
        return found != wanted or any((await observer.queues()).values())

    def _stored(self, since: Since) -> list[Stored]:
        found: list[Stored] = []
        begun = since.at.replace(microsecond=0)
        for page in self.s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket):
            markers, versions = (
                [each for each in page.get(kind, ()) if each["LastModified"] >= begun]
                for kind in ("DeleteMarkers", "Versions")
            )
            found += [Stored(each["Key"], each["VersionId"], each["IsLatest"], is_marker=True) for each in markers]
            found += [self._version(each["Key"], each["VersionId"], each["IsLatest"]) for each in versions]
        return found

    def _version(self, key: str, version_id: str, is_latest: bool) -> Stored:
        what = {"Bucket": self.bucket, "Key": key, "VersionId": version_id}
        answer = self.s3.get_object(**what)
        data = answer["Body"].read()
        tags = {"public": "false"}
        if is_latest:  # under a marker the emulator does not tell tags
            tags = {each["Key"]: each["Value"] for each in self.s3.get_object_tagging(**what)["TagSet"]}
        return Stored(
            key,
            version_id,
            is_latest,
            size=len(data),
            content_type=answer["ContentType"],
            sha256=hashlib.sha256(data).hexdigest(),
            file_id=answer["Metadata"].get("file-id"),
            is_public=tags.get("public") == "true",
        )

    def _open_uploads(self, file_ids: Collection[str]) -> list[str]:
        """Keys of these files, under whatever nonce, that have an upload in parts."""
        found = self.s3.list_multipart_uploads(Bucket=self.bucket).get("Uploads", ())
        return [each["Key"] for each in found if file_of(each["Key"]) in file_ids]


def _key_of(stream: dict[str, Any]) -> str:
    return str(json.loads(stream["events"][0])["data"]["key"])
