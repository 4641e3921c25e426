"""What `adapters/mime.py` writes, read back by the standard library's parser."""

import re
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import parseaddr
from urllib.parse import unquote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contracts.email.commands import InlineAttachment, SendEmail
from services.email.adapters.mime import Attachment, OutgoingMessage, build_raw, mailto_url, prepare
from services.kit.errors import PermanentError

DATE = datetime(2026, 11, 24, 10, 25, 0, 123456, tzinfo=UTC)


def message(**changes: object) -> OutgoingMessage:
    fields: dict[str, object] = {
        "message_id": "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b",
        "attempt_id": "0192f0c1-2b7a-7d3e-9c1a-00000000000a",
        "from_addr": "DepLLC CRM <no-reply@crm.example.com>",
        "to": ("ada@example.com",),
        "subject": "Hello",
        "text": "Hello Ada\n",
        "date": DATE,
    }
    return OutgoingMessage(**{**fields, **changes})  # type: ignore[arg-type]


def parse(raw: bytes) -> EmailMessage:
    assert_well_formed(raw)
    parsed = message_from_bytes(raw, policy=policy.default)
    assert isinstance(parsed, EmailMessage)
    for part in parsed.walk():
        assert not part.defects, part.defects
        for value in part.values():
            assert not getattr(value, "defects", ()), value
    return parsed


def assert_well_formed(raw: bytes) -> None:
    assert raw.isascii()
    assert b"\x00" not in raw
    assert re.search(rb"\r(?!\n)|(?<!\r)\n", raw) is None
    assert max(len(line) for line in raw.split(b"\r\n")) <= 998
    head = raw.partition(b"\r\n\r\n")[0]
    assert all(re.match(rb"[A-Za-z-]+: |[ \t]", line) for line in head.split(b"\r\n")), head


def part_of(parsed: EmailMessage, kind: str) -> EmailMessage:
    found = parsed.get_body((kind,))
    assert isinstance(found, EmailMessage)
    return found


NO_CONTROLS = st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"])
LINE = st.text(NO_CONTROLS, min_size=1, max_size=200)
BODY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=600)
ASCII_BODY = st.text(st.characters(codec="ascii", exclude_characters="\x00"), max_size=600)


def lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def decoded(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode().replace("\r\n", "\n")


@given(LINE)
@example("a  b")
@example(" leading and trailing ")
@example("=?utf-8?b?aGFjaw==?=")
@example("word " * 39)
@example("x" * 200)
@example("Sécurité: votre code 🔐 " * 8)
def test_a_subject_reads_back_as_it_was(subject: str) -> None:
    assert parse(build_raw(message(subject=subject)))["subject"] == subject


@given(BODY, BODY)
@example(".\n..\nFrom here\n", "trailing space \nand tab\t\n")
@example("--=_mailroom-alternative\n--=_mailroom-alternative--", "--=_mailroom-mixed\r\n")
@example("x" * 5000, "é" * 5000)
@example("", "\r\r\n\n")
def test_bodies_read_back_with_line_breaks_as_crlf(text: str, html: str) -> None:
    parsed = parse(build_raw(message(text=text, html=html)))
    assert parsed.get_content_type() == "multipart/alternative"
    assert decoded(part_of(parsed, "plain")) == lines(text)
    assert decoded(part_of(parsed, "html")) == lines(html)


@given(ASCII_BODY)
def test_an_english_body_stays_quoted_printable_and_exact(text: str) -> None:
    parsed = parse(build_raw(message(text=text)))
    assert parsed["content-transfer-encoding"] == "quoted-printable"
    assert decoded(parsed) == lines(text)


@settings(max_examples=60)
@given(st.lists(st.tuples(LINE, st.binary(max_size=400)), min_size=1, max_size=3))
@example([("report.pdf", b"%PDF"), ("a b.txt", b""), ("Rechnung Mai – 2026.pdf", bytes(range(256)) * 5)])
@example([("..", b"x"), ('say "hi"\\now.txt', b"x"), ("100%.txt", b"x"), ("'; filename=evil.exe", b"x")])
@example([("長い名前" * 60, b"x")])
def test_attachments_read_back_with_their_names(files: list[tuple[str, bytes]]) -> None:
    attachments = tuple(Attachment(name, "application/pdf", content) for name, content in files)
    parsed = parse(build_raw(message(html="<p>Hi</p>", attachments=attachments)))
    assert parsed.get_content_type() == "multipart/mixed"
    found = list(parsed.iter_attachments())
    assert [part.get_payload(decode=True) for part in found] == [content for _, content in files]
    assert [part.get_content_disposition() for part in found] == ["attachment"] * len(files)
    # not get_filename(), which strips spaces and quotes
    assert [part["content-disposition"].params["filename"] for part in found] == [name for name, _ in files]


@given(st.text(NO_CONTROLS, max_size=120).map(lambda name: " ".join(name.split())))
@example("Doe, Ada")
@example('Ada "the Countess" O\\Brien')
@example("=?utf-8?q?x?=")
@example("Ada <eve@example.com>")
@example("Zażółć gęślą jaźń " * 6)
def test_a_display_name_reads_back_and_adds_no_recipient(name: str) -> None:
    name = name.strip().strip('"')
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    raw = build_raw(message(from_addr=f"{quoted} <a@example.com>", to=(f"{quoted} <b@example.com>", "c@example.com")))
    parsed = parse(raw)
    assert [a.addr_spec for a in parsed["from"].addresses] == ["a@example.com"]
    assert [a.addr_spec for a in parsed["to"].addresses] == ["b@example.com", "c@example.com"]
    # not Address.display_name, which (Python 3.11) keeps the white space between encoded words that RFC 2047 §6.2 drops
    unfolded = message_from_bytes(raw, policy=policy.compat32)["from"].replace("\r\n", "")
    phrase, _ = parseaddr(unfolded)
    assert str(make_header(decode_header(phrase))) == name


CONTROLS = st.sampled_from(
    ["\r\n", "\n", "\r", "\x00", "\x0b", "\x0c", "\x1c", "\x7f", "\x85", "\u2028", "\u2029", "\ud800"]
)


@given(
    st.sampled_from(
        [
            "subject",
            "from_addr",
            "to",
            "cc",
            "reply_to",
            "header",
            "filename",
            "content_type",
            "message_id",
            "attempt_id",
            "url",
        ]
    ),
    st.text(NO_CONTROLS, max_size=8),
    CONTROLS,
)
def test_no_header_can_be_injected(where: str, before: str, control: str) -> None:
    hostile = f"{before}{control}Bcc: eve@example.com"
    mailbox = f'"{hostile}" <a@example.com>'
    changes: dict[str, dict[str, object]] = {
        "subject": {"subject": hostile},
        "from_addr": {"from_addr": mailbox},
        "to": {"to": ("ok@example.com", mailbox)},
        "cc": {"cc": (f"a@example.com{control}Bcc: eve@example.com",)},
        "reply_to": {"reply_to": mailbox},
        "header": {"headers": {"X-Campaign": hostile}},
        "filename": {"attachments": (Attachment(hostile, "text/plain", b"x"),)},
        "content_type": {"attachments": (Attachment("a.txt", f"text/plain; x={hostile}", b"x"),)},
        "message_id": {"message_id": hostile},
        "attempt_id": {"attempt_id": hostile},
        "url": {"list_unsubscribe": (f"https://example.com/{hostile}",)},
    }
    with pytest.raises(PermanentError) as caught:
        build_raw(message(**changes[where]))
    assert caught.value.reason == "invalid"
    assert "eve" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["Bcc", "bcc", "To", "Content-Type", "X-Mailroom-Attempt-Id", "Resent-To", "DKIM Signature", "X:Y", ""]
)
def test_headers_of_our_own_and_malformed_names_are_refused(name: str) -> None:
    with pytest.raises(PermanentError):
        build_raw(message(headers={name: "x"}))


@pytest.mark.parametrize(
    "changes",
    [
        {"to": ()},
        {"text": None},
        {"date": DATE.replace(tzinfo=None)},
        {"to": ("not an address",)},
        {"to": ("a@example.com, b@example.com",)},
        {"to": ("jörg@example.com",)},
        {"text": "half \ud83d"},
        {"list_unsubscribe": ("javascript:alert(1)",)},
        {"list_unsubscribe": ("mailto:leave@example.com?subject=t", "https://example.com/")},
        {"list_unsubscribe": ("https://example.com/", "javascript:alert(1)")},
        {"list_unsubscribe": ("https://example.com/" + "x" * 900,)},
        {"attachments": (Attachment("", "text/plain", b""),)},
        {"attachments": (Attachment("a", "text", b""),)},
    ],
)
def test_what_cannot_be_written_is_refused_for_ever(changes: dict[str, object]) -> None:
    with pytest.raises(PermanentError) as caught:
        build_raw(message(**changes))
    assert caught.value.reason == "invalid"


@given(
    st.text(max_size=20),
    st.text(max_size=20),
    st.from_regex(r"[a-z]{1,3}/[a-z]{1,3}; *x=(\"[^\"]{0,9}\"|.{0,9})", fullmatch=True),
)
@example("Kim\x85s order", "a.txt", "a/b")
@example("Kim", "a\x9f.txt", "a/b")
@example("Kim", "a.txt", 'a/b; x="\x80"')
def test_what_a_command_may_say_can_be_written(subject: str, filename: str, content_type: str) -> None:
    file = {"filename": filename, "contentType": content_type, "content": "eA=="}
    command = {"messageId": "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b", "to": "a@example.com", "subject": subject}
    more = {"text": "x", "category": "system", "userId": "u", "attachments": [file]}
    try:
        taken = SendEmail.model_validate(command | more)
    except ValidationError:
        return
    attached = [
        Attachment(f.filename, f.content_type, b"x") for f in taken.attachments or () if isinstance(f, InlineAttachment)
    ]
    parse(build_raw(message(subject=taken.subject, attachments=tuple(attached))))


def test_to_and_cc_are_complete_and_bcc_is_nowhere() -> None:
    to = tuple(f"recipient-{number}@example.com" for number in range(30))
    cc = tuple(f"copy-{number}@bücher.example" for number in range(20))
    parsed = parse(build_raw(message(to=to, cc=cc, reply_to="Support <help@example.com>")))
    assert tuple(a.addr_spec for a in parsed["to"].addresses) == to
    assert [a.domain for a in parsed["cc"].addresses] == ["xn--bcher-kva.example"] * 20
    assert parsed["reply-to"] == "Support <help@example.com>"
    assert "bcc" not in parsed


def test_mail_to_an_address_that_is_too_long_now_and_was_taken_earlier_is_written() -> None:
    long = f"{'l' * 64}@{'.'.join(['d' * 49] * 3)}.{'e' * 42}.example"
    parsed = parse(build_raw(message(to=("ada@example.com", long))))
    assert parsed["To"] == f"ada@example.com, {long}"


def test_our_ids_are_in_the_headers_and_copies_differ_only_there() -> None:
    prepared = prepare(message(html="<p>Hi</p>"))
    first, second = prepared.for_attempt("attempt-1"), prepared.for_attempt("attempt-2")
    parsed = parse(first)
    assert parsed["x-mailroom-message-id"] == "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b"
    assert parsed["x-mailroom-attempt-id"] == "attempt-1"
    assert parsed["message-id"] == "<attempt-1@crm.example.com>"
    assert parsed["date"].datetime == DATE.replace(microsecond=0)
    assert first.replace(b"attempt-1", b"attempt-2") == second
    assert 0 < len(first) - prepared.size < 300


def test_marketing_carries_one_click_unsubscribing() -> None:
    url = "https://mail.example.com/unsubscribe/" + "tokenTOKEN-_" * 20
    by_mail = mailto_url("Leave <u%n+s@example.com>", "tokenTOKEN-_" * 20)
    parsed = parse(build_raw(message(list_unsubscribe=(url, by_mail))))
    links = re.findall(r"<([^>]+)>", re.sub(r"\s", "", parsed["list-unsubscribe"]))
    assert links == [url, by_mail]
    assert unquote(by_mail) == "mailto:u%n+s@example.com?subject=" + "tokenTOKEN-_" * 20
    assert parsed["list-unsubscribe-post"] == "List-Unsubscribe=One-Click"
    assert "list-unsubscribe" not in parse(build_raw(message()))


def test_a_text_mostly_outside_ascii_is_base64_and_html_alone_is_no_multipart() -> None:
    parsed = parse(build_raw(message(text=None, html="<p>здравствуйте, мир</p>" * 20)))
    assert parsed.get_content_type() == "text/html"
    assert parsed["content-transfer-encoding"] == "base64"
    assert decoded(parsed) == "<p>здравствуйте, мир</p>" * 20


@pytest.mark.parametrize(
    ("given_type", "written"),
    [
        (
            "Text/Calendar; charset=utf-8; method=REQUEST",
            {"": "text/calendar", "charset": "utf-8", "method": "REQUEST"},
        ),
        ('text/plain; name="a \\"b\\".txt"', {"": "text/plain", "name": 'a "b".txt'}),
        ('text/plain; name="Grüße.txt"', {"": "text/plain", "name": "Grüße.txt"}),
        (f"text/plain; x={'y' * 240}", {"": "text/plain", "x": "y" * 240}),
        ("message/rfc822; x=y", {"": "application/octet-stream"}),
        ("multipart/mixed", {"": "application/octet-stream"}),
    ],
)
def test_content_types_of_attachments(given_type: str, written: dict[str, str]) -> None:
    parsed = parse(build_raw(message(attachments=(Attachment("a.bin", given_type, b"x"),))))
    (part,) = parsed.iter_attachments()
    assert {"": part.get_content_type(), **part["content-type"].params} == written


@pytest.mark.parametrize(
    ("filename", "fallback"),
    [
        ("report.pdf", None),
        ("a b.txt", "a b.txt"),
        ("Grüße aus Łódź.pdf", "Gru_e aus _odz.pdf"),
        ("請求書.pdf", "attachment.pdf"),
        ("請求書", "attachment"),
        ("x" * 255, "x" * 56),
        ("y" * 250 + ".docx", "y" * 51 + ".docx"),
        ('say "hi"\\now.txt', "say _hi_now.txt"),
        ("..", "attachment"),
    ],
)
def test_a_program_that_reads_no_rfc_2231_shows_a_name_in_ascii(filename: str, fallback: str | None) -> None:
    parsed = parse(build_raw(message(attachments=(Attachment(filename, "application/pdf", b"x"),))))
    (part,) = parsed.iter_attachments()
    assert part["content-type"].params.get("name") == fallback
    assert part["content-disposition"].params["filename"] == filename


def test_further_headers_are_encoded_where_they_need_it() -> None:
    parsed = parse(build_raw(message(headers={"X-Campaign": "Früh­ling 2026", "X-Plain": "spring"})))
    assert parsed["x-campaign"] == "Früh­ling 2026"
    assert parsed["x-plain"] == "spring"
