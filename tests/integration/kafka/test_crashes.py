"""kill -9 of consumers in the middle of batches, at seeded points."""

import asyncio
import json
import random
import sys
from asyncio.subprocess import Process
from pathlib import Path

import pytest

from tests.integration.kafka.harness import HANG, Cluster, Judge, Origin, new_group

RECORDS = 1200


class Crew:
    """Worker processes of one group that are replaced when they die."""

    def __init__(self, cluster: Cluster, group: str, topic: str, journal: Path, seed: int) -> None:
        self._cluster = cluster
        self._options = {
            "bootstrap": cluster.bootstrap,
            "group": group,
            "topic": topic,
            "journal": str(journal),
        }
        self._group = group
        self._journal = journal
        self._chance = random.Random(seed)
        self._members: list[Process] = []
        self.kills = 0

    def settled(self) -> set[Origin]:
        """What the journal holds: handled or parked."""
        lines = [line.split() for line in self.lines()]
        return {(topic, int(partition), int(offset)) for _, topic, partition, offset in lines}

    def lines(self) -> list[str]:
        return self._journal.read_text().splitlines() if self._journal.exists() else []

    async def hire(self, *, kills: bool) -> None:
        options = {**self._options, "seed": self._chance.randrange(1 << 30), "kills": kills}
        command = (sys.executable, "-m", "tests.integration.kafka.worker", json.dumps(options))
        nowhere = asyncio.subprocess.DEVNULL
        self._members.append(await asyncio.create_subprocess_exec(*command, stdout=nowhere, stderr=nowhere))

    async def replace_the_dead(self, *, kills: bool) -> None:
        for member in list(self._members):
            if member.returncode is not None:
                self.kills += member.returncode == -9
                self._members.remove(member)
                await self._cluster.expel(self._group)
                await self.hire(kills=kills)

    async def dismiss(self) -> None:
        for member in self._members:
            if member.returncode is None:
                member.terminate()
        for member in self._members:
            try:
                async with asyncio.timeout(10):
                    await member.wait()
            except TimeoutError:
                member.kill()
                await member.wait()


async def survive(cluster: Cluster, journal: Path, seed: int, *, records: int, kills: int, members: int) -> None:
    """At least `kills` deaths by kill -9, and still: everything settled, nothing committed before it was."""
    topic, group = await cluster.topic(3), new_group()
    await cluster.fill(topic, records // 2)
    crew = Crew(cluster, group, topic, journal, seed)
    filled = records // 2
    try:
        async with Judge(cluster, group, crew.settled).watching():
            for _ in range(members):
                await crew.hire(kills=True)
            while crew.kills < kills:
                await crew.replace_the_dead(kills=True)
                if len(crew.settled()) > filled - 100:  # there must be something to die over
                    await cluster.fill(topic, 200, start=filled)
                    filled += 200
                await asyncio.sleep(0.05)
            async with asyncio.timeout(HANG):
                while len(crew.settled()) < filled or not await cluster.all_committed(group, topic):
                    await crew.replace_the_dead(kills=False)
                    await asyncio.sleep(0.1)
    finally:
        await crew.dismiss()
    lines = crew.lines()
    assert any(line.startswith("parked") for line in lines)
    assert len(crew.settled()) == filled
    print(f"seed {seed}: {crew.kills} kills, {filled} records, {len(lines) - filled} repetitions")


@pytest.mark.parametrize("seed", [1])
async def test_kills_lose_nothing(cluster: Cluster, tmp_path: Path, seed: int) -> None:
    await survive(cluster, tmp_path / "journal", seed, records=RECORDS, kills=4, members=2)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 108))
async def test_many_kills_lose_nothing(cluster: Cluster, tmp_path: Path, seed: int) -> None:
    await survive(cluster, tmp_path / "journal", seed, records=4000, kills=25, members=1 + seed % 3)
