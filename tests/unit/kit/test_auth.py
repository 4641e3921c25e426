"""Who gets in, as whom, and what each refusal says."""

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Literal

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from starlette.requests import Request

from services.kit.auth import (
    Authenticator,
    KeySetVerifier,
    Principal,
    SecretVerifier,
    Verifier,
    mint_token,
)
from services.kit.clock import SystemClock
from services.kit.errors import Forbidden, Unauthenticated, Unavailable
from services.kit.jwks import LARGEST, KeySet
from services.kit.testing import FakeClock

SECRET = "s" * 64
NOW = SystemClock().now()
CLAIMS: dict[str, Any] = {
    "sub": "u1",
    "role": "user",
    "scope": "email:create email:read",
    "exp": int((NOW + timedelta(hours=1)).timestamp()),
}
KEYS = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]


def request(method: str = "GET", **headers: str) -> Request:
    encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": method, "path": "/", "query_string": b"", "headers": encoded})


def signed(claims: dict[str, Any], key: object = SECRET, algorithm: str = "HS256", **headers: str) -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers=headers)  # type: ignore[arg-type]


def without(claim: str) -> dict[str, Any]:
    return {name: value for name, value in CLAIMS.items() if name != claim}


async def test_a_good_token() -> None:
    token = mint_token(SECRET, "u1", ["email:create", "email:read"], "admin")
    principal = await SecretVerifier(SECRET).verify(token)
    assert principal == Principal("u1", frozenset({"email:create", "email:read"}), "admin")
    assert principal.actor == "admin:u1"


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("", "not valid"),
        ("a.b.c", "not valid"),
        (signed(CLAIMS, "another secret of at least 32 bytes"), "not valid"),
        (signed(CLAIMS, None, "none"), "not valid"),
        (signed(CLAIMS, SECRET, "HS512"), "not valid"),
        (signed(CLAIMS | {"exp": int((NOW - timedelta(minutes=1)).timestamp())}), "expired"),
        (signed(CLAIMS | {"nbf": int((NOW + timedelta(days=1)).timestamp())}), "not valid"),
        (signed(without("exp")), "lacks the claim exp"),
        (signed(without("sub")), "lacks the claim sub"),
        (signed(without("role")), "lacks the claim role"),
        (signed(without("scope")), "lacks the claim scope"),
        (signed(CLAIMS | {"sub": ""}), "sub must be"),
        (signed(CLAIMS | {"sub": "u\n1"}), "sub must be"),
        (signed(CLAIMS | {"role": "root"}), "role must be one of user, admin, service"),
        (signed(CLAIMS | {"scope": ["email:read"]}), "scope must be words"),
        (signed(CLAIMS | {"exp": "tomorrow"}), "not valid"),
    ],
)
async def test_refused_tokens(token: str, told: str) -> None:
    with pytest.raises(Unauthenticated, match=told):
        await SecretVerifier(SECRET).verify(token)


async def test_issuer_and_claims_count_where_they_are_set() -> None:
    picky = SecretVerifier(SECRET, issuer="crm", claims={"aud": "mailroom"})
    good = mint_token(SECRET, "u1", [], issuer="crm", claims={"aud": "mailroom"})
    assert (await picky.verify(good)).user_id == "u1"
    with pytest.raises(Unauthenticated):
        await picky.verify(mint_token(SECRET, "u1", [], issuer="crm", claims={"aud": "another"}))
    with pytest.raises(Unauthenticated):
        await picky.verify(mint_token(SECRET, "u1", [], issuer="another", claims={"aud": "mailroom"}))
    assert (await SecretVerifier(SECRET).verify(good)).user_id == "u1"


OURS = {"iss": "https://id.example", "client_id": "mailroom"}
RS256_CLAIMS = CLAIMS | OURS


class Issuer:
    """Publishes the keys put into `published`, and counts how often it is asked."""

    def __init__(self) -> None:
        self.published: dict[str, rsa.RSAPrivateKey] = {"k0": KEYS[0]}
        self.asked = 0
        self.away = False

    def answer(self, _request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.away:
            raise httpx.ConnectError("refused")
        keys = [_jwk(name, key) for name, key in self.published.items()]
        return httpx.Response(
            200, json={"keys": [*keys, {"kty": "oct", "kid": "weak", "k": _text("weak secret of at least 32 bytes")}]}
        )

    def keys(self, clock: FakeClock) -> KeySet:
        return KeySet("https://id.example/jwks", clock=clock, transport=httpx.MockTransport(self.answer))

    def verifier(self, clock: FakeClock) -> KeySetVerifier:
        return verifier_of(self.keys(clock))


def verifier_of(keys: KeySet) -> KeySetVerifier:
    return KeySetVerifier(keys, issuer=OURS["iss"], claims={"client_id": OURS["client_id"]})


def _jwk(name: str, key: rsa.RSAPrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "kid": name, "use": "sig", "n": _b64(numbers.n), "e": _b64(numbers.e)}


def _b64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8)).rstrip(b"=").decode()


def _text(secret: str) -> str:
    return base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode()


async def test_published_keys_are_fetched_once_and_again_after_rotation() -> None:
    clock, issuer = FakeClock(), Issuer()
    verifier = issuer.verifier(clock)
    for _ in range(3):
        assert (await verifier.verify(signed(RS256_CLAIMS, KEYS[0], "RS256", kid="k0"))).user_id == "u1"
    assert issuer.asked == 1
    issuer.published = {"k1": KEYS[1]}
    clock.move(31)
    assert (await verifier.verify(signed(RS256_CLAIMS, KEYS[1], "RS256", kid="k1"))).user_id == "u1"
    assert issuer.asked == 2
    with pytest.raises(Unauthenticated, match="does not publish"):
        await verifier.verify(signed(RS256_CLAIMS, KEYS[0], "RS256", kid="k0"))


async def test_invented_key_ids_do_not_make_us_ask_the_issuer_every_time() -> None:
    clock, issuer = FakeClock(), Issuer()
    verifier = issuer.verifier(clock)
    for n in range(20):
        with pytest.raises(Unauthenticated, match="does not publish"):
            await verifier.verify(signed(RS256_CLAIMS, KEYS[1], "RS256", kid=f"invented-{n}"))
    assert issuer.asked == 1


async def test_keys_we_have_stay_good_while_the_issuer_is_away() -> None:
    clock, issuer = FakeClock(), Issuer()
    verifier = issuer.verifier(clock)
    token = signed(RS256_CLAIMS, KEYS[0], "RS256", kid="k0")
    await verifier.verify(token)
    issuer.away = True
    clock.move(3600)
    assert (await verifier.verify(token)).user_id == "u1"


async def test_an_issuer_never_reached_is_unavailable_and_tried_again() -> None:
    clock, issuer = FakeClock(), Issuer()
    issuer.away = True
    verifier = issuer.verifier(clock)
    token = signed(RS256_CLAIMS, KEYS[0], "RS256", kid="k0")
    with pytest.raises(Unavailable):
        await verifier.verify(token)
    issuer.away = False
    clock.move(2)
    assert (await verifier.verify(token)).user_id == "u1"


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        signed(RS256_CLAIMS, KEYS[0], "RS256"),
        signed(RS256_CLAIMS, KEYS[1], "RS256", kid="k0"),
        signed(RS256_CLAIMS, SECRET, "HS256", kid="k0"),
        signed(RS256_CLAIMS, "weak secret of at least 32 bytes", "HS256", kid="weak"),
        signed(RS256_CLAIMS, KEYS[0], "RS512", kid="k0"),
    ],
)
async def test_tokens_that_the_published_keys_do_not_prove(token: str) -> None:
    with pytest.raises(Unauthenticated):
        await Issuer().verifier(FakeClock()).verify(token)


async def test_a_token_that_the_issuer_made_for_another_application_is_refused() -> None:
    verifier = Issuer().verifier(FakeClock())
    for claims, told in (
        (CLAIMS | {"client_id": OURS["client_id"]}, "lacks the claim iss"),
        (CLAIMS | {"iss": OURS["iss"]}, "lacks the claim client_id"),
        (RS256_CLAIMS | {"client_id": "the shop"}, r"meant for somebody else \(client_id\)"),
        (RS256_CLAIMS | {"client_id": None}, "client_id"),
        (RS256_CLAIMS | {"iss": "https://another.example"}, "not accepted"),
    ):
        with pytest.raises(Unauthenticated, match=told):
            await verifier.verify(signed(claims, KEYS[0], "RS256", kid="k0"))


async def test_a_token_for_several_audiences_is_for_each_of_them() -> None:
    verifier = KeySetVerifier(Issuer().keys(FakeClock()), issuer=OURS["iss"], claims={"aud": "mailroom"})
    for audience in ("mailroom", ["the shop", "mailroom"]):
        token = signed(RS256_CLAIMS | {"aud": audience}, KEYS[0], "RS256", kid="k0")
        assert (await verifier.verify(token)).user_id == "u1"
    with pytest.raises(Unauthenticated, match="somebody else"):
        await verifier.verify(signed(RS256_CLAIMS | {"aud": ["the shop"]}, KEYS[0], "RS256", kid="k0"))


@pytest.mark.parametrize(("issuer", "claims"), [("", {"aud": "mailroom"}), ("https://id.example", {})])
def test_no_verifier_takes_whatever_an_issuer_signs(issuer: str, claims: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="needs an issuer and a claim"):
        KeySetVerifier(Issuer().keys(FakeClock()), issuer=issuer, claims=claims)


HANG = 60.0
"""Seconds that only something that hangs takes."""


class HangingIssuer(Issuer):
    """Answers until it is told to hang: from then on, in the way named, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs: Literal["no", "before the answer", "in the body", "endlessly"] = "no"
        self.begun, self.let_go = asyncio.Event(), asyncio.Event()

    async def wait(self, request: httpx.Request) -> httpx.Response:
        if self.hangs == "no":
            return self.answer(request)
        self.begun.set()
        if self.hangs == "before the answer":
            await self.let_go.wait()
            return self.answer(request)
        return httpx.Response(200, content=self._drips())

    async def _drips(self) -> AsyncIterator[bytes]:
        while not self.let_go.is_set():
            yield b" " * (LARGEST if self.hangs == "endlessly" else 1)
            await asyncio.sleep(0)

    def keys(self, clock: FakeClock, limit: float = HANG) -> KeySet:
        transport = httpx.MockTransport(self.wait)
        return KeySet("https://id.example/jwks", clock=clock, limit=limit, transport=transport)


async def test_an_issuer_that_hangs_stalls_nobody_whose_key_is_known() -> None:
    clock, issuer = FakeClock(), HangingIssuer()
    verifier = verifier_of(issuer.keys(clock))
    token = signed(RS256_CLAIMS, KEYS[0], "RS256", kid="k0")
    await verifier.verify(token)
    issuer.hangs = "before the answer"
    clock.move(601)
    async with asyncio.timeout(HANG / 2):
        for _ in range(20):
            assert (await verifier.verify(token)).user_id == "u1"
        await issuer.begun.wait()
        issuer.published = {"k1": KEYS[1]}
        issuer.let_go.set()
        assert (await verifier.verify(signed(RS256_CLAIMS, KEYS[1], "RS256", kid="k1"))).user_id == "u1"
    assert issuer.asked == 2, "one refresh in the background, however many callers there are"


async def test_old_keys_are_refreshed_behind_the_callers_back() -> None:
    clock, issuer = FakeClock(), Issuer()
    keys = issuer.keys(clock)
    assert await keys.key("k0") is not None
    issuer.published = {"k1": KEYS[1]}
    clock.move(601)
    assert await keys.key("k0") is not None, "served at once, as it was"
    assert await keys.key("k1") is not None
    assert await keys.key("k0") is None
    assert issuer.asked == 2


@pytest.mark.parametrize("how", ["before the answer", "in the body", "endlessly"])
async def test_a_fetch_ends_whatever_the_issuer_does(how: Any) -> None:
    issuer = HangingIssuer()
    issuer.hangs = how
    keys = issuer.keys(FakeClock(), limit=0.05)
    async with asyncio.timeout(HANG):
        with pytest.raises(Unavailable):
            await keys.key("k0")


async def test_unknown_key_ids_wait_for_the_same_fetch_and_the_next_ones_for_none() -> None:
    clock, issuer = FakeClock(), HangingIssuer()
    keys = issuer.keys(clock)
    assert await keys.key("k0") is not None
    issuer.hangs = "before the answer"
    clock.move(31)
    waiting = [asyncio.create_task(keys.key(f"invented-{n}")) for n in range(10)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    async with asyncio.timeout(HANG):
        await issuer.begun.wait()
        issuer.let_go.set()
        assert await asyncio.gather(*waiting[1:]) == [None] * 9, "who went away took the fetch from nobody"
        issuer.let_go.clear()
        assert await keys.key("invented-10") is None
    assert issuer.asked == 2


async def test_whether_a_key_exists_is_not_known_while_the_issuer_cannot_be_asked() -> None:
    clock, issuer = FakeClock(), Issuer()
    keys = issuer.keys(clock)
    assert await keys.key("k0") is not None
    issuer.away = True
    clock.move(31)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await keys.key("k1")
    assert issuer.asked == 2
    assert await keys.key("k0") is not None


VERIFIER: Verifier = SecretVerifier(SECRET)
DOOR = Authenticator(VERIFIER, cookie="session", origins=["https://mail.example.com"])
TOKEN = mint_token(SECRET, "u1", [])


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer  {TOKEN}"])
async def test_the_header(header: str) -> None:
    assert (await DOOR.principal(request("POST", authorization=header))).user_id == "u1"


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN])
async def test_a_bad_header_is_not_saved_by_a_good_cookie(header: str) -> None:
    with pytest.raises(Unauthenticated, match="must be: Bearer"):
        await DOOR.principal(request(authorization=header, cookie=f"session={TOKEN}"))


async def test_the_cookie_reads_from_anywhere_and_changes_only_from_our_pages() -> None:
    cookie = f"session={TOKEN}"
    assert (await DOOR.principal(request("GET", cookie=cookie))).user_id == "u1"
    for origin in ("https://mail.example.com", "https://MAIL.example.com"):
        assert (await DOOR.principal(request("DELETE", cookie=cookie, origin=origin))).user_id == "u1"
    for headers in ({}, {"origin": "null"}, {"origin": ""}, {"origin": "https://evil.example"}):
        with pytest.raises(Forbidden, match="Origin"):
            await DOOR.principal(request("POST", cookie=cookie, **headers))


async def test_nobody_without_a_token_or_where_no_cookie_is_set_up() -> None:
    with pytest.raises(Unauthenticated, match="Send a token"):
        await DOOR.principal(request())
    with pytest.raises(Unauthenticated, match="Send a token"):
        await Authenticator(VERIFIER).principal(request(cookie=f"session={TOKEN}"))


def test_what_belongs_to_others() -> None:
    user, admin = Principal("u1", frozenset(), "user"), Principal("a", frozenset(), "admin")
    service = Principal("crm", frozenset(), "service")
    assert user.may_see("u1")
    assert not user.may_see("u2")
    assert not user.may_see(None)
    assert admin.may_see("u1")
    assert admin.may_see(None)
    assert not service.may_see("u1")
