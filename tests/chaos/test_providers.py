"""Providers fail in every way that is known, under load, with senders killed: no recipient gets a mail twice, none is
lost, and each attempt says why it was made. The providers' own log of what they took is the judge.

MAILROOM_CHAOS_SEED runs one seed again. Each run prints its seed, the troubles in their order, and who carried what.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from deploy.local import providers
from deploy.local.stack import Stack
from tests.chaos.killing import Killer
from tests.chaos.providers import TROUBLES, Trouble, Weather, report_to
from tests.e2e.evidence import Observer
from tests.e2e.judge import Decisions, Evidence, assert_fair, unknowns
from tests.e2e.live import live
from tests.e2e.traffic import CATEGORIES, traffic

SEED = os.environ.get("MAILROOM_CHAOS_SEED")

BACKLOG = 200
"""Recipients who may wait for their mail."""

BEHAVIOURS = ("success",) * 8 + ("open", "click", "bounce", "complaint", "blackhole")
"""Of those on which all providers agree."""

SETTLING = 180.0
"""Seconds after which what has not settled never will."""

LOOKS = 10
"""At a trouble that has not struck often enough: then the next one comes all the same."""

SILENT = [each for each in TROUBLES if each.swallows]

RESEND = {
    "MAILROOM_UNKNOWN_AUTH": "resend",
    "MAILROOM_RESEND_AFTER_URGENT_SECONDS": "30",
    "MAILROOM_RESEND_AFTER_SECONDS": "30",
    "MAILROOM_UNKNOWN_AFTER_AUTH_MINUTES": "1.5",
}
"""Mail of category `auth` goes out once more as early as it may, and has ended a minute later."""

QUICK = ("suspends the account", "accepts and drops the connection", "throttles")


def first(provider: str) -> tuple[str, ...]:
    """All providers, this one before the others."""
    return (provider, *(each for each in providers.EVERY if each != provider))


async def mail_survives(
    stack: Stack,
    observer: Observer,
    provider: str,
    seed: int,
    troubles: Sequence[Trouble],
    *,
    strikes: int,
    between: float,
    kills: int,
    per_second: float,
    resends: bool = False,
) -> Evidence:
    """Each trouble of the provider, until it has struck so often or for a while, with so many kills of senders beside
    them; then judged. `resends`: all mail is of category `auth`, which goes out once more after silence.
    """
    began = time.monotonic()
    since = await observer.now()
    weather = Weather(observer.simulator, provider, seed)
    killers = [Killer(stack, observer, part, seed) for part in ("email", "email-urgent")]
    chance = random.Random(f"{seed} kills")
    enough = asyncio.Event()
    struck: dict[str, int] = {}

    async def bad_weather() -> None:
        for trouble in weather.order(troubles):
            await weather.clear(SETTLING)
            await weather.begin(trouble)
            for _ in range(LOOKS):
                await asyncio.sleep(between)
                if sum(each["fired"] for each in await observer.simulator.shown_faults()) >= strikes:
                    break
            struck[trouble.name] = await weather.end(trouble)
            await asyncio.sleep(between)

    async def killed() -> None:
        for _ in range(kills):
            await chance.choice(killers).kill(1)

    await report_to(stack, observer.simulator)
    categories = ("auth",) if resends else CATEGORIES
    async with traffic(stack, seed, behaviours=BEHAVIOURS, categories=categories) as load:
        async with asyncio.TaskGroup() as group:
            group.create_task(load.flow(per_second, enough, backlog=BACKLOG))
            group.create_task(load.watched_by(observer.simulator, enough))
            async with asyncio.TaskGroup() as together:
                together.create_task(bad_weather())
                together.create_task(killed())
            enough.set()
        if resends:
            await observer.none_unknown(load.ids, SETTLING)
        evidence = await observer.settled(since, load.ids, SETTLING)
    decisions = Decisions(evidence.log)
    carried = Counter(each.get("provider", "ses") for each in evidence.acceptances)
    killed_so_often = sum(killer.kills for killer in killers)
    print(
        f"\nseed {seed}, {provider} fails: {len(load.requested)} messages, {dict(carried)}, {unknowns(decisions)} "
        f"without answer, {killed_so_often} kills, {time.monotonic() - began:.0f} s\n  {struck}"
    )
    expected = load.expected(
        kills=killed_so_often,
        may_be_unknown=weather.swallowed,
        several=True,
        unreported=True,
        resends=resends,
    )
    assert_fair(evidence, expected)
    idle = [name for name, times in struck.items() if not times]
    assert not idle, f"{provider} had no mail to show that it {', '.join(idle)}"
    return evidence


async def test_one_provider_fails_in_some_ways_and_mail_goes_on(stack: Stack) -> None:
    extra = providers.service_environment(stack.site)
    troubles = [each for each in TROUBLES if each.name in QUICK]
    async with live(stack, extra=extra) as observer:
        evidence = await mail_survives(
            stack, observer, "ses", int(SEED or 1), troubles, strikes=3, between=1.0, kills=1, per_second=12
        )
    carried = {each.get("provider", "ses") for each in evidence.acceptances}
    assert carried >= {"ses", "sendgrid"}, f"only {carried} carried mail"


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("provider", providers.EVERY)
@pytest.mark.parametrize("seed", [int(SEED)] if SEED else [301, 302])
async def test_each_provider_fails_in_every_way_and_mail_goes_on(stack: Stack, provider: str, seed: int) -> None:
    extra = providers.service_environment(stack.site) | {"MAILROOM_PROVIDERS": ",".join(first(provider))}
    async with live(stack, extra=extra) as observer:
        await mail_survives(stack, observer, provider, seed, TROUBLES, strikes=20, between=2.0, kills=6, per_second=20)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("seed", [int(SEED)] if SEED else [311])
async def test_mail_that_may_arrive_twice_goes_out_once_more_after_silence(stack: Stack, seed: int) -> None:
    """And never a third time; the provider that may have it gets it no second time."""
    async with live(stack, extra=providers.service_environment(stack.site) | RESEND) as observer:
        evidence = await mail_survives(
            stack, observer, "ses", seed, SILENT, strikes=8, between=2.0, kills=3, per_second=12, resends=True
        )
    decisions = Decisions(evidence.log)
    resent = [each for each in decisions.attempts.values() if each.resend]
    assert resent, "nothing was sent once more"
    ends = decisions.ends()
    brought = sum(ends[each.message_id, each.recipient] == "accepted" for each in resent)
    print(f"{len(resent)} sent once more, {brought} of them taken")
    assert brought > len(resent) / 2
