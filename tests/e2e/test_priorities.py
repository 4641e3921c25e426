"""A campaign does not delay urgent mail."""

from __future__ import annotations

import pytest

from bench.priorities import measure
from deploy.local.stack import Stack


async def test_urgent_mail_passes_a_campaign(stack: Stack) -> None:
    """By order and not by clock, so that a slow machine cannot fail it."""
    found = await measure(stack, rate=40, campaign=320, urgent=12, every=0.25)
    print(f"\n{found}\novertaken by {found.overtaken_by}")
    assert found.campaign_done < found.campaign, "the campaign was over before the urgent mail was"
    # What had its place and token when an urgent mail came goes out before it: 32 places, tokens for 0.2 s.
    assert max(found.overtaken_by) <= 32 + 40 * 0.2


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("rate", "campaign", "urgent", "every"),
    [pytest.param(200, 5000, 150, 0.1, id="200/s"), pytest.param(14, 700, 40, 1.0, id="14/s")],
)
async def test_urgent_mail_is_as_fast_beside_a_campaign(
    stack: Stack, rate: float, campaign: int, urgent: int, every: float
) -> None:
    found = await measure(stack, rate=rate, campaign=campaign, urgent=urgent, every=every)
    print(f"\n{found}")
    assert found.campaign_done < found.campaign, "the campaign was over before the urgent mail was"
    assert found.holds or rate < 200, str(found)
