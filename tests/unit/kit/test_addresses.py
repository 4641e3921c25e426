"""One recipient, one key, for all spellings."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.addresses import RecipientKeys, candidate_keys, normalise_address
from services.kit.crypto import KeyRing

RING = KeyRing(b"n" * 32, old=[b"o" * 32])
KEYS = candidate_keys(None, RING)[0]
LOCAL = st.from_regex(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(\.[A-Za-z0-9+-]{1,10})?", fullmatch=True)
DOMAIN = st.from_regex(r"[A-Za-z0-9äöüßéøλ]{1,10}(-[a-zA-Z0-9]{1,5})?\.(com|de|EXAMPLE|co\.uk)", fullmatch=True)
ADDRESS = st.builds(lambda local, domain: f"{local}@{domain}", LOCAL, DOMAIN)


@given(address=ADDRESS)
def test_the_normal_form_is_final(address: str) -> None:
    once = normalise_address(address)
    local, _, domain = once.rpartition("@")
    assert normalise_address(once) == once
    assert address.startswith(f"{local}@")
    assert domain == domain.lower()
    assert domain.isascii()


@given(address=ADDRESS)
def test_all_spellings_have_one_key(address: str) -> None:
    key = KEYS.key(address)
    assert re.fullmatch(r"[0-9a-f]{64}", key)
    assert key == KEYS.key(normalise_address(address)) == KEYS.key(normalise_address(address).upper())
    assert key == KEYS.key(f"  {address} ")


@pytest.mark.parametrize(
    ("given_address", "normal"),
    [
        ('"john doe"@Example.com', '"john doe"@example.com'),
        ('"a@b"@example.com', '"a@b"@example.com'),
        ('"john.doe"@example.com', "john.doe@example.com"),
        ('"jo\\hn"@example.com', "john@example.com"),
        ('"a\\"b\\\\c"@example.com', '"a\\"b\\\\c"@example.com'),
        ('"<eve@evil.example>"@example.com', '"<eve@evil.example>"@example.com'),
        ('".a"@example.com', '".a"@example.com'),
    ],
)
def test_a_quoted_local_part_has_one_spelling(given_address: str, normal: str) -> None:
    assert normalise_address(given_address) == normal
    assert normalise_address(normal) == normal


@pytest.mark.parametrize(
    "address",
    ['"a"b"@b.de', '"a@b.de', 'a"@b.de', '"a\\"@b.de', '"ü"@b.de', '"a\nb"@b.de', '"a\x7f"@b.de', f'"{"a" * 64}"@b.de'],
)
def test_what_is_no_quoted_local_part_is_no_address(address: str) -> None:
    if address == f'"{"a" * 64}"@b.de':
        assert normalise_address(address) == f"{'a' * 64}@b.de"
        return
    with pytest.raises(ValueError):
        normalise_address(address)


def test_an_address_has_254_octets_at_most_and_one_taken_earlier_has_its_key_still() -> None:
    domain = ".".join(["d" * 60] * 3)
    fits = f"{'l' * 64}@{domain}.{'e' * (254 - 65 - len(domain) - 1)}"
    assert len(normalise_address(fits)) == 254
    with pytest.raises(ValueError, match="at most 254"):
        normalise_address(f"{fits}e")
    assert KEYS.key(f"{fits}e") != KEYS.key(fits)


def test_internationalised_domains_are_one_with_their_ascii_form() -> None:
    assert KEYS.key("a@bücher.example") == KEYS.key("A@xn--bcher-kva.EXAMPLE")


@given(one=ADDRESS, other=ADDRESS)
def test_different_recipients_have_different_keys(one: str, other: str) -> None:
    same = normalise_address(one).lower() == normalise_address(other).lower()
    assert (KEYS.key(one) == KEYS.key(other)) == same


def test_another_secret_gives_another_key() -> None:
    keys = [*candidate_keys(None, RING), *candidate_keys("explicit", RING), RecipientKeys(b"x")]
    assert len({key.key("a@b.de") for key in keys}) == len({key.canary() for key in keys}) == 4


@pytest.mark.parametrize("address", ["", "a", "@b.de", "a@", "a@b", "a b@c.de", "ü@b.de", "a@-b.de", "a@b..de"])
def test_no_address_no_key(address: str) -> None:
    with pytest.raises(ValueError):
        KEYS.key(address)
