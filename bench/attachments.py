"""What does a backlog of large mail cost in memory, and does small mail wait for it?

One file lies in S3, and its decisions on `files.events`; every large mail attaches it by `fileId`. All of them are
published at once, then a small mail every so often on the same lane, in the same process. The account may send 14
recipients a second, as a new one at SES. Nothing else of ours runs.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import asdict, dataclass

from bench.ground import ground, roots
from bench.measure import Meter, Usage, as_data, machine
from bench.priorities import accepted, accepted_at
from bench.results import Aim, Result, Table, percentile
from contracts.ids import uuid7
from deploy.local.demo.files import PDF
from deploy.local.endpoints import aws_endpoints
from deploy.local.stack import Stack
from services.kit.aws import AwsAccount, s3_client
from tests.e2e.evidence import Observer, observing
from tests.e2e.judge import Decisions, Entry
from tests.e2e.traffic import Traffic, traffic
from tests.unit.email_service.files import key_of, record, upload, uploaded

SETTINGS = {"MAILROOM_MAX_ATTACHMENT_BYTES": "25000000"}
PATIENCE = 300.0
"""Seconds in which the large mails should have ended."""

MEMORY_LIMIT = 768.0
"""MB that Compose gives a process of the email service."""


@dataclass(frozen=True, slots=True)
class Found:
    """What came of it.

    Attributes:
        large, megabytes: how many large mails, and how large the attachment of each is.
        at_rest, peak: MB of resident memory of the email process, before and at most.
        seconds: from the first large mail's publishing to the last one's end, or `PATIENCE`.
        ends: of the large mails, how many ended how.
        attempts: calls that were begun for them.
        small_sent: small mails that were published beside them.
        small: seconds from publishing to acceptance of each small mail that was accepted.
    """

    large: int
    megabytes: float
    at_rest: float
    peak: float
    seconds: float
    ends: dict[str, int]
    attempts: int
    small_sent: int
    small: tuple[float, ...]


def run(quick: bool) -> Result:
    """60 mails with 20 MB each; a small mail each half second until they are gone."""
    found_on = machine()
    large, size = (4, 2_000_000) if quick else (60, 20_000_000)
    with ground(["email"], extra=SETTINGS) as stack:
        found, usage = asyncio.run(measure(stack, large, size))
    rows: list[list[str | float | int]] = [
        ["resident memory at rest, MB", found.at_rest],
        ["resident memory at most, MB", found.peak],
        ["seconds until all large mails have ended", found.seconds],
        *_ends_rows(found),
        ["attempts for them", found.attempts],
        ["small mails beside them", found.small_sent],
        ["of these accepted", len(found.small)],
        ["p50 of these, ms", 1000 * percentile(found.small, 50)],
        ["p99 of these, ms", 1000 * percentile(found.small, 99)],
    ]
    title = f"{found.large} mails with a file of {found.megabytes:g} MB each, in one process"
    return Result(
        "attachments",
        found_on,
        [Aim("memory of the email process", found.peak, MEMORY_LIMIT, " MB", at_most=True)],
        [Table(title, ["", "found"], rows)],
        ["the aim is what Compose gives the process"],
        {"run": {**asdict(found), "usage": as_data(usage)}},
    )


async def measure(stack: Stack, large: int, size: int) -> tuple[Found, dict[str, Usage]]:
    """Send `large` mails with a file of `size` bytes, and small ones beside them."""
    async with (
        observing(stack) as observer,
        traffic(stack, 1, behaviours=("success",), http_share=0.0) as load,
    ):
        attached = [{"fileId": await _stored(stack, load, size)}]
        warm = [load.mail(priority="normal", recipients=1) for _ in range(10)]
        await accepted(observer, 0, {await load.by_kafka(mail) for mail in warm})
        with Meter(roots(stack, "email")) as rest:
            await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        with Meter(roots(stack, "email", "simulator", "aws")) as meter:
            since, begun = await observer.simulator.position(), loop.time()
            mails = [{**load.mail(priority="normal", recipients=1), "attachments": attached} for _ in range(large)]
            ids = [await load.by_kafka(mail) for mail in mails]
            waiting = asyncio.create_task(observer.settled_deliveries(ids, PATIENCE))
            small: list[str] = []
            while not waiting.done():
                small.append(await load.by_kafka(load.mail(priority="normal", recipients=1)))
                await asyncio.wait([waiting], timeout=0.5)
            seconds = loop.time() - begun
            with suppress(AssertionError):  # what has not ended by then is told
                await waiting
            beside = await _acceptance_times(observer, since, small, load.published_at)
        ends, attempts = await _ends(observer, ids)
        peaks = rest.usage["email"].peak_mb, meter.usage["email"].peak_mb
        return Found(large, size / 1e6, *peaks, round(seconds, 1), ends, attempts, len(small), beside), meter.usage


async def _acceptance_times(
    observer: Observer, since: int, ids: list[str], published_at: dict[str, float]
) -> tuple[float, ...]:
    """Of those that were accepted."""
    with suppress(AssertionError):
        await observer.settled_deliveries(ids, 30)
    found = await accepted_at(observer, since, set(ids))
    return tuple(at - published_at[each] for each, at in found.items())


def _ends_rows(found: Found) -> list[list[str | float | int]]:
    return [[f"large mails that ended as {end}", count] for end, count in sorted(found.ends.items())]


async def _stored(stack: Stack, load: Traffic, size: int) -> str:
    """A file of that size, as the files service tells of it: it belongs to the user of the traffic."""
    file_id, aws = uuid7(), aws_endpoints(stack)
    account = AwsAccount(aws.region, aws.access_key_id, aws.secret_access_key, aws.endpoint_url)
    async with s3_client(account, call_limit=120.0) as s3:
        put = await s3.put_object(Bucket=aws.files_bucket, Key=key_of(file_id), Body=PDF.ljust(size, b"."))
    asked = upload(file_id, bucket=aws.files_bucket, user_id=f"traffic-{load.run}", max_size_bytes=size)
    for version, decision in enumerate((asked, uploaded(size, put["VersionId"])), start=1):
        made = record(decision, version, file_id=file_id)
        await load.producer.send_and_wait(made.topic, made.value, made.key)
    return file_id


async def _ends(observer: Observer, ids: list[str]) -> tuple[dict[str, int], int]:
    """How many messages ended how, and how many attempts it took."""
    ends: dict[str, int] = {}
    attempts = 0
    for stream in (await observer.streams(ids)).values():
        attempts += sum('"type":"email.sendAttempted"' in text for text in stream["events"])
        decided = Decisions([Entry(0, 0, None, text.encode()) for text in stream["events"]]).ends()
        for end in decided.values():
            ends[end] = ends.get(end, 0) + 1
    return ends, attempts
