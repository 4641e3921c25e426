"""Sealed bytes open under the same secret and context, and nowhere else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.crypto import OVERHEAD, KeyRing
from services.kit.errors import KeyUnknown, PermanentError, TransientError

NEW = KeyRing(b"n" * 32, old=[b"o" * 32])
OLD = KeyRing(b"o" * 32)


@given(plain=st.binary(max_size=2000), context=st.binary(max_size=50))
def test_round_trip(plain: bytes, context: bytes) -> None:
    sealed = NEW.seal(plain, context)
    assert len(sealed) == len(plain) + OVERHEAD
    assert NEW.open(sealed, context) == plain


@given(plain=st.binary(max_size=2000), context=st.binary(max_size=50))
def test_what_an_old_key_sealed_still_opens(plain: bytes, context: bytes) -> None:
    assert NEW.open(OLD.seal(plain, context), context) == plain


@given(plain=st.binary(max_size=200), place=st.integers(min_value=0), flip=st.integers(1, 255))
def test_any_changed_byte_is_noticed(plain: bytes, place: int, flip: int) -> None:
    sealed = bytearray(NEW.seal(plain, b"m1"))
    sealed[place % len(sealed)] ^= flip
    with pytest.raises((PermanentError, KeyUnknown)):
        NEW.open(bytes(sealed), b"m1")


@given(plain=st.binary(max_size=200), length=st.integers(min_value=0))
def test_any_cut_is_noticed(plain: bytes, length: int) -> None:
    sealed = NEW.seal(plain, b"m1")
    with pytest.raises(PermanentError):
        NEW.open(sealed[: length % len(sealed)], b"m1")


def test_another_context_does_not_open() -> None:
    with pytest.raises(PermanentError, match="sealedBroken"):
        NEW.open(NEW.seal(b"secret", b"message 1"), b"message 2")


def test_a_missing_key_is_named_and_may_come() -> None:
    sealed = NEW.seal(b"secret", b"m1")
    with pytest.raises(TransientError, match=r"key [0-9a-f]{16} .*add the secret that it comes from"):
        OLD.open(sealed, b"m1")
    assert KeyRing(b"o" * 32, old=[b"n" * 32]).open(sealed, b"m1") == b"secret", "given for reading before it is used"


def test_equal_plaintexts_look_different() -> None:
    assert NEW.seal(b"same", b"m1") != NEW.seal(b"same", b"m1")


def test_derived_keys_depend_on_label_and_secret_alone() -> None:
    assert NEW.derive("a") == KeyRing(b"n" * 32).derive("a")
    assert len({NEW.derive("a"), NEW.derive("b"), OLD.derive("a")}) == 3
    assert NEW.derive_all("a") == [NEW.derive("a"), OLD.derive("a")]
    assert len(NEW.derive("a")) == 32


@pytest.mark.parametrize(("current", "old"), [("short", []), ("n" * 32, ["short"]), ("", [])])
def test_short_secrets_are_refused(current: str, old: list[str]) -> None:
    with pytest.raises(ValueError, match="at least 32 characters"):
        KeyRing.from_secret(current, old)
