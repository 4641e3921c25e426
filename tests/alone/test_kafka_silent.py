"""Kafka stops answering, and nobody has closed a connection."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from deploy.local.stack import Stack
from tests.e2e.callers import Callers, calling, data, refused, until


@pytest.fixture
async def callers(stack: Stack) -> AsyncIterator[Callers]:
    async with calling(stack) as callers:
        yield callers


async def test_kafka_away_is_told_honestly_and_repeating_sends_once(callers: Callers) -> None:
    before, unsure = str(uuid.uuid4()), str(uuid.uuid4())
    mails: dict[str, dict[str, Any]] = {key: {"to": callers.address(), "textContent": key} for key in (before, unsure)}
    await asyncio.to_thread(callers.stack.kill, "kafka", signal.SIGSTOP)
    try:
        # Nobody has noticed yet: the command is on its way, and no answer comes.
        answer = await callers.post(key=unsure, **mails[unsure])
        unknown = refused(answer, 503)
        assert unknown["error"] == "Outcome unknown: repeat with the same key."
        assert int(answer.headers["Retry-After"]) > 0

        async def noticed() -> httpx.Response | None:
            answer = await callers.post(key=before, **mails[before])
            return answer if "nothing was sent" in answer.text else None

        nothing = refused(await until(noticed), 503)
    finally:
        await asyncio.to_thread(callers.stack.kill, "kafka", signal.SIGCONT)
    for key, answered in ((unsure, unknown), (before, nothing)):

        async def taken(key: str = key) -> httpx.Response | None:
            answer = await callers.post(key=key, **mails[key])
            return answer if answer.status_code == 202 else None

        message_id = data(await until(taken), 202)["messageId"]
        assert [{"messageId": message_id}] == answered["details"]
        await callers.becomes(message_id, "delivered")
        assert len(await callers.accepted(message_id)) == 1
