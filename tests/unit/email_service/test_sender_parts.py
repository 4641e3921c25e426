"""The sender's small parts: circuits, lanes, routing, and what sweeps take and leave."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.email.domain.circuit import FIRST_PAUSE, LONGEST_PAUSE, SILENCE_LIMIT, STEPS_END, Circuit
from services.email.domain.commands import Expire
from services.email.domain.content import SealedBody
from services.email.domain.lanes import FLOOR_EVERY, Lanes
from services.email.domain.message import Policy
from services.email.domain.outcomes import Accepted, Outcome, Rejected
from services.email.entrypoints import sweeper as sweeper_module
from services.email.entrypoints.sender_work import Limits
from services.email.entrypoints.sweeper import COMMANDS_KEPT, UNNAMED_FOR, Sweeper
from services.email.ports import NewContent
from services.kit.errors import Unavailable
from services.kit.health import Progress
from services.kit.testing import FakeClock
from tests.unit.email_service.fakes import Post, until
from tests.unit.email_service.mail import REFUSED, SILENCE, SUSPENDED, THROTTLED, UNCALLED, YES

UNREACHABLE = Rejected("connectionFailed", "refused", "unreachable")


# --- circuit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusal", [SUSPENDED, THROTTLED, UNREACHABLE])
def test_a_refusal_of_the_account_opens_it_and_one_attempt_tries_again(refusal: Rejected) -> None:
    circuit = Circuit()
    assert circuit.allowance(0) > 100
    circuit.heard(refusal, 0)
    pause = FIRST_PAUSE[refusal.kind]
    assert (circuit.allowance(pause - 0.01), circuit.may_call(), circuit.is_open) == (0, False, True)
    assert circuit.allowance(pause) == 1
    circuit.planned()
    assert circuit.allowance(pause) == 0
    circuit.heard(YES, pause)
    assert not circuit.is_open


def test_load_comes_back_in_steps_and_each_waits_for_an_answer() -> None:
    circuit = Circuit()
    circuit.heard(SUSPENDED, 0)
    steps = []
    while (allowed := circuit.allowance(5)) <= STEPS_END:
        steps.append(allowed)
        circuit.planned()
        assert circuit.allowance(5) == 0
        circuit.heard(YES, 5)
    assert steps == [1, 2, 4, 8, 16, 32]
    assert allowed > 100


def test_refused_again_on_the_way_back_it_opens_anew() -> None:
    circuit = Circuit()
    circuit.heard(SUSPENDED, 0)
    for _ in range(3):
        circuit.allowance(5)
        circuit.planned()
        circuit.heard(YES, 5)
    circuit.heard(SUSPENDED, 5)
    assert (circuit.open_until, circuit.allowance(9.9)) == (10, 0)


def test_one_that_is_shared_tries_again_when_it_is_told_to() -> None:
    circuit = Circuit(shared=True)
    circuit.heard(SUSPENDED, 0)
    assert circuit.allowance(1000) == 0
    circuit.probe()
    assert circuit.allowance(1000) == 1
    circuit.shut(7, "noAnswer", 1000)
    assert (circuit.allowance(1000), circuit.may_call(), circuit.reason) == (0, False, "noAnswer")
    circuit.resume()
    assert (circuit.allowance(1000), circuit.may_call()) == (1, True)


@given(st.lists(st.sampled_from([YES, SUSPENDED, THROTTLED, REFUSED, SILENCE, UNCALLED]), max_size=20))
def test_whatever_became_of_what_was_planned_more_is_allowed_in_the_end(outcomes: list[Outcome]) -> None:
    circuit, now = Circuit(), 0.0
    for outcome in outcomes:
        now += max(LONGEST_PAUSE.values())
        assert circuit.allowance(now) > 0
        circuit.planned()
        circuit.heard(outcome, now)


def test_load_that_comes_back_is_not_held_up_by_silence() -> None:
    circuit = Circuit()
    circuit.heard(SUSPENDED, 0)
    assert circuit.allowance(5) == 1
    circuit.planned()
    circuit.heard(YES, 5)
    for _ in range(SILENCE_LIMIT - 1):
        assert circuit.allowance(5) == 2
        circuit.planned()
        circuit.heard(SILENCE, 5)
    assert circuit.allowance(5) == 2
    circuit.planned()
    circuit.heard(SILENCE, 5)
    assert circuit.allowance(5) == 0
    assert circuit.is_open


def test_the_pause_doubles_while_nothing_gets_through_and_starts_over_after() -> None:
    circuit, now, pauses = Circuit(), 0.0, []
    for _ in range(12):
        circuit.heard(SUSPENDED, now)
        assert circuit.open_until is not None
        pauses.append(circuit.open_until - now)
        now = circuit.open_until
        assert circuit.allowance(now) == 1
        circuit.planned()
    assert pauses[:3] == [5.0, 10.0, 20.0]
    assert pauses[-1] == LONGEST_PAUSE["account"]
    circuit.heard(YES, now)
    circuit.heard(SUSPENDED, now)
    assert circuit.open_until == now + 5.0


def test_calls_that_were_under_way_when_it_opened_do_not_prolong_it() -> None:
    circuit = Circuit()
    for n in range(30):
        circuit.heard(SUSPENDED, n / 100)
    assert circuit.open_until == 5.0


def test_a_refused_mail_says_that_the_account_is_fine() -> None:
    circuit = Circuit()
    circuit.heard(SUSPENDED, 0)
    assert circuit.allowance(5) == 1
    circuit.planned()
    circuit.heard(REFUSED, 5)
    assert not circuit.is_open


def test_an_attempt_that_was_never_made_lets_another_one_try() -> None:
    circuit = Circuit()
    circuit.heard(SUSPENDED, 0)
    assert circuit.allowance(5) == 1
    circuit.planned()
    assert circuit.allowance(5) == 0
    circuit.heard(UNCALLED, 5)
    assert circuit.allowance(5) == 1


def test_a_run_of_silence_opens_it_and_a_single_one_does_not() -> None:
    circuit = Circuit()
    for _ in range(SILENCE_LIMIT - 1):
        circuit.heard(SILENCE, 0)
    assert not circuit.is_open
    circuit.heard(YES, 0)
    for _ in range(SILENCE_LIMIT):
        circuit.heard(SILENCE, 0)
    assert circuit.is_open


def test_the_provider_s_own_wish_counts_if_longer() -> None:
    circuit = Circuit()
    circuit.heard(Rejected("Throttling", "", "throttle", retry_after=30), 0)
    assert circuit.open_until == 30


UNLISTED = Rejected("SomethingNew", "", "throttle", unlisted=True)


def test_an_unlisted_refusal_is_the_account_s_once_several_mails_met_it() -> None:
    circuit = Circuit()
    for message_id in ["a", "b", "a", "a", "b"]:
        outcome = circuit.charged(UNLISTED, message_id)
        assert outcome == UNLISTED, "that mail's own, as often as it meets it"
        circuit.heard(outcome, 0)
        assert not circuit.is_open
    outcome = circuit.charged(UNLISTED, "c")
    assert isinstance(outcome, Rejected)
    assert outcome.kind == "account"
    circuit.heard(outcome, 0)
    assert (circuit.allowance(4.9), circuit.allowance(5)) == (0, 1)
    circuit.planned()
    again = circuit.charged(UNLISTED, "a")
    circuit.heard(again, 5)
    assert circuit.open_until == 15, "the one that was let through met it too"


@pytest.mark.parametrize("sign_of_health", [YES, REFUSED])
def test_mails_that_meet_an_unlisted_refusal_among_others_that_are_taken_meet_it_for_themselves(
    sign_of_health: Accepted | Rejected,
) -> None:
    circuit = Circuit()
    for message_id in "abcdefgh":
        circuit.heard(circuit.charged(UNLISTED, message_id), 0)
        circuit.heard(circuit.charged(sign_of_health, "other"), 0)
    assert not circuit.is_open


def test_an_unlisted_refusal_is_no_health_and_lets_another_mail_try() -> None:
    circuit = Circuit()
    circuit.heard(SUSPENDED, 0)
    assert circuit.allowance(5) == 1
    circuit.planned()
    circuit.heard(circuit.charged(UNLISTED, "a"), 5)
    assert (circuit.is_open, circuit.allowance(5)) == (True, 1)


# --- lanes and routes --------------------------------------------------------------------------------------------


@dataclass
class Item:
    lane: str
    n: int


def test_lanes_go_by_importance_and_each_gets_its_share() -> None:
    lanes: Lanes[Item] = Lanes()
    lanes.add(Item(lane, n) for lane in ("low", "normal", "high", "urgent") for n in range(100))
    picked = [lanes.other() for _ in range(10 * FLOOR_EVERY)]
    counts = {
        lane: sum(item is not None and item.lane == lane for item in picked) for lane in ("high", "normal", "low")
    }
    assert counts["high"] >= 10 * (FLOOR_EVERY - 1)
    assert min(counts["normal"], counts["low"]) >= 3
    urgent = [lanes.urgent() for _ in range(101)]
    assert [item.n for item in urgent if item] == list(range(100))
    assert urgent[-1] is None


def test_what_is_put_back_goes_next_and_clearing_gives_all() -> None:
    lanes: Lanes[Item] = Lanes()
    lanes.add([Item("low", n) for n in range(4)])
    first, second = lanes.other(), lanes.other()
    assert first
    assert second
    lanes.put_back([first, second])
    assert [item.n for item in lanes.clear()] == [0, 1, 2, 3]
    assert len(lanes) == 0


def test_a_call_ends_before_anybody_calls_it_unknown() -> None:
    assert timedelta(seconds=Limits().licence + Limits().call) < Policy().call_window


# --- sweeps ------------------------------------------------------------------------------------------------------


async def test_sweeps_delete_what_no_stream_names_and_keep_the_rest() -> None:
    clock = FakeClock()
    post = Post(clock=clock)
    sweeper = Sweeper(post.streams, post.contents, clock, Progress(clock))
    (named,) = await post.queue()
    waiting = post.ids.new()
    await _put(post, named, "message", b"another rendering")
    await _put(post, named, "sealed", SealedBody(text="x").to_bytes())
    await _put(post, waiting, "sealed", b"a command that no intake has taken yet")
    await _put(post, post.ids.new(), "message", b"a crash came before the append")
    await sweeper.sweep_unnamed()
    assert len(post.contents.kept) == 5
    clock.move(UNNAMED_FOR.total_seconds() + 1)
    await sweeper.sweep_unnamed()
    left = {(key.message_id, stored.kind, kept) for key, (stored, _, kept) in post.contents.kept.items()}
    assert left == {(named, "message", True), (waiting, "sealed", False)}
    clock.move(COMMANDS_KEPT.total_seconds())
    await sweeper.sweep_unnamed()
    assert {key.message_id for key in post.contents.kept} == {named}


async def test_a_sweep_walks_past_what_has_to_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealed bodies whose commands lie in Kafka, more than a page of them, some of the very same moment."""
    monkeypatch.setattr(sweeper_module, "BATCH", 5)
    monkeypatch.setattr(sweeper_module, "PAGES", 2)
    clock = FakeClock()
    post = Post(clock=clock)
    sweeper = Sweeper(post.streams, post.contents, clock, Progress(clock))
    for n in range(23):
        clock.move(n % 12 == 0)
        await _put(post, post.ids.new(), "sealed", b"%d" % n)
    orphan = post.ids.new()
    await _put(post, orphan, "message", b"a crash came before the append")
    clock.move(UNNAMED_FOR.total_seconds() + 1)
    more = [await sweeper.sweep_unnamed() for _ in range(3)]
    assert (more, len(post.contents.kept)) == ([True, True, False], 23)
    assert orphan not in {key.message_id for key in post.contents.kept}
    clock.move(COMMANDS_KEPT.total_seconds())
    while await sweeper.sweep_unnamed():
        pass
    assert post.contents.kept == {}, "it begins anew"


async def test_a_sweep_of_auth_content_walks_past_mail_that_is_not_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeper_module, "BATCH", 5)
    clock = FakeClock()
    post = Post(clock=clock)
    sweeper = Sweeper(post.streams, post.contents, clock, Progress(clock))
    live = await post.queue(12, category="auth", expires_at=clock.now() + timedelta(days=1))
    (over,) = await post.queue(category="auth", expires_at=clock.now() + timedelta(seconds=1))
    clock.move(60)
    await _expire(post, over)
    assert [await sweeper.sweep_auth() for _ in range(2)] == [False, False]
    assert {key.message_id for key in post.contents.kept} == set(live)


async def test_content_is_kept_from_when_its_mail_is_over() -> None:
    clock = FakeClock()
    post = Post(clock=clock)
    sweeper = Sweeper(post.streams, post.contents, clock, Progress(clock))
    in_a_year = clock.now() + timedelta(days=365)
    (planned,) = await post.queue(send_at=in_a_year, expires_at=in_a_year + timedelta(days=3))
    (over,) = await post.queue(expires_at=clock.now() + timedelta(seconds=1))
    clock.move(UNNAMED_FOR.total_seconds() + 1)
    await _expire(post, over)
    await sweeper.sweep_unnamed()
    since = {key.message_id: begin for key, begin in post.contents.since.items()}
    assert since == {planned: in_a_year + timedelta(days=3), over: clock.now()}
    clock.move(timedelta(days=91).total_seconds())
    assert not await sweeper.sweep_ended()
    assert {key.message_id for key in post.contents.kept} == {planned}, "it is not sent yet"
    clock.move(timedelta(days=367).total_seconds())
    await sweeper.sweep_ended()
    assert post.contents.kept == {}


async def test_a_sweep_that_fails_keeps_no_other_from_its_work() -> None:
    clock = FakeClock()
    post = Post(clock=clock)
    sweeper = Sweeper(post.streams, post.contents, clock, Progress(clock))
    (message_id,) = await post.queue(category="auth", expires_at=clock.now() + timedelta(seconds=1))
    clock.move(60)
    await _expire(post, message_id)

    async def unnamed() -> bool:
        raise Unavailable("S3", "away")

    sweeper.sweep_unnamed = unnamed  # type: ignore[method-assign]
    stopping = asyncio.Event()
    running = asyncio.create_task(sweeper.run(stopping))

    async def swept() -> bool:
        return post.contents.kept == {}

    await until(swept)
    assert not running.done()
    stopping.set()
    await running


async def test_what_is_put_again_meanwhile_is_not_swept() -> None:
    clock = FakeClock()
    post = Post(clock=clock)
    sweeper = Sweeper(post.streams, post.contents, clock, Progress(clock))
    message_id = post.ids.new()
    await _put(post, message_id, "message", b"x")
    clock.move(UNNAMED_FOR.total_seconds() + 1)
    await _put(post, message_id, "message", b"x")
    await sweeper.sweep_unnamed()
    assert len(post.contents.kept) == 1


async def test_auth_content_goes_when_its_message_is_over() -> None:
    clock = FakeClock()
    post = Post(clock=clock)
    sweeper = Sweeper(post.streams, post.contents, clock, Progress(clock))
    (live,) = await post.queue(category="auth")
    (over,) = await post.queue(category="auth", expires_at=clock.now() + timedelta(seconds=1))
    (other,) = await post.queue(expires_at=clock.now() + timedelta(seconds=1))
    clock.move(60)
    for message_id in (over, other):
        await _expire(post, message_id)
    await sweeper.sweep_auth()
    assert {key.message_id for key in post.contents.kept} == {live, other}


async def _put(post: Post, message_id: str, kind: Any, data: bytes) -> None:
    await post.contents.put_many([NewContent(message_id, "notification", kind, data)])


async def _expire(post: Post, message_id: str) -> None:
    await post.streams.change({message_id: lambda held: post.streams.decide(held, Expire())})
