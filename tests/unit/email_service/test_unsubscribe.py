"""The signed token of an unsubscribe link, and the routes behind it over real HTTP semantics (ASGI)."""

import asyncio
import base64
import string
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.email.domain.unsubscribe import (
    LONGEST_TOKEN,
    InvalidUnsubscribeToken,
    UnsubscribeClaims,
    UnsubscribeSource,
    UnsubscribeTokens,
)
from services.email.entrypoints.unsubscribe_page import unsubscribe_router
from services.kit.auth import Authenticator, SecretVerifier
from services.kit.crypto import KeyRing
from services.kit.errors import Unavailable
from services.kit.health import Health
from services.kit.http import create_app
from services.kit.metrics import Metrics
from services.kit.request_limits import Limit, RequestLimits
from services.kit.testing import FakeClock

KEY = KeyRing.from_secret("a-secret-of-thirty-two-characters!!").derive("unsubscribe")
OTHER_KEY = KeyRing.from_secret("another-secret-of-thirty-two-chars!").derive("unsubscribe")
TOKENS = UnsubscribeTokens(KEY)
CLAIMS = UnsubscribeClaims(
    recipient_key="5f" * 32,
    scope="list:spring-news",
    message_id="0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b",
    issued_at=datetime(2026, 11, 24, 10, 25, tzinfo=UTC),
)
TOKEN = TOKENS.issue(CLAIMS)
URL_SAFE = string.ascii_letters + string.digits + "-_"

claims_of_any_kind = st.builds(
    UnsubscribeClaims,
    recipient_key=st.text(URL_SAFE, min_size=16, max_size=128),
    scope=st.just("marketing") | st.text(string.ascii_letters + "._-", min_size=1, max_size=128).map("list:{}".format),
    message_id=st.uuids().map(str),
    issued_at=st.integers(0, 32_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
)


@given(claims_of_any_kind)
def test_a_token_gives_back_its_claims_and_fits_a_header_line(claims: UnsubscribeClaims) -> None:
    token = TOKENS.issue(claims)
    assert TOKENS.verify(token) == claims
    assert set(token) <= set(URL_SAFE)
    assert len(token) <= LONGEST_TOKEN


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(URL_SAFE))
def test_a_token_with_one_character_changed_is_refused(position: int, character: str) -> None:
    changed = TOKEN[:position] + character + TOKEN[position + 1 :]
    if changed == TOKEN:
        return
    with pytest.raises(InvalidUnsubscribeToken):
        TOKENS.verify(changed)


@given(st.integers(0, len(TOKEN) - 1), st.text(max_size=8))
def test_a_token_cut_short_or_with_something_behind_it_is_refused(length: int, behind: str) -> None:
    for changed in (TOKEN[:length], TOKEN[length:], TOKEN + behind):
        if changed != TOKEN:
            with pytest.raises(InvalidUnsubscribeToken):
                TOKENS.verify(changed)


@given(st.text(max_size=900) | st.binary(max_size=300).map(lambda b: base64.urlsafe_b64encode(b).decode()))
def test_anything_else_is_refused_and_never_raises_otherwise(text: str) -> None:
    with pytest.raises(InvalidUnsubscribeToken):
        TOKENS.verify(text)


def test_the_reason_tells_forged_from_malformed_from_another_version() -> None:
    raw = base64.urlsafe_b64decode(TOKEN + "==")
    newer = base64.urlsafe_b64encode(b"\x02" + raw[1:]).rstrip(b"=").decode()
    reasons = []
    for token in (UnsubscribeTokens(OTHER_KEY).issue(CLAIMS), "nonsense", newer):
        with pytest.raises(InvalidUnsubscribeToken) as caught:
            TOKENS.verify(token)
        reasons.append(caught.value.reason)
    assert reasons == ["tokenForged", "tokenMalformed", "tokenVersionUnknown"]


def test_fields_cannot_be_moved_into_each_other() -> None:
    one = TOKENS.issue(replace(CLAIMS, recipient_key="a" * 20, scope="marketing"))
    other = TOKENS.issue(replace(CLAIMS, recipient_key="a" * 19, scope="marketing"))
    assert TOKENS.verify(one) != TOKENS.verify(other)


def test_a_token_never_expires_and_survives_the_replacement_of_its_key() -> None:
    ancient = replace(CLAIMS, issued_at=CLAIMS.issued_at - timedelta(days=20 * 365))
    token = UnsubscribeTokens(OTHER_KEY).issue(ancient)
    assert UnsubscribeTokens(KEY, older=[OTHER_KEY]).verify(token) == ancient


@pytest.mark.parametrize("bad", [{"scope": "all"}, {"scope": "list:"}, {"recipient_key": "short"}, {"message_id": "x"}])
def test_claims_that_no_link_can_carry_are_refused(bad: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        TOKENS.issue(replace(CLAIMS, **bad))  # type: ignore[arg-type]


def test_a_weak_key_is_refused() -> None:
    with pytest.raises(ValueError):
        UnsubscribeTokens(b"short")


# --- the routes ----------------------------------------------------------------------------------------------------


class Recorder:
    """Keeps what was recorded; fails or hangs when told to."""

    def __init__(self) -> None:
        self.recorded: list[tuple[UnsubscribeClaims, UnsubscribeSource]] = []
        self.error: Exception | None = None
        self.hangs = False

    async def __call__(self, claims: UnsubscribeClaims, source: UnsubscribeSource) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        self.recorded.append((claims, source))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def client(recorder: Recorder) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(
        title="Mailroom: email",
        service="email",
        version="1",
        authenticator=Authenticator(SecretVerifier("s" * 32)),
        health=Health(FakeClock()),
        metrics=Metrics(),
        routers=[unsubscribe_router(TOKENS, recorder, product_name="<Dep> LLC", time_limit=0.2)],
    )
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="https://mail.example.com") as client:
        yield client


async def test_looking_changes_nothing(client: httpx.AsyncClient, recorder: Recorder) -> None:
    page = await client.get(f"/unsubscribe/{TOKEN}")
    assert page.status_code == 200
    assert "spring-news" in page.text
    assert '<form method="post">' in page.text
    assert (await client.head(f"/unsubscribe/{TOKEN}")).status_code == 200
    assert recorder.recorded == []


async def test_an_address_that_floods_the_page_is_held_and_the_others_are_not(recorder: Recorder) -> None:
    clock = FakeClock()
    app = create_app(
        title="Mailroom: email",
        service="email",
        version="1",
        authenticator=Authenticator(SecretVerifier("s" * 40)),
        health=Health(clock),
        metrics=Metrics(),
        routers=[unsubscribe_router(TOKENS, recorder, product_name="Dep")],
        limits=RequestLimits({"unsubscribe": Limit(2, 60), "public": Limit(1, 60)}, clock),
    )
    found = []
    for host in ("198.51.100.1", "198.51.100.1", "198.51.100.1", "198.51.100.2"):
        transport = httpx.ASGITransport(app=app, client=(host, 1))
        async with httpx.AsyncClient(transport=transport, base_url="https://mail.example.com") as client:
            found.append(await client.post(f"/unsubscribe/{TOKEN}", data={"List-Unsubscribe": "One-Click"}))
    assert [answer.status_code for answer in found] == [200, 200, 429, 200]
    assert found[2].headers["ratelimit-policy"] == '"unsubscribe";q=2;w=60'
    assert len(recorder.recorded) == 3


async def test_one_click_in_both_encodings_is_recorded_before_the_answer(
    client: httpx.AsyncClient, recorder: Recorder
) -> None:
    urlencoded = await client.post(f"/unsubscribe/{TOKEN}", data={"List-Unsubscribe": "One-Click"})
    ended = await client.post(f"/unsubscribe/{TOKEN}", content=b"List-Unsubscribe=One-Click\r\n")
    multipart = await client.post(f"/unsubscribe/{TOKEN}", files={"List-Unsubscribe": (None, "One-Click")})
    assert [urlencoded.status_code, ended.status_code, multipart.status_code] == [200, 200, 200]
    assert multipart.request.headers["content-type"].startswith("multipart/form-data")
    assert recorder.recorded == [(CLAIMS, "oneClick")] * 3


@pytest.mark.parametrize("content_type", ["", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"])
@pytest.mark.parametrize("body", [b"", b"\r\n"])
async def test_a_post_without_a_body_is_a_mail_programs(
    client: httpx.AsyncClient, recorder: Recorder, body: bytes, content_type: str
) -> None:
    answer = await client.post(f"/unsubscribe/{TOKEN}", content=body, headers={"Content-Type": content_type})
    assert (answer.status_code, recorder.recorded) == (200, [(CLAIMS, "oneClick")])
    forged = UnsubscribeTokens(OTHER_KEY).issue(CLAIMS)
    assert (await client.post(f"/unsubscribe/{forged}", content=body)).status_code == 404
    assert len(recorder.recorded) == 1


async def test_the_button_is_recorded_as_the_page(client: httpx.AsyncClient, recorder: Recorder) -> None:
    answer = await client.post(f"/unsubscribe/{TOKEN}", data={"confirm": "unsubscribe"})
    assert answer.status_code == 200
    assert "You are unsubscribed" in answer.text
    assert recorder.recorded == [(CLAIMS, "page")]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"List-Unsubscribe=Two-Clicks", "application/x-www-form-urlencoded"),
        (b'{"List-Unsubscribe": "One-Click"}', "application/json"),
        (b"--b\r\nbroken", "multipart/form-data; boundary=b"),
        (b"\xff\xfe", "multipart/form-data"),
    ],
)
async def test_a_post_that_asks_for_nothing_we_know_changes_nothing(
    client: httpx.AsyncClient, recorder: Recorder, body: bytes, content_type: str
) -> None:
    answer = await client.post(f"/unsubscribe/{TOKEN}", content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 400
    assert "<form" in answer.text
    assert recorder.recorded == []


async def test_a_form_that_no_mail_program_sends_is_too_large(client: httpx.AsyncClient, recorder: Recorder) -> None:
    answer = await client.post(f"/unsubscribe/{TOKEN}", data={"List-Unsubscribe": "One-Click", "pad": "x" * 9000})
    assert (answer.status_code, recorder.recorded) == (413, [])


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
async def test_a_forged_link_is_not_found(client: httpx.AsyncClient, recorder: Recorder, method: str) -> None:
    forged = UnsubscribeTokens(OTHER_KEY).issue(CLAIMS)
    answer = await client.request(method, f"/unsubscribe/{forged}", content=b"List-Unsubscribe=One-Click")
    assert answer.status_code == 404
    assert recorder.recorded == []


@pytest.mark.parametrize("error", [Unavailable("MongoDB", "away"), RuntimeError("bug")])
async def test_a_wish_that_could_not_be_recorded_is_never_confirmed(
    client: httpx.AsyncClient, recorder: Recorder, error: Exception
) -> None:
    recorder.error = error
    answer = await client.post(f"/unsubscribe/{TOKEN}", data={"List-Unsubscribe": "One-Click"})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert "You are unsubscribed" not in answer.text


async def test_recording_that_takes_too_long_is_503(client: httpx.AsyncClient, recorder: Recorder) -> None:
    recorder.hangs = True
    answer = await client.post(f"/unsubscribe/{TOKEN}", data={"confirm": "unsubscribe"})
    assert answer.status_code == 503
    assert "Try again" in answer.text


async def test_pages_escape_and_protect_themselves(client: httpx.AsyncClient) -> None:
    answer = await client.get(f"/unsubscribe/{TOKEN}")
    assert "<Dep>" not in answer.text
    assert "&lt;Dep&gt; LLC" in answer.text
    assert "set-cookie" not in answer.headers
    assert "<script" not in answer.text
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
