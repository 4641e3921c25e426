"""What an SMTP server's words mean: whole replies, whom a refusal means, under which id it queued a mail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.email.adapters.smtp_replies import Phase, Reply, first_reply, queue_id, refusal

CODES = st.integers(200, 599)
LINES = st.lists(st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"")), min_size=1)


@given(code=CODES, lines=LINES, rest=st.binary(max_size=20), end=st.sampled_from([b"\r\n", b"\n"]))
def test_a_whole_reply_is_read_and_what_follows_it_is_left(
    code: int, lines: list[bytes], rest: bytes, end: bytes
) -> None:
    said = b"".join(b"%d-%s%s" % (code, line, end) for line in lines[:-1]) + b"%d %s%s" % (code, lines[-1], end)
    found = first_reply(said + rest)
    assert found is not None
    assert (found[0].code, found[1]) == (code, rest)
    assert found[0].text == b"\n".join(lines).decode("utf-8", "replace")
    for length in range(len(said) - len(end)):
        assert first_reply(said[:length]) is None


@given(st.binary(max_size=200))
def test_whatever_comes_is_a_reply_or_none_yet_or_refused(heard: bytes) -> None:
    try:
        found = first_reply(heard)
    except ValueError:
        return
    assert found is None or 200 <= found[0].code <= 599


@pytest.mark.parametrize(
    "heard",
    [
        b"\r\n",
        b"ok\r\n",
        b"25\r\n",
        b"25 ok\r\n",
        b"250ok\r\n",
        b"2500 ok\r\n",
        b"+25 ok\r\n",
        b" 250 ok\r\n",
        b"150 ok\r\n",
        b"650 ok\r\n",
        b"250-ok\r\n550 no\r\n",
        b"550-no\r\n250 ok\r\n",
        b"250-ok\r\nok\r\n",
        b"\xb2\xb5\xb0 ok\r\n",
        b"2" * 40_000,
    ],
)
def test_what_is_no_reply_is_told_from_one(heard: bytes) -> None:
    with pytest.raises(ValueError, match="repl"):
        first_reply(heard)


@pytest.mark.parametrize(
    ("phase", "code", "text", "kind", "unlisted"),
    [
        ("connection", 421, "4.3.2 too busy", "unreachable", False),
        ("connection", 554, "5.7.1 your address is on a list", "unreachable", False),
        ("authentication", 535, "5.7.8 wrong", "account", False),
        ("authentication", 454, "4.7.0 later", "unreachable", False),
        ("sender", 550, "5.7.1 not your sender", "account", False),
        ("sender", 530, "5.7.0 log in first", "account", False),
        ("sender", 552, "5.3.4 too large", "mail", False),
        ("sender", 501, "5.1.7 bad address", "mail", False),
        ("sender", 553, "5.1.8 no such domain", "mail", False),
        ("sender", 550, "no", "throttle", True),
        ("sender", 451, "4.7.1 greylisted", "throttle", False),
        ("recipient", 550, "5.1.1 unknown", "mail", False),
        ("recipient", 550, "no such user", "mail", False),
        ("recipient", 554, "5.7.1 relay access denied", "throttle", True),
        ("recipient", 530, "5.7.0 log in first", "account", False),
        ("recipient", 452, "4.2.2 full", "throttle", False),
        ("data", 554, "no valid recipients", "mail", False),
        ("message", 554, "5.6.0 spam", "mail", False),
        ("message", 554, "5.7.1 spam", "mail", False),
        ("message", 554, "5.7.60 you cannot send as this sender", "account", False),
        ("message", 451, "4.3.0 later", "throttle", False),
        ("message", 421, "4.3.2 closing", "throttle", False),
    ],
)
def test_whom_a_refusal_means(phase: Phase, code: int, text: str, kind: str, unlisted: bool) -> None:
    outcome = refusal(phase, Reply(code, text))
    assert (outcome.kind, outcome.unlisted) == (kind, unlisted)
    enhanced = text.split(maxsplit=1)[0] if text[0].isdigit() else None
    assert outcome.code == (f"{code} {enhanced}" if enhanced else str(code))


def test_a_detail_is_one_short_line_without_addresses() -> None:
    outcome = refusal("recipient", Reply(550, 'no\r\n<jane@example.com> \x07 "a b"@example.org \udc80' + "x" * 1000))
    assert "jane" not in outcome.detail
    assert "a b" not in outcome.detail
    assert outcome.detail.isprintable()
    assert len(outcome.detail) <= 300


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2.0.0 Ok: queued as 4FvT3K2xZz9", "4FvT3K2xZz9"),
        ("Ok: queued as qzK8yYsDTsqGkRmDzLh2Ng", "qzK8yYsDTsqGkRmDzLh2Ng"),
        ("OK id=1qXyZa-0003Bc-2D", "1qXyZa-0003Bc-2D"),
        ("2.6.0 <a@b> [InternalId=123456789012, Hostname=x.example] Queued mail for delivery", "123456789012"),
        ("2.0.0 3AU8fGhi012345 Message accepted for delivery", "3AU8fGhi012345"),
        (
            "Ok 0100018f0a0b0c0d-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee-000000",
            "0100018f0a0b0c0d-aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee-000000",
        ),
        ("2.0.0 OK", None),
        ("Great success", None),
        ("ok queued", None),
        ("", None),
    ],
)
def test_the_queue_id_is_taken_where_it_has_a_known_form(text: str, expected: str | None) -> None:
    assert queue_id(text) == expected
