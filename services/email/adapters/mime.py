"""Raw MIME of one message for one attempt, on the hot path of sending.

Python's `email` package takes several hundred microseconds a message; this writer takes a few dozen and writes only
what Mailroom sends: text, html or both (multipart/alternative), with attachments in multipart/mixed. Its output is
proven against the standard library's parser by property tests.

Guarantees: CRLF everywhere; 7-bit only (quoted-printable or base64: SES's tracking corrupts 8-bit parts);
no line above 998 characters; no Bcc and nothing about one recipient in another's copy; no header can be injected.
"""

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import quote, urlsplit

from contracts.email.content_types import MediaType, parse_media_type
from services.email.adapters.mime_headers import (
    FOLD,
    field_name,
    filename_parameter,
    mailbox,
    mailboxes,
    name_parameter,
    parameter,
    safe_id,
    split_mailbox,
    unstructured,
)
from services.kit.errors import PermanentError

CRLF = b"\r\n"
LONGEST_UNSUBSCRIBE_URL = 900
"""Characters: a URL cannot be folded, and a line holds 998."""

ONE_CLICK = "List-Unsubscribe=One-Click"
"""The value of List-Unsubscribe-Post (RFC 8058 §3.1)."""

_OURS = frozenset(
    [
        "bcc",
        "cc",
        "content-disposition",
        "content-id",
        "content-transfer-encoding",
        "content-type",
        "date",
        "from",
        "list-unsubscribe",
        "list-unsubscribe-post",
        "message-id",
        "mime-version",
        "received",
        "reply-to",
        "resent-bcc",
        "resent-cc",
        "resent-from",
        "resent-to",
        "return-path",
        "sender",
        "subject",
        "to",
        "x-mailroom-attempt-id",
        "x-mailroom-message-id",
    ]
)
_URL = re.compile(r"[!#-;=?-~]+")
_ASCII = bytes(range(128))

# "=_" can stand in no quoted-printable or base64 body (RFC 2045 §6.7), so that no content can hold a boundary.
_MIXED = "=_mailroom-mixed"
_ALTERNATIVE = "=_mailroom-alternative"


@dataclass(frozen=True, slots=True)
class Attachment:
    """One file. Parameters of `content_type` go with it; message/* and multipart/* go as octet-stream without any."""

    filename: str
    content_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class OutgoingMessage:
    """All that a copy of a message is made of. Addresses are `local@domain` or `Display Name <local@domain>`.

    `list_unsubscribe` holds the URLs by which this recipient leaves (marketing only): of the one-click page, and of a
    mail where one is read. `headers` are further fields; those that the writer itself writes are refused. `date` is
    aware. Blind copies are not here: each recipient gets this same text under an envelope of its own.
    """

    message_id: str
    from_addr: str
    to: tuple[str, ...]
    subject: str
    date: datetime
    attempt_id: str = ""
    cc: tuple[str, ...] = ()
    reply_to: str | None = None
    html: str | None = None
    text: str | None = None
    attachments: tuple[Attachment, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    list_unsubscribe: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PreparedMime:
    """What all recipients of a message share, built once by `prepare`."""

    _head: bytes
    _tail: bytes
    _id_domain: str

    @property
    def size(self) -> int:
        """Bytes of the shared part: a copy has a few hundred more."""
        return len(self._head) + len(self._tail)

    def for_attempt(self, attempt_id: str, list_unsubscribe: Sequence[str] = ()) -> bytes:
        """The whole message for one attempt. `list_unsubscribe`: see `OutgoingMessage`.

        Raises PermanentError `invalid` when an id or a URL could not stand in a header.
        """
        attempt = safe_id(attempt_id, "an attempt id")
        fields = f"Message-ID: <{attempt}@{self._id_domain}>\r\nX-Mailroom-Attempt-Id: {attempt}\r\n"
        if list_unsubscribe:
            fields += _unsubscribe_fields(list_unsubscribe)
        return b"".join((self._head, fields.encode("ascii"), self._tail))


def build_raw(message: OutgoingMessage) -> bytes:
    """The raw message for `message.attempt_id`. Raises PermanentError `invalid` (see `prepare`)."""
    return prepare(message).for_attempt(message.attempt_id, message.list_unsubscribe)


def prepare(message: OutgoingMessage) -> PreparedMime:
    """Build everything but what belongs to one attempt.

    Raises PermanentError `invalid` when the message cannot be written safely: no recipient in To or Cc, neither html
    nor text, an address, name, subject, filename or header with control characters or that is none, a naive date.
    The error names the field, never its content.
    """
    if not message.to and not message.cc:
        raise PermanentError("invalid", "a message needs a recipient in To or Cc")
    if message.date.tzinfo is None:
        raise PermanentError("invalid", "the date of a message needs a time zone")
    lines = [f"From: {mailbox(message.from_addr, 'from')}"]
    if message.to:
        lines.append(f"To: {mailboxes(message.to, 'to')}")
    if message.cc:
        lines.append(f"Cc: {mailboxes(message.cc, 'cc')}")
    if message.reply_to is not None:
        lines.append(f"Reply-To: {mailbox(message.reply_to, 'replyTo')}")
    lines.append(f"Subject: {unstructured(message.subject, 'subject', first_line=9)}")
    lines.append(f"Date: {format_datetime(message.date.astimezone(UTC))}")
    lines.append(f"X-Mailroom-Message-Id: {safe_id(message.message_id, 'a message id')}")
    for name, value in message.headers.items():
        lines.append(_further_field(name, value))
    head = "\r\n".join(lines).encode("ascii") + CRLF
    domain = mailbox(split_mailbox(message.from_addr)[1], "from").rpartition("@")[2]
    return PreparedMime(head, b"MIME-Version: 1.0\r\n" + _content(message), domain)


def _further_field(name: str, value: str) -> str:
    if field_name(name).lower() in _OURS:
        raise PermanentError("invalid", f"the header {name} is written by Mailroom itself")
    return f"{name}: {unstructured(value, f'the header {name}', first_line=len(name) + 2)}"


def mailto_url(address: str, subject: str) -> str:
    """The URL of a mail to `address` (RFC 6068). Raises PermanentError `invalid` where it is none."""
    to = quote(mailbox(split_mailbox(address)[1], "unsubscribeMailto"), safe="@")
    return f"mailto:{to}?subject={quote(subject, safe='')}"


def list_unsubscribe(urls: Sequence[str], between: str = ", ") -> str:
    """The value of List-Unsubscribe (RFC 2369 §3.2, RFC 8058 §3.1): the one-click URL stands first, since programs take
    the first that they can use. RFC 8058 wants https; plain http is let through for a stack on one machine.

    Raises PermanentError `invalid` for a URL that cannot stand there.
    """
    if not all(len(url) <= LONGEST_UNSUBSCRIBE_URL and _URL.fullmatch(url) for url in urls):
        raise PermanentError("invalid", "an unsubscribe URL is ASCII without spaces or angle brackets, and short")
    one_click, *others = (urlsplit(url).scheme for url in urls)
    if one_click not in ("https", "http") or set(others) - {"mailto"}:
        raise PermanentError("invalid", "an unsubscribe URL starts with https://, one beside it with mailto:")
    return between.join(f"<{url}>" for url in urls)


def _unsubscribe_fields(urls: Sequence[str]) -> str:
    listed = list_unsubscribe(urls, f",{FOLD}")
    return f"List-Unsubscribe: {listed}\r\nList-Unsubscribe-Post: {ONE_CLICK}\r\n"


def _content(message: OutgoingMessage) -> bytes:
    """Content headers, an empty line and the body."""
    bodies: list[bytes] = []
    if message.text is not None:
        bodies.append(_text_part("plain", message.text))
    if message.html is not None:
        bodies.append(_text_part("html", message.html))
    if not bodies:
        raise PermanentError("invalid", "a message needs html or text")
    content = bodies[0] if len(bodies) == 1 else _multipart("alternative", _ALTERNATIVE, bodies)
    if not message.attachments:
        return content
    return _multipart("mixed", _MIXED, [content, *(_attachment(a) for a in message.attachments)])


def _multipart(subtype: str, boundary: str, parts: list[bytes]) -> bytes:
    mark = f"--{boundary}".encode("ascii")
    pieces = [f'Content-Type: multipart/{subtype};{FOLD}boundary="{boundary}"\r\n'.encode("ascii")]
    for part in parts:
        pieces += (CRLF, mark, CRLF, part)
    pieces += (CRLF, mark, b"--", CRLF)
    return b"".join(pieces)


def _text_part(subtype: str, text: str) -> bytes:
    """A text with its line breaks, whatever they were, as CRLF: quoted-printable, or base64 where that is shorter."""
    try:
        plain = text.replace("\r\n", "\n").replace("\r", "\n").encode()
    except UnicodeEncodeError:
        raise PermanentError("invalid", f"the {subtype} body holds half a surrogate pair, which is no text") from None
    if len(plain.translate(None, _ASCII)) * 5 > len(plain):
        encoding, body = "base64", _base64_lines(plain.replace(b"\n", CRLF))
    else:
        encoding, body = "quoted-printable", b2a_qp(plain).replace(b"\n", CRLF)
    header = f"Content-Type: text/{subtype}; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return header.encode("ascii") + body


def _attachment(attachment: Attachment) -> bytes:
    header = (
        f"Content-Type: {_media_type(attachment)}\r\n"
        f"Content-Disposition: attachment{filename_parameter(attachment.filename)}\r\n"
        "Content-Transfer-Encoding: base64\r\n\r\n"
    )
    return header.encode("ascii") + _base64_lines(attachment.content)


def _media_type(attachment: Attachment) -> str:
    found = media_type(attachment.content_type)
    named = "" if found.get("name") else name_parameter(attachment.filename)
    return found.essence + "".join(parameter(*each) for each in found.parameters) + named


def media_type(content_type: str) -> MediaType:
    """The type under which an attachment goes. Raises PermanentError `invalid` for what is none."""
    try:
        found = parse_media_type(content_type)
    except ValueError as error:
        raise PermanentError("invalid", f"an attachment: {error}") from None
    if found.essence.startswith(("message/", "multipart/")):
        return MediaType("application/octet-stream")
    return found


def _base64_lines(content: bytes) -> bytes:
    """Base64 in lines of 76 (RFC 2045 §6.8)."""
    encoded = b2a_base64(content, newline=False)
    return CRLF.join([encoded[start : start + 76] for start in range(0, len(encoded), 76)])
