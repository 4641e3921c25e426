"""Request bodies: large, many, slow, full of values. What goes wrong is told at once, and room always comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.types import Message, Receive

from services.kit import bodies as kit_bodies
from services.kit.bodies import SMALL, Bodies, hold_to_values, largest_body
from services.kit.errors import ContentTooLarge, InvalidRequest, RequestTimeout, ServiceUnavailable
from services.kit.metrics import HTTP_BODY_BYTES, Metrics
from services.kit.testing import FakeClock

LIMIT = 1_000_000
IN_FLIGHT = 1_500_000
LARGE = 1_000_000  # of which one may be in hand: two are more than four fifths of IN_FLIGHT


class Site:
    """The bodies of a process."""

    def __init__(self, *, grace: float = 20.0) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.bodies = Bodies(
            service="things",
            metrics=self.metrics,
            clock=self.clock,
            in_flight=IN_FLIGHT,
            per_second=1000,
            grace=grace,
        )

    async def read(self, request: Request, limit: int = LIMIT) -> bytes:
        with self.bodies.taking(request, limit) as receive:
            return await Request(request.scope, receive).body()

    @property
    def in_hand(self) -> float:
        return self.metrics.value(HTTP_BODY_BYTES, service="things")


@pytest.fixture
def site() -> Site:
    return Site()


def request(
    chunks: Iterable[bytes] = (), *, announced: int | None = None, before: Callable[[], object] = lambda: None
) -> Request:
    """One whose body comes in these chunks; `before` is called before each. Behind them nothing comes."""
    waiting = [*chunks, b""]

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        before()
        return {"type": "http.request", "body": waiting.pop(0), "more_body": bool(waiting)}

    return asked(receive, announced)


def asked(receive: Receive, announced: int | None = None) -> Request:
    headers = [] if announced is None else [(b"content-length", str(announced).encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


async def never() -> Message:
    raise AssertionError("a byte was asked for")


async def silence() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


# --- size and room ----------------------------------------------------------------------------------------------------


async def test_a_body_is_what_came(site: Site) -> None:
    assert await site.read(request([b"a" * 10, b"b" * 5])) == b"a" * 10 + b"b" * 5
    assert await site.read(request([b"abc"], announced=3)) == b"abc"


async def test_one_that_is_announced_too_large_is_not_read(site: Site) -> None:
    with pytest.raises(ContentTooLarge, match="larger than 10 bytes"):
        await site.read(asked(never, announced=11), limit=10)


async def test_one_that_is_not_announced_is_read_up_to_the_limit(site: Site) -> None:
    asked_for: list[None] = []
    with pytest.raises(ContentTooLarge):
        await site.read(request([b"x" * 6] * 10, before=lambda: asked_for.append(None)), limit=10)
    assert len(asked_for) == 2
    assert site.in_hand == 0


async def test_without_room_one_is_refused_at_once_and_later_taken(site: Site) -> None:
    with site.bodies.taking(asked(silence, announced=LARGE), LIMIT):
        assert site.in_hand == LARGE
        with pytest.raises(ServiceUnavailable) as refused:
            await site.read(asked(never, announced=LARGE))
        assert int(refused.value.headers["Retry-After"]) > 0
    assert site.in_hand == 0
    assert await site.read(request([b"x" * LARGE], announced=LARGE)) == b"x" * LARGE


async def test_one_that_is_not_announced_takes_room_as_it_comes(site: Site) -> None:
    with site.bodies.taking(asked(silence, announced=LARGE), LIMIT):
        with pytest.raises(ServiceUnavailable):
            await site.read(request([b"x" * 50_000] * 20))
        assert site.in_hand == LARGE


async def test_large_bodies_leave_room_for_small_ones(site: Site) -> None:
    with site.bodies.taking(asked(silence, announced=LARGE), LIMIT):
        left = largest_body(IN_FLIGHT) - LARGE
        with site.bodies.taking(asked(silence, announced=left), LIMIT):
            with pytest.raises(ServiceUnavailable):
                await site.read(request([], announced=SMALL + 1))
            assert await site.read(request([b"x" * SMALL], announced=SMALL)) == b"x" * SMALL


@pytest.mark.parametrize("ending", [RuntimeError("of a handler"), asyncio.CancelledError(), ContentTooLarge("")])
async def test_however_a_request_ends_its_room_is_free(site: Site, ending: BaseException) -> None:
    with pytest.raises(type(ending)), site.bodies.taking(asked(silence, announced=LARGE), LIMIT):
        raise ending
    assert site.in_hand == 0


# --- rate -------------------------------------------------------------------------------------------------------------


async def read_slowly(site: Site, sizes: list[int], seconds: float) -> bytes:
    """Each chunk comes so many seconds after the one before."""
    return await site.read(request([b"x" * size for size in sizes], before=lambda: site.clock.move(seconds)))


async def test_a_small_body_may_take_the_grace_whatever_its_rate(site: Site) -> None:
    assert await read_slowly(site, [1] * 18, 1.0) == b"x" * 18


async def test_a_large_body_may_take_long_while_it_keeps_up(site: Site) -> None:
    assert len(await read_slowly(site, [5_100] * 190, 5.0)) == 969_000
    assert site.clock.monotonic() > 900


async def test_a_body_below_the_rate_is_refused_once_the_grace_is_over(site: Site) -> None:
    with pytest.raises(RequestTimeout, match="1000 bytes a second") as refused:
        await read_slowly(site, [900] * 1000, 1.0)
    assert refused.value.headers["Connection"] == "close"
    assert site.clock.monotonic() == pytest.approx(200, abs=5)  # 20 s of grace + 900 of 1000 bytes in each second
    assert site.in_hand == 0


async def test_a_body_that_stops_coming_is_refused_however_fast_it_began() -> None:
    site = Site(grace=0.0)
    messages = [{"type": "http.request", "body": b"x" * 900_000, "more_body": True}]

    async def receive() -> Message:
        return messages.pop() if messages else await silence()

    with pytest.raises(RequestTimeout):
        await site.read(asked(receive))
    assert site.in_hand == 0


async def test_behind_the_whole_body_nothing_is_hurried(site: Site) -> None:
    messages: list[Message] = [{"type": "http.request", "body": b"x"}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        site.clock.move(3600.0 * (len(messages) == 1))
        return messages.pop(0)

    with site.bodies.taking(asked(receive, announced=1), LIMIT) as limited:
        assert (await limited())["type"] == "http.request"
        assert (await limited())["type"] == "http.disconnect"


# --- values -----------------------------------------------------------------------------------------------------------


def refused(body: bytes) -> bool:
    try:
        hold_to_values(body)
    except InvalidRequest:
        return True
    return False


MOST = kit_bodies.MOST_VALUES


@pytest.mark.parametrize(
    "body",
    [
        b"[" + b"[]," * MOST + b"[]]",
        b"[" + b"{}," * MOST + b"{}]",
        b"[" + b"0," * MOST + b"0]",
        b'["' + b'","' * MOST + b'"]',
        b'["' + b'\\\\","' * MOST + b'"]',
        b'{"' + b'":"","' * MOST + b'":0}',
        b"[" * (MOST + 1) + b"]" * (MOST + 1),
        b"[" * 10 * MOST,
    ],
    ids=["lists", "objects", "numbers", "texts", "escaped", "entries", "nested", "open"],
)
def test_too_many_values_are_refused(body: bytes) -> None:
    assert refused(body)


@pytest.mark.parametrize(
    "text", ["a, b, [c], {d}\n" * MOST, '","' * MOST, '\\","\\' * MOST, "\\" * MOST + '",,,"' * MOST, "💌,[{" * MOST]
)
def test_text_may_hold_what_it_likes(text: str) -> None:
    for ascii_only in (True, False):
        hold_to_values(json.dumps({"htmlContent": text, "to": ["a", "b"]}, ensure_ascii=ascii_only).encode())


def values_of(value: Any) -> int:
    """As many as a body may have is told by: of each list and object its elements, and one where it has none."""
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return max(1, len(value)) + sum(values_of(each) for each in inner)
    return 0


texts = st.text(alphabet=st.sampled_from('ab",[]{}:\\\n💌'), max_size=8)
anything = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(value=anything, most=st.integers(0, 20), ascii_only=st.booleans())
def test_exactly_what_has_more_values_is_refused(value: Any, most: int, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kit_bodies, "MOST_VALUES", most)
        assert refused(body) == (values_of(value) > most)
