"""FILE_ENCRYPTION_KEY is replaced in a rolling restart, and a process that is still the old one shares all its work."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local.parts import PARTS
from deploy.local.site import HOST, free_ports
from deploy.local.stack import Stack
from tests.e2e.callers import Callers, calling, until
from tests.integration.nodes import Node

LACKS = "is not among the keys of this process"
MAILS = 40
"""Each of the two processes gets half of the partitions of a topic, so that of so many some come to either."""


@asynccontextmanager
async def second(stack: Stack, folder: Path, name: str, **env: str) -> AsyncIterator[Node]:
    """Another process like the stack's `email`, ready, with this environment on top of the stack's."""
    launch = PARTS["email"].launch
    assert launch is not None
    share, _, of = os.environ.get("MAILROOM_PORT_SHARE", "0/1").partition("/")
    (port,) = free_ports(1, int(share), int(of))
    made = launch(stack.site, {**stack.env(), **env}, lambda _: None)
    node = Node(name, folder, port, list(made.command), {**made.env, "MAILROOM_EMAIL_PORT": str(port)})
    node.start()
    try:
        await asyncio.to_thread(node.listening)
        await until(lambda: _answers(node, "/readyz"))
        yield node
    finally:
        await asyncio.to_thread(node.stop)


@asynccontextmanager
async def restarted(stack: Stack, **env: str) -> AsyncIterator[None]:
    """The stack's `email` with this environment, and at the end as it was."""
    before = dict(stack.extra)
    stack.extra |= env
    try:
        await asyncio.to_thread(stack.restart, "email")
        yield
    finally:
        stack.extra = before
        await asyncio.to_thread(stack.restart, "email")


@pytest.mark.long
async def test_mail_waits_for_a_key_that_was_not_distributed_and_none_fails_or_is_lost(
    stack: Stack, tmp_path: Path
) -> None:
    old, new = stack.env()["FILE_ENCRYPTION_KEY"], secrets.token_hex(32)
    ahead = {"FILE_ENCRYPTION_KEY": new, "MAILROOM_OLD_ENCRYPTION_KEYS": old}
    early = [{"eventType": "Delivery", "mail": {"messageId": f"nobodys-{n}-{new[:8]}"}} for n in range(MAILS)]
    async with second(stack, tmp_path, "behind") as behind, restarted(stack, **ahead), calling(stack) as callers:
        await callers.observer.put_on_queue(*map(json.dumps, early))
        message_ids = [await callers.send() for _ in range(MAILS)]

        async def meets_both() -> bool:
            """A command whose body is sealed anew, and a parked record that is due."""
            waiting = (await _answers(behind, "/readyz", anyhow=True) or "").count(LACKS)
            return waiting > 0 and "a parked record cannot be opened" in behind.log()

        await until(meets_both)
        assert behind.child is not None
        assert behind.child.alive()
        assert await _answers(behind, "/healthz")
        assert await _statuses(callers, message_ids) <= {"none", "queued", "sent", "delivered"}
        await asyncio.to_thread(behind.stop)  # and now step 1, which was left out
        async with second(stack, tmp_path, "reading", MAILROOM_OLD_ENCRYPTION_KEYS=new, FILE_ENCRYPTION_KEY=old):
            for message_id in message_ids:
                await callers.becomes(message_id, "delivered")
        assert [len(await callers.accepted(message_id)) for message_id in message_ids] == [1] * MAILS
        parked = [each async for each in callers.observer.email["parked"].find({"status": "parked"})]
        ours = [each for each in parked if each["at"] >= callers.since.at]
        assert {each["kind"] for each in ours} == {"uncorrelated"}
        assert len(ours) == MAILS
        await callers.observer.email["parked"].delete_many({"_id": {"$in": [each["_id"] for each in ours]}})


async def _answers(node: Node, path: str, *, anyhow: bool = False) -> str | None:
    """The body with which it answers 200, or whatever it answers."""
    try:
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{node.port}", timeout=60, trust_env=False) as http:
            answer = await http.get(path)
    except httpx.TransportError:
        return None
    return answer.text if anyhow or answer.status_code == 200 else None


async def _statuses(callers: Callers, message_ids: list[str]) -> set[str]:
    """What the read model says of them; "none" of one that it does not know yet."""
    found: set[str] = set()
    for message_id in message_ids:
        shown: dict[str, Any] = (await callers.get(f"/api/email/{message_id}")).json().get("data") or {}
        found.add(shown.get("status", "none"))
    return found
