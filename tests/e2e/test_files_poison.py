"""Bad records on every topic of files: set aside or kept as designed; the rest flows and nobody must be restarted."""

from __future__ import annotations

import asyncio

from contracts.topics import FILES_NOTIFICATIONS
from deploy.local.demo.files import FileCase
from deploy.local.stack import Stack
from tests.e2e import poison, poison_files
from tests.e2e.files_evidence import FilesObserver
from tests.e2e.live import always_alive, live
from tests.e2e.traffic import traffic
from tests.e2e.uploads import Uploads, uploads


async def test_every_kind_of_poison_for_files(stack: Stack) -> None:
    async with live(stack) as observer, uploads(stack, 23) as load, traffic(stack, 23) as mail:
        files = FilesObserver(observer)
        since = await observer.now()
        enough = asyncio.Event()
        records = [
            *poison_files.of_commands(file_id := (await one_more(load))),
            *poison_files.of_notifications(files.bucket),
            *poison_files.of_events(),
        ]
        queue = poison_files.on_the_queue(files.bucket)
        stranger = f"somebody/elses-{file_id}"
        async with asyncio.TaskGroup() as group:
            group.create_task(always_alive(stack, enough, "email", "files", "events"))
            published = await poison.publish(mail.producer, records)
            await observer.put_on_queue(*(body for body, _ in queue), files=True)
            await asyncio.to_thread(files.s3.put_object, Bucket=files.bucket, Key=stranger, Body=b"x")
            await asyncio.gather(*(load.one(load.case()) for _ in range(20)))
            parked = [what for record in records for what in record.expected]
            reasons = [*(reason for _, found in queue for reason in found), "orphan"]
            parked += [f"files {FILES_NOTIFICATIONS.name} {reason}" for reason in reasons]
            await files.assert_fair(since, load, 90, parked=parked, strangers=frozenset({stranger}))
            enough.set()
        assert poison.not_as_they_came(published, await observer.parking_lots()) == []
        await poison.has_kept(observer, poison.kept(records), "file")


async def one_more(load: Uploads) -> str:
    """A completed document."""
    case = FileCase("stays as it is", "completed")
    await load.one(case)
    return case.file_id
