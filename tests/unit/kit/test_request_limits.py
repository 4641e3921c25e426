"""How often somebody may call: buckets, whose they are, and what is answered beyond them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import Depends
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from services.kit.answers import Answer
from services.kit.auth import Authenticator, Principal, Role, SecretVerifier, mint_token, require
from services.kit.health import Health
from services.kit.http import create_app, router
from services.kit.metrics import Metrics
from services.kit.request_limits import Buckets, Limit, RequestLimits, address_block, limited
from services.kit.testing import FakeClock

SECRET = "s" * 40


# --- buckets -------------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 20)), max_size=40),
)
def test_over_any_time_as_many_as_the_bucket_holds_and_what_flowed_in(
    requests: int, seconds: int, asked: list[tuple[float, int]]
) -> None:
    clock = FakeClock()
    buckets = Buckets(Limit(requests, seconds), clock)
    granted = 0
    for pause, draws in asked:
        clock.move(pause)
        for _ in range(draws):
            wait = buckets.draw("ann")
            assert wait <= seconds / requests + 1e-6
            granted += wait == 0
        assert granted <= requests + clock.monotonic() * requests / seconds + 1e-3


@given(st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_full_bucket_gives_all_it_holds_and_the_next_one_when_it_said(requests: int, seconds: int) -> None:
    clock = FakeClock()
    clock.move(123_456.789)
    buckets = Buckets(Limit(requests, seconds), clock)
    assert [buckets.draw("ann") for _ in range(requests)] == [0] * requests
    wait = buckets.draw("ann")
    assert wait > 0
    clock.move(wait)
    assert buckets.draw("ann") == 0


def test_memory_is_bounded_and_whoever_goes_on_asking_is_not_forgotten() -> None:
    buckets = Buckets(Limit(5, 60), FakeClock(), kept=100)
    for _ in range(5):
        assert buckets.draw("flood") == 0
    for n in range(1000):
        assert buckets.draw(f"other-{n}") == 0
        if n % 90 == 0:
            assert buckets.draw("flood") > 0
    assert len(buckets) == 100


@pytest.mark.parametrize(
    ("text", "limit"), [("6000/60", Limit(6000, 60)), (" 5 / 1 ", Limit(5, 1)), ("off", None), ("0", None)]
)
def test_a_limit_is_written_as_requests_in_seconds(text: str, limit: Limit | None) -> None:
    assert Limit.parse(text) == limit
    assert limit is None or Limit.parse(str(limit)) == limit


@pytest.mark.parametrize("text", ["", "6000", "6000/", "/60", "0/60", "60/0", "-1/60", "1.5/60", "6000/60/1", "many"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="requests/seconds such as 6000/60, or off"):
        Limit.parse(text)


# --- whose ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "block"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::2", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("gateway", "unknown"),
        (None, "unknown"),
    ],
)
def test_an_ipv6_host_is_as_good_as_its_network(host: str | None, block: str) -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "headers": []}
    assert address_block(Request({**scope, "client": None if host is None else (host, 1)})) == block


# --- requests ------------------------------------------------------------------------------------------------------

things = router("/api")


@things.post("/things")
async def create(_: Annotated[Principal, Depends(require("things:create"))]) -> Answer[str]:
    return Answer(data="made")


@things.post("/large")
async def large(_: Annotated[Principal, Depends(require("things:create"))], body: dict[str, str]) -> Answer[str]:
    return Answer(data="read")


@things.get("/things")
async def read(_: Annotated[Principal, Depends(require("things:read"))]) -> Answer[str]:
    return Answer(data="here")


@things.post("/repair")
async def repair(_: Annotated[Principal, Depends(require("things:operate"))]) -> Answer[str]:
    return Answer(data="done")


@things.get("/open", dependencies=[Depends(limited("public"))])
async def opened() -> Answer[str]:
    return Answer(data="for all")


class Site:
    """The application, with these limits, and a call to it: GET unless `post` is given."""

    def __init__(self, **limits: str) -> None:
        self.clock = FakeClock()
        self.app = create_app(
            title="Things",
            service="things",
            version="1",
            authenticator=Authenticator(SecretVerifier(SECRET), cookie="session"),
            health=Health(self.clock),
            metrics=Metrics(),
            routers=[things],
            limits=RequestLimits(
                {name: Limit.parse(text) for name, text in limits.items()},
                self.clock,
                writes="make",
                service_factor=3,
            ),
        )

    async def call(self, path: str, address: str = "203.0.113.7", **headers: str) -> httpx.Response:
        posts = headers.pop("post", None) or path == "/api/repair"
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False, client=(address, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://mailroom", headers=headers) as client:
            return await client.request("POST" if posts else "GET", path)


def as_(user: str, *scopes: str, role: Role = "user") -> dict[str, str]:
    return {"authorization": f"Bearer {mint_token(SECRET, user, scopes or ALL, role)}"}


ALL = ("things:create", "things:read", "things:operate")
BAD = {"authorization": "Bearer made.up.token"}


@pytest.fixture
def site() -> Site:
    return Site(read="3/60", make="2/60", operate="1/60", public="2/60", unauthenticated="2/60")


async def statuses(site: Site, count: int, path: str, **headers: str) -> list[int]:
    return [(await site.call(path, **headers)).status_code for _ in range(count)]


async def test_beyond_the_limit_the_answer_says_which_one_and_when_to_repeat(site: Site) -> None:
    assert await statuses(site, 3, "/api/things", **as_("ann")) == [200] * 3
    answer = await site.call("/api/things", **as_("ann"))
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "20")
    assert answer.headers["ratelimit-policy"] == '"read";q=3;w=60'
    assert answer.headers["ratelimit"] == '"read";r=0;t=20'
    assert answer.json()["error"] == "Too many requests: at most 3 of this kind (read) in 60 s. Repeat after 20 s."
    site.clock.move(20)
    assert await statuses(site, 2, "/api/things", **as_("ann")) == [200, 429]


async def test_each_user_and_each_class_of_routes_has_a_bucket_of_its_own(site: Site) -> None:
    assert await statuses(site, 4, "/api/things", **as_("ann")) == [200, 200, 200, 429]
    assert await statuses(site, 3, "/api/things", post="1", **as_("ann")) == [200, 200, 429]
    assert await statuses(site, 2, "/api/repair", **as_("ann")) == [200, 429]
    assert await statuses(site, 1, "/api/things", **as_("bob")) == [200]


async def test_a_user_is_one_wherever_they_call_from(site: Site) -> None:
    found = [(await site.call("/api/repair", f"203.0.113.{n}", **as_("ann"))).status_code for n in (1, 2)]
    assert found == [200, 429]


async def test_a_service_may_more_since_it_calls_for_many(site: Site) -> None:
    assert await statuses(site, 7, "/api/things", post="1", **as_("crm", role="service")) == [200] * 6 + [429]
    assert await statuses(site, 1, "/api/things", post="1", **as_("crm")) == [200], "a user of that name is another"


async def test_what_the_token_may_not_do_counts_too(site: Site) -> None:
    assert await statuses(site, 3, "/api/things", post="1", **as_("ann", "things:read")) == [403, 403, 429]


async def test_tokens_that_are_not_accepted_count_against_the_address_and_no_good_token_is_refused_for_them(
    site: Site,
) -> None:
    assert await statuses(site, 3, "/api/things", **BAD) == [401, 401, 429]
    assert await statuses(site, 1, "/api/things") == [429], "nor is one needed to be counted"
    assert await statuses(site, 1, "/api/things", post="1", cookie="session=stolen") == [429], "nor another's page"
    assert await statuses(site, 1, "/api/things", **as_("ann")) == [200]
    assert (await site.call("/api/things", "203.0.113.8", **BAD)).status_code == 401


async def test_a_route_without_a_token_is_held_by_address_whatever_token_comes(site: Site) -> None:
    found = [(await site.call("/api/open", f"2001:db8::{n}", **as_(f"u{n}"))).status_code for n in (1, 2, 3)]
    assert found == [200, 200, 429]
    assert (await site.call("/api/open", "2001:db8:0:1::1")).status_code == 200


async def test_what_is_refused_is_refused_before_a_byte_of_its_body_is_read(site: Site) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b'{"a": "b"}'

    found = []
    transport = httpx.ASGITransport(app=site.app, client=("203.0.113.7", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://mailroom") as client:
        for headers in (as_("ann"), as_("ann"), as_("ann"), BAD, BAD, BAD):
            json = {**headers, "content-type": "application/json"}
            found.append((await client.post("/api/large", content=body(), headers=json)).status_code)
    assert (found, read) == ([200, 200, 429, 401, 401, 429], 2)


async def test_probes_are_always_answered(site: Site) -> None:
    assert await statuses(site, 5, "/healthz") == [200] * 5


async def test_a_limit_that_is_off_limits_nothing() -> None:
    site = Site(read="off", public="0")
    assert await statuses(site, 20, "/api/things", **as_("ann")) == [200] * 20
    assert await statuses(site, 20, "/api/open") == [200] * 20
    assert await statuses(site, 20, "/api/things", **BAD) == [401] * 20
