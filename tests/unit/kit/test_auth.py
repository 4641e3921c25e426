"""Who gets in, as whom, and what each refusal says."""

import base64
from datetime import timedelta
from typing import Any

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
from services.kit.jwks import KeySet
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


async def test_issuer_and_audience_count_where_they_are_set() -> None:
    picky = SecretVerifier(SECRET, issuer="crm", audience="mailroom")
    good = mint_token(SECRET, "u1", [], issuer="crm", audience="mailroom")
    assert (await picky.verify(good)).user_id == "u1"
    with pytest.raises(Unauthenticated):
        await picky.verify(mint_token(SECRET, "u1", [], issuer="crm", audience="another"))
    with pytest.raises(Unauthenticated):
        await picky.verify(mint_token(SECRET, "u1", [], issuer="another", audience="mailroom"))
    assert (await SecretVerifier(SECRET).verify(good)).user_id == "u1"


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


def _jwk(name: str, key: rsa.RSAPrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    return {"kty": "RSA", "kid": name, "use": "sig", "n": _b64(numbers.n), "e": _b64(numbers.e)}


def _b64(number: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes((number.bit_length() + 7) // 8)).rstrip(b"=").decode()


def _text(secret: str) -> str:
    return base64.urlsafe_b64encode(secret.encode()).rstrip(b"=").decode()


async def test_published_keys_are_fetched_once_and_again_after_rotation() -> None:
    clock, issuer = FakeClock(), Issuer()
    verifier = KeySetVerifier(issuer.keys(clock))
    for _ in range(3):
        assert (await verifier.verify(signed(CLAIMS, KEYS[0], "RS256", kid="k0"))).user_id == "u1"
    assert issuer.asked == 1
    issuer.published = {"k1": KEYS[1]}
    clock.move(31)
    assert (await verifier.verify(signed(CLAIMS, KEYS[1], "RS256", kid="k1"))).user_id == "u1"
    assert issuer.asked == 2
    with pytest.raises(Unauthenticated, match="does not publish"):
        await verifier.verify(signed(CLAIMS, KEYS[0], "RS256", kid="k0"))


async def test_invented_key_ids_do_not_make_us_ask_the_issuer_every_time() -> None:
    clock, issuer = FakeClock(), Issuer()
    verifier = KeySetVerifier(issuer.keys(clock))
    for n in range(20):
        with pytest.raises(Unauthenticated, match="does not publish"):
            await verifier.verify(signed(CLAIMS, KEYS[1], "RS256", kid=f"invented-{n}"))
    assert issuer.asked == 1


async def test_keys_we_have_stay_good_while_the_issuer_is_away() -> None:
    clock, issuer = FakeClock(), Issuer()
    verifier = KeySetVerifier(issuer.keys(clock))
    token = signed(CLAIMS, KEYS[0], "RS256", kid="k0")
    await verifier.verify(token)
    issuer.away = True
    clock.move(3600)
    assert (await verifier.verify(token)).user_id == "u1"


async def test_an_issuer_never_reached_is_unavailable_and_tried_again() -> None:
    clock, issuer = FakeClock(), Issuer()
    issuer.away = True
    verifier = KeySetVerifier(issuer.keys(clock))
    token = signed(CLAIMS, KEYS[0], "RS256", kid="k0")
    with pytest.raises(Unavailable):
        await verifier.verify(token)
    issuer.away = False
    clock.move(2)
    assert (await verifier.verify(token)).user_id == "u1"


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        signed(CLAIMS, KEYS[0], "RS256"),
        signed(CLAIMS, KEYS[1], "RS256", kid="k0"),
        signed(CLAIMS, SECRET, "HS256", kid="k0"),
        signed(CLAIMS, "weak secret of at least 32 bytes", "HS256", kid="weak"),
        signed(CLAIMS, KEYS[0], "RS512", kid="k0"),
    ],
)
async def test_tokens_that_the_published_keys_do_not_prove(token: str) -> None:
    with pytest.raises(Unauthenticated):
        await KeySetVerifier(Issuer().keys(FakeClock())).verify(token)


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
