"""A log of many files for tests, as the writers would publish it: in time order over all, some events repeated."""

from __future__ import annotations

import random

from contracts.base import EventData
from contracts.files import events as files
from tests.unit.events_service.file_events import (
    deleted,
    download,
    file_log,
    object_fact,
    restored,
    scan_settled,
    scanned,
    upload_failed,
    upload_requested,
    uploaded,
)

Entry = tuple[bytes | None, bytes | None]


def file_name(number: int, seed: int = 1) -> str:
    """The id of the file of that number in `uploads`."""
    return f"file-{seed}-{number:05d}"


def uploads(count: int, seed: int = 1, *, downloads: int = 0) -> list[Entry]:
    """Records of `count` files, interleaved; of the first one `downloads` links were given out, some told twice."""
    rng = random.Random(seed)
    places: list[tuple[float, Entry]] = []
    for number in range(count):
        name = file_name(number, seed)
        log = file_log(name)
        at = rng.random() * count
        for data in _story(name, rng, busy=number == 0, downloads=downloads):
            at += rng.random() * 5
            entry = (name.encode(), log.raw(data))
            places.append((at, entry))
            if rng.random() < 0.02:
                places.append((at + rng.random() * 50, entry))
    return [entry for _, entry in sorted(places, key=lambda place: place[0])]


def _story(name: str, rng: random.Random, *, busy: bool, downloads: int) -> list[EventData]:
    story: list[EventData] = [upload_requested(name, tags=rng.choice([None, ["a"], ["a", "b"]]))]
    if not busy and rng.random() < 0.1:
        return [*story, upload_failed()]
    story += [object_fact(files.FileObjectCreated, storage_class="STANDARD"), uploaded()]
    story += [scanned(), scan_settled()]
    story += [download(rng.randint(5, 500)) for _ in range(downloads if busy else rng.randint(0, 4))]
    if not busy and rng.random() < 0.3:
        story += [deleted(), object_fact(files.FileDeleteMarkerCreated, "marker")]
        story += [restored()] if rng.random() < 0.5 else []
    return story
