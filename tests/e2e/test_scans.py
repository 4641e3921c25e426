"""Files that must be found clean before anybody gets them, on the real stack; GuardDuty's word as it comes on AWS: a
tag on the version, of which S3 tells, or an event of EventBridge on the queue that S3 notifies.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from contracts.base import format_time
from deploy.local.demo.files import PDF, SCOPES, FileCase, FilesDoor
from deploy.local.endpoints import AwsEndpoints
from deploy.local.stack import Stack
from services.kit.aws import AwsAccount, s3_client, sqs_client
from services.kit.clock import SystemClock
from tests.e2e.callers import Callers, calling, data, refused, until
from tests.unit.files_service.s3_examples import record, scan

NEEDED = json.dumps({"contract": {"scan": True}, "general": {"scan": True}})


@pytest.fixture(scope="module", autouse=True)
def scanned(stack: Stack) -> Iterator[None]:
    """Contracts and general files are scanned, until the end of this module."""
    stack.extra["MAILROOM_FILE_CATEGORIES"] = NEEDED
    stack.restart("files")
    yield
    del stack.extra["MAILROOM_FILE_CATEGORIES"]
    stack.restart("files")


@dataclass
class GuardDuty:
    """Says what it found, in either way."""

    s3: Any
    sqs: Any
    aws: AwsEndpoints

    async def tags(self, where: dict[str, str], status: str) -> None:
        """As it tags a version. The emulator's S3 tells nobody of tags, so this says it in its stead."""
        tag = {"Key": "GuardDutyMalwareScanStatus", "Value": status}
        await self.s3.put_object_tagging(**where, Tagging={"TagSet": [tag]})
        about: dict[str, Any] = {"bucket": where["Bucket"], "key": where["Key"], "version": where["VersionId"]}
        await self._say({"Records": [record("ObjectTagging:Put", **about, time=_now(), request=uuid.uuid4().hex)]})

    async def tells(self, where: dict[str, str], status: str) -> None:
        """As its event comes to the queue; it tags nothing."""
        about: dict[str, Any] = {"bucket": where["Bucket"], "key": where["Key"], "version": where["VersionId"]}
        await self._say(scan(status, **about, time=_now()))

    async def _say(self, body: dict[str, Any]) -> None:
        await self.sqs.send_message(QueueUrl=self.aws.files_queue_url, MessageBody=json.dumps(body))

    async def is_open(self, where: dict[str, str]) -> bool:
        """Whether the version is tagged as one that anybody may read."""
        found = await self.s3.get_object_tagging(**where)
        return {"Key": "public", "Value": "true"} in found["TagSet"]

    async def there(self, where: dict[str, str]) -> bool:
        """Whether the version is in S3."""
        found = await self.s3.list_object_versions(Bucket=where["Bucket"], Prefix=where["Key"])
        return where["VersionId"] in {each["VersionId"] for each in found.get("Versions", ())}


def _now() -> str:
    return format_time(SystemClock().now())


Says = Callable[[GuardDuty, dict[str, str], str], Awaitable[None]]
WAYS: dict[str, Says] = {"by tag": GuardDuty.tags, "by event": GuardDuty.tells}


def told(usual: str) -> pytest.MarkDecorator:
    """In one way in `make test`, in the other one in `make test-long`."""
    ways = [pytest.param(way, id=name, marks=[] if name == usual else pytest.mark.long) for name, way in WAYS.items()]
    return pytest.mark.parametrize("says", ways)


@pytest.fixture
async def callers(stack: Stack) -> AsyncIterator[Callers]:
    async with calling(stack) as callers:
        yield callers


@pytest.fixture
async def guardduty(aws: AwsEndpoints) -> AsyncIterator[GuardDuty]:
    account = AwsAccount(aws.region, aws.access_key_id, aws.secret_access_key, aws.endpoint_url)
    async with AsyncExitStack() as stack:
        s3, sqs = [await stack.enter_async_context(make(account)) for make in (s3_client, sqs_client)]
        yield GuardDuty(s3, sqs, aws)


async def uploaded(callers: Callers, **about: Any) -> tuple[FileCase, dict[str, str]]:
    """A complete file, and where its version lies."""
    case = FileCase("scanned", "completed", **{"category": "contract", **about})
    await FilesDoor(callers.http, callers.token("ann", *SCOPES)).play(case)
    (done,) = [each["data"] for each in await on_the_log(callers, case, "file.uploaded")]
    (asked,) = [each["data"] for each in await on_the_log(callers, case, "file.uploadRequested")]
    assert asked["scanNeeded"] is True
    return case, {"Bucket": asked["bucket"], "Key": asked["key"], "VersionId": done["versionId"]}


async def on_the_log(callers: Callers, case: FileCase, event_type: str) -> list[dict[str, Any]]:
    """The events of that type, once there is one."""

    async def found() -> list[dict[str, Any]]:
        return [each for each in await callers.events(case.file_id, "files.events") if each["type"] == event_type]

    events: list[dict[str, Any]] = await until(found)
    return events


async def link(callers: Callers, case: FileCase) -> Any:
    return await callers.get(f"/api/files/{case.file_id}/download", "ann", *SCOPES)


async def settled(callers: Callers, case: FileCase, result: str) -> None:
    """The verdict was taken to heart, once."""
    verdicts = await on_the_log(callers, case, "file.scanSettled")
    assert [each["data"]["result"] for each in verdicts] == [result]


async def view(callers: Callers, case: FileCase) -> dict[str, Any]:
    return data(await callers.get(f"/api/files/{case.file_id}", "ann", *SCOPES))


@told("by tag")
async def test_a_file_is_given_out_and_mailed_as_soon_as_it_is_clean(
    callers: Callers, guardduty: GuardDuty, says: Says
) -> None:
    case, where = await uploaded(callers)
    assert "malware" in refused(await link(callers, case), 409)["error"]
    address = callers.address()
    message_id = await callers.send(to=address, attachments=[{"fileId": case.file_id}])
    assert await callers.accepted(message_id) == []
    await says(guardduty, where, "NO_THREATS_FOUND")
    await settled(callers, case, "clean")
    answer = await callers.http.get(data(await link(callers, case))["url"])
    assert answer.content == PDF
    await callers.becomes(message_id, "delivered")
    (attached,) = (await callers.mime(address)).iter_attachments()
    assert attached.get_content() == PDF
    await says(guardduty, where, "NO_THREATS_FOUND")  # heard again
    later, elsewhere = await uploaded(callers)
    await says(guardduty, elsewhere, "NO_THREATS_FOUND")
    await settled(callers, later, "clean")
    await settled(callers, case, "clean")


@told("by event")
async def test_an_infected_file_is_gone_for_good_and_so_is_the_mail_that_waits_for_it(
    callers: Callers, guardduty: GuardDuty, says: Says
) -> None:
    case, where = await uploaded(callers)
    message_id = await callers.send(attachments=[{"fileId": case.file_id}])
    assert await guardduty.there(where)
    await says(guardduty, where, "THREATS_FOUND")
    (deleted,) = await on_the_log(callers, case, "file.deleted")
    assert (deleted["data"]["reason"], deleted["data"]["recoverable"]) == ("infected", False)
    await settled(callers, case, "infected")
    await until(lambda: _not(guardduty.there(where)))
    refused(await link(callers, case), 410)
    later = await callers.send(attachments=[{"fileId": case.file_id}])
    for mail in (message_id, later):
        await callers.becomes(mail, "failed")
        (failed,) = [each["data"] for each in await callers.events(mail) if each["type"] == "email.failed"]
        assert (failed["reason"], "infected" in failed["detail"]) == ("invalid", True)
        assert await callers.accepted(mail) == []
    restored = await callers.http.post(f"/api/files/{case.file_id}/restore", headers=callers.as_("ann", *SCOPES))
    refused(restored, 410)
    assert (await view(callers, case))["status"] == "deleted"


@told("by tag")
@pytest.mark.parametrize(("status", "result"), [("UNSUPPORTED", "unsupported"), ("FAILED", "error")])
async def test_what_could_not_be_scanned_stays_and_goes_nowhere(
    callers: Callers, guardduty: GuardDuty, says: Says, status: str, result: str
) -> None:
    case, where = await uploaded(callers)
    await says(guardduty, where, status)
    await settled(callers, case, result)
    assert result in refused(await link(callers, case), 409)["error"]
    message_id = await callers.send(attachments=[{"fileId": case.file_id}])
    await callers.becomes(message_id, "failed")
    assert await guardduty.there(where)


async def test_a_public_file_is_public_only_when_it_is_clean(callers: Callers, guardduty: GuardDuty) -> None:
    case, where = await uploaded(callers, category="general", is_public=True)
    public = f"/api/files/{case.file_id}/public"
    refused(await callers.http.get(public), 409)
    assert not await guardduty.is_open(where), "the distribution goes by the tag alone"
    await guardduty.tags(where, "NO_THREATS_FOUND")
    await settled(callers, case, "clean")
    assert (await callers.http.get(public, follow_redirects=True)).content == PDF
    assert await guardduty.is_open(where)


async def _not(value: Awaitable[bool]) -> bool:
    return not await value
