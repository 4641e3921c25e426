"""A campaign does not delay urgent mail."""

from __future__ import annotations

import asyncio

import pytest

from bench.priorities import accepted, measure
from deploy.local.stack import Stack
from services.email.domain.correlation import MESSAGE_TAG
from tests.e2e.live import live
from tests.e2e.traffic import traffic


@pytest.mark.long
async def test_urgent_mail_passes_a_campaign(stack: Stack) -> None:
    """By order and not by clock, so that a slow machine cannot fail it."""
    found = await measure(stack, rate=40, campaign=320, urgent=12, every=0.25)
    print(f"\n{found}\novertaken by {found.overtaken_by}")
    assert found.campaign_done < found.campaign, "the campaign was over before the urgent mail was"
    # What had its place and token when an urgent mail came goes out before it: 32 places, tokens for 0.2 s. A machine
    # that starves may let more pass by some of them; without priority, all that is left of the campaign passes by each.
    passed_by = sorted(found.overtaken_by)
    assert passed_by[len(passed_by) // 2] <= 32 + 40 * 0.2
    assert passed_by[-1] <= found.campaign / 2


async def test_each_lane_has_its_process(stack: Stack) -> None:
    """Urgent mail waits for its own process and for no other; the other lanes do not need it."""
    async with live(stack) as observer, traffic(stack, 21, behaviours=("success",), http_share=0.0) as load:
        for away, goes, waits in (("email-urgent", "low", "urgent"), ("email", "urgent", "low")):
            await asyncio.to_thread(stack.stop, [away])
            since = await observer.simulator.position()
            waiting = await load.by_kafka(load.mail(priority=waits, recipients=1))
            going = await load.by_kafka(load.mail(priority=goes, recipients=1))
            await accepted(observer, since, {going})
            seen = {entry["tags"][MESSAGE_TAG] for entry in await observer.simulator.acceptances(since)}
            assert waiting not in seen
            await asyncio.to_thread(stack.start, [away], with_needs=False)
            await accepted(observer, since, {waiting})
