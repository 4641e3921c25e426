"""A consumer in a process of its own that kills itself (SIGKILL) at points chosen by a seed.

`python -m tests.integration.kafka.worker '{"bootstrap": …, "group": …, "topic": …, "journal": …, …}'`
Effects are lines in the journal, appended with one write: what is in it was done, whenever the process dies.
Records whose value ends in 77 break the handler, those that end in 33 are to be parked, and now and then everything
fails for the moment.
"""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from services.kit.errors import TransientError
from services.kit.kafka.consumer_loop import DONE, Outcome, Park, Record
from services.kit.parking import ParkedRecord
from services.kit.testing.parking import MemoryParkingLot
from tests.integration.kafka.harness import Cluster, new_loop


class Journal:
    """Appends to a file so that a kill loses nothing that was noted."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, what: str, topic: str, partition: int, offset: int) -> None:
        os.write(self._file, f"{what} {topic} {partition} {offset}\n".encode())


class Fate:
    """Dies at about one of `rarity` points."""

    def __init__(self, seed: int, kills: bool, rarity: int = 60) -> None:
        self.chance = random.Random(seed)
        self._kills = kills
        self._rarity = rarity

    def point(self) -> None:
        if self._kills and self.chance.randrange(self._rarity) == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class JournalLot(MemoryParkingLot):
    """Parks into the journal, and may die before, between and after."""

    def __init__(self, journal: Journal, fate: Fate) -> None:
        super().__init__()
        self._journal = journal
        self._fate = fate

    async def park(self, records: Sequence[ParkedRecord]) -> None:
        for one in records:
            self._fate.point()
            self._journal.note("parked", one.topic, one.partition, one.offset)
        self._fate.point()


async def main(options: dict[str, object]) -> None:
    journal = Journal(Path(str(options["journal"])))
    fate = Fate(int(str(options["seed"])), bool(options["kills"]))

    async def handler(records: Sequence[Record]) -> Sequence[Outcome]:
        await asyncio.sleep(0.01)
        if fate.chance.random() < 0.05:
            raise TransientError("for the moment")
        if len(records) > 1 and any((record.value or b"").endswith(b"77") for record in records):
            raise ValueError("a bug")
        outcomes: list[Outcome] = []
        for record in records:
            fate.point()
            value = record.value or b""
            if value.endswith(b"77"):
                raise ValueError("a bug")
            if value.endswith(b"33"):
                outcomes.append(Park("bad", "poison"))
                continue
            journal.note("handled", *record.origin)
            outcomes.append(DONE)
        fate.point()
        return outcomes

    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    loop = new_loop(
        Cluster(str(options["bootstrap"])),
        str(options["group"]),
        [str(options["topic"])],
        handler,
        JournalLot(journal, fate),
        batch=40,
        runner_options={"alone_pause": 0.01},
    )
    await loop.start()
    await stopping.wait()
    await loop.stop()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
