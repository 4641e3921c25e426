"""A consumer in a process of its own that carries out an order, and dies (SIGKILL) once it has recorded a range.

`python -m tests.integration.kafka.dying_releaser '{"bootstrap": …, "group": …, "topic": …, "mongo": …, "database": …,
"batch": …}'`. No offset of that range is committed then: `SHORT` commits before, and the next commit comes after.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from services.kit.kafka.consumer_loop import Outcome, Park, Record
from services.kit.mongo import connect
from services.kit.releases import Release
from services.kit.releases_mongo import MongoReleases
from services.kit.testing.parking import MemoryParkingLot
from tests.integration.kafka.harness import Cluster, new_loop


class DyingReleases(MongoReleases):
    """Dies after the first range that it has recorded."""

    async def discard(self, release: Release, records: Sequence[Record], at: datetime) -> int:
        if await super().discard(release, records, at):
            os.kill(os.getpid(), signal.SIGKILL)
        return 0


async def _refuse(records: Sequence[Record]) -> Sequence[Outcome]:
    return [Park("unknownType", "poison")] * len(records)


async def main(options: dict[str, Any]) -> None:
    releases = DyingReleases(connect(options["mongo"])[options["database"]])
    loop = new_loop(
        Cluster(options["bootstrap"]),
        options["group"],
        [options["topic"]],
        _refuse,
        MemoryParkingLot(),
        batch=options["batch"],
        releases=releases,
    )
    await loop.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
