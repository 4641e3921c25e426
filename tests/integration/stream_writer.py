"""A process that appends to streams, publishes to a file and marks until it is killed.

    python -m tests.integration.stream_writer MONGO_URL DATABASE NAME FOLDER DIES

It writes a line to `FOLDER/NAME.confirmed` for each confirmed append (event id), and one to `FOLDER/log` for each
published event (stream, version, id), each with one unbuffered write.

DIES says where it kills itself with SIGKILL after a few turns: `appended` (nothing of the last append is published) or
`published` (all of it is published, and the store does not know); `never` leaves it to the parent.
"""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from contracts.email.events import EmailCancelled
from contracts.ids import uuid7
from contracts.registry import read_json
from services.kit.event_store.mongo import MongoEventStore
from services.kit.event_store.port import Append, Appended, Draft, StreamIndex, stamp
from services.kit.event_store.relay import StreamPublisher
from services.kit.kafka.publisher import Outgoing
from services.kit.mongo import connect

STREAMS = tuple(f"s{n}" for n in range(12))
TURNS = 6
"""Turns in which something is appended until a writer that kills itself does so."""


class FilePublisher:
    """A log in a file: acknowledged is what is written."""

    healthy = True

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def publish(self, items: Sequence[Outgoing]) -> list[Exception | None]:
        for item in items:
            event = read_json(item.value)
            os.write(self._file, f"{event['subject']} {event['streamversion']} {event['id']}\n".encode())
        await asyncio.sleep(random.random() * 0.01)
        return [None] * len(items)


async def write(url: str, database: str, name: str, folder: Path, dies: str) -> None:
    turns = 0
    store = MongoEventStore(connect(url)[database]["streams"])
    publisher = StreamPublisher(store, FilePublisher(folder / "log"))
    confirmed = os.open(folder / f"{name}.confirmed", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while True:
        streams = await store.load_many(random.sample(STREAMS, 4))
        appends = [
            Append(
                stream,
                stamp(
                    stream,
                    [Draft(EmailCancelled(reason=name))] * random.randint(1, 2),
                    now=datetime.now(UTC),
                    new_id=uuid7,
                    source="test",
                    correlation="c",
                ),
                StreamIndex(),
            )
            for stream in streams.values()
        ]
        results = await store.append_many(appends)
        for append, result in zip(appends, results, strict=True):
            if isinstance(result, Appended):
                os.write(confirmed, "".join(f"{event.id}\n" for event in append.events).encode())
        appended = any(isinstance(result, Appended) for result in results)
        turns += appended
        last = appended and turns >= TURNS
        if last and dies == "appended":
            os.kill(os.getpid(), signal.SIGKILL)
        await publisher.publish(results, mark=not (last and dies == "published"))
        if last and dies == "published":
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]), sys.argv[5]))
