"""A recipient's stream and a message's that no process here can read, beside other mail, on the whole stack."""

from __future__ import annotations

import re
from typing import Any

from deploy.local.simulator.faults import Fault
from deploy.local.stack import Stack
from services.kit.addresses import candidate_keys
from services.kit.crypto import KeyRing
from tests.e2e.callers import Callers, calling, data, until
from tests.e2e.judge import Json
from tests.e2e.live import alive, live
from tests.integration.kafka.test_skip_command import mailroom

STRANGE = '{"type": "email.sent", "dataversion": 99}'
"""What a newer build has appended, and published."""


async def test_streams_that_cannot_be_read_hold_up_nothing_else(stack: Stack) -> None:
    async with live(stack), calling(stack) as callers:
        whose, called, reached = callers.address(), callers.address(), callers.address()
        keys, *_ = candidate_keys(None, KeyRing.from_secret(stack.env()["FILE_ENCRYPTION_KEY"]))
        recipient: Json = {"_id": keys.key(whose), "version": 1, "events": [STRANGE], "published": 1}
        await callers.observer.email["recipients"].insert_one(recipient)
        await callers.observer.simulator.faults(Fault(kind="slowAnswer", ms=7000, match=re.escape(called)))
        grown, waiting = await callers.send(to=called), await callers.send(to=[whose, reached])
        await until(lambda: callers.accepted(grown))  # its answer is on its way
        await _change(callers, grown, 1, {"$concatArrays": ["$events", [STRANGE]]})

        async def given_up() -> bool:
            return any("can never be recorded" in line and grown in line for line in stack.logs("email").splitlines())

        await until(given_up)
        others = [await callers.send() for _ in range(20)]
        for message_id in others:
            await callers.becomes(message_id, "delivered")
        assert (await callers.mime(reached))["To"]
        assert len(await callers.accepted(waiting)) == 1, "whom nobody can tell to be suppressed gets nothing"
        assert await alive(stack, "email")
        await _mended(callers, grown, waiting, recipient)
        assert len(await callers.accepted(grown)) == 1


async def _change(callers: Callers, message_id: str, by: int, events: Json) -> None:
    """`by` more events in a message's stream, all of them published."""
    version = {"$add": ["$version", by]}
    change: list[Json] = [
        {"$set": {"events": events, "version": version, "published": version}},
        {"$unset": ["pending", "pendingSince"]},
    ]
    assert (await callers.observer.email["messages"].update_one({"_id": message_id}, change)).modified_count


async def _mended(callers: Callers, grown: str, waiting: str, recipient: Json) -> None:
    """As when the newer build is deployed: what was set aside meanwhile is handled, and nothing is left."""
    lot = callers.observer.email["parked"]
    about: dict[str, Any] = {"key": grown.encode(), "reason": "unreadableStream", "status": "parked"}

    async def set_aside() -> str | None:
        found = await lot.find_one(about)
        return None if found is None else str(found["_id"])

    parked_id = await until(set_aside)  # what the provider told of it
    await _change(callers, grown, -1, {"$slice": ["$events", {"$subtract": [{"$size": "$events"}, 1]}]})
    status, out, told = await mailroom(
        "parked", "retry", parked_id, "--service", "email", seconds=180, **callers.stack.env()
    )
    assert status == 0, out + told
    await callers.observer.email["recipients"].delete_one({"_id": recipient["_id"]})
    data(await callers.http.delete(f"/api/email/{waiting}", headers=callers.as_("ann")), 202)
    await callers.observer.simulator.faults()
