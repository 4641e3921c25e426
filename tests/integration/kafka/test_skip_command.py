"""`mailroom skip` for a consumer group: nothing but what blocks it, parked before, with nobody else disturbed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from functools import partial
from typing import Any

import pytest
from aiokafka import TopicPartition

from services.kit.crypto import KeyRing
from services.kit.kafka import reading
from services.kit.mongo import connect
from services.kit.parking import ParkedFilter
from services.kit.parking_mongo import MongoParkingLot
from tests.integration.kafka.harness import Cluster, Ledger, new_loop, running, until
from tests.integration.kafka.test_poison import blocked

SECRET = "k" * 32


async def mailroom(*words: str, seconds: float = 180, **environment: str) -> tuple[int, str, str]:
    """The command's exit status, standard output and standard error. It may take `seconds`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.cli",
        *words,
        env=os.environ | environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), seconds)
    return process.returncode or 0, out.decode(), err.decode()


async def test_a_group_steps_over_what_blocks_it_and_over_nothing_else(
    cluster: Cluster, mongo_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "UNREADABLE_PAUSE", 0.5)
    topic, group, ledger = await cluster.topic(1), f"email-intake-{uuid.uuid4().hex[:8]}", Ledger()
    client = connect(mongo_url)
    database = client[f"email_{uuid.uuid4().hex[:8]}"]
    lot = MongoParkingLot(database, KeyRing.from_secret(SECRET))
    ask = partial(
        mailroom,
        MAILROOM_KAFKA_BOOTSTRAP=cluster.bootstrap,
        MAILROOM_MONGO_URL=mongo_url,
        MAILROOM_EMAIL_DATABASE=database.name,
        FILE_ENCRYPTION_KEY=SECRET,
    )
    await cluster.put(topic, 0, b"before")
    await cluster.put_unreadable(topic, 0, readable_before=1, readable_after=1)  # offsets 1 to 3; 2 is the bad one
    await cluster.put(topic, 0, b"after")
    try:
        loop = new_loop(cluster, group, [topic], ledger.handler, lot)
        async with running(loop):
            await until(partial(blocked, loop))
            await cluster.await_position(group, TopicPartition(topic, 0), 2)
            for offset in ("1", "3"):
                status, _, told = await ask("skip", group, topic, "0", offset, "--yes")
                assert (status, "it stands at 2" in told) == (1, True), told
            status, _, told = await ask("skip", "email-intakes", topic, "0", "2", "--yes")
            assert status == 1, told
            status, _, told = await ask("skip", group, topic, "0", "2")
            assert status == 1
            assert "UnicodeDecodeError" in told
            assert "without offsets 2 to 3?" in told
            assert (await lot.list(ParkedFilter())).records == ()
            assert blocked(loop)
            status, out, told = await ask("skip", group, topic, "0", "2", "--yes", "--json")
            assert status == 0, told
            said: dict[str, Any] = json.loads(out)
            await until(lambda: ledger.handled == 3)
            await until(lambda: loop.health().healthy)
            status, _, told = await ask("skip", group, topic, "0", "5", "--yes")
            assert (status, "nothing at offset 5" in told) == (1, True), told
        parked = await lot.show(said["parked"])
        assert said == {"parked": f"{group}|{topic}|0|2", "service": "email", "goesOnAt": 4, "passed": True}
        assert parked is not None
        assert parked.raw is not None
        assert b"bad" in parked.raw
        assert b"fine" in parked.raw
        assert parked.reason == "skippedByOperator"
        assert parked.detail.startswith("operator:")
    finally:
        await client.drop_database(database.name)
        await client.close()
