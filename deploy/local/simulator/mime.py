"""Just enough of MIME: a message's headers as SES reports them, the checks SES makes, and messages from parts.

A reader of our own for headers, since the standard library's costs more than everything else that happens to
a mail here. It is stricter than SES where that shows mistakes in what we send: header bytes must be ASCII.
"""

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import SMTP, default
from typing import Any

from deploy.local.simulator.errors import bad_request

_NAME = re.compile(r"[!-9;-~]+")
_BOUNDARY = re.compile(r'boundary\s*=\s*(?:"([^"]+)"|([^\s;]+))', re.IGNORECASE)
_LINK = re.compile(r"""https?://[^\s"'<>]+""")
_ONCE = (
    "from",
    "to",
    "cc",
    "bcc",
    "subject",
    "date",
    "message-id",
    "reply-to",
    "sender",
    "mime-version",
    "content-type",
)

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Parsed:
    """The headers of a message, unfolded but not decoded, in order."""

    headers: Headers

    def first(self, name: str) -> str | None:
        return next((value for known, value in self.headers if known.lower() == name), None)

    def common_headers(self, provider_message_id: str) -> dict[str, Any]:
        """`commonHeaders` of an SES event: decoded, and only those that are there."""
        common: dict[str, Any] = {}
        for key, name in (("from", "from"), ("replyTo", "reply-to"), ("to", "to"), ("cc", "cc"), ("bcc", "bcc")):
            value = self.first(name)
            if value is not None:
                common[key] = split_addresses(decoded(value))
        for key, name in (("date", "date"), ("subject", "subject")):
            value = self.first(name)
            if value is not None:
                common[key] = decoded(value)
        common["messageId"] = self.first("message-id") or provider_message_id
        return common


def parse(raw: bytes) -> Parsed:
    """Read the headers of a message and check it as SES does. Raises SesError (BadRequestException)."""
    head, body = _halves(raw)
    try:
        text = head.decode("ascii")
    except UnicodeDecodeError:
        raise bad_request("Header fields must be ASCII; encode other characters (RFC 2047).") from None
    headers: list[tuple[str, str]] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if line[:1] in (" ", "\t") and headers:
            name, value = headers[-1]
            headers[-1] = (name, f"{value} {line.strip()}")
            continue
        name, colon, value = line.partition(":")
        if not colon or not _NAME.fullmatch(name):
            raise bad_request("Invalid MIME content: a header line is not of the form `Name: value`.")
        headers.append((name, value.strip()))
    _check(headers, body)
    return Parsed(tuple(headers))


def _halves(raw: bytes) -> tuple[bytes, bytes]:
    head, separator, body = raw.partition(b"\r\n\r\n")
    if not separator:
        head, separator, body = raw.partition(b"\n\n")
    if not head.strip():
        raise bad_request("Invalid MIME content: no header.")
    return head.rstrip(b"\r\n"), body


def _check(headers: Sequence[tuple[str, str]], body: bytes) -> None:
    values: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if lower in _ONCE and lower in values:
            raise bad_request(f"Duplicate header '{name}'.")
        values[lower] = value
    if not values.get("from"):
        raise bad_request("Missing required header 'From'.")
    content_type = values.get("content-type", "")
    if content_type.lower().startswith("multipart/"):
        found = _BOUNDARY.search(content_type)
        if not found:
            raise bad_request("Invalid MIME content: a multipart without a boundary.")
        boundary = b"--" + (found[1] or found[2]).encode()
        if boundary not in body or boundary + b"--" not in body:
            raise bad_request("Invalid MIME content: the multipart does not begin or end as it says.")


def decoded(value: str) -> str:
    """A header's value with encoded words decoded; as it is where they are broken."""
    if "=?" not in value:
        return value
    try:
        return str(make_header(decode_header(value)))
    except (LookupError, ValueError):
        return value


def split_addresses(value: str) -> list[str]:
    """An address list in its parts, each as it was written; commas inside quotes and brackets do not split."""
    if "," not in value:
        return [value.strip()]
    parts, depth, quoted, current = [], 0, False, ""
    for character in value:
        if character == '"':
            quoted = not quoted
        elif not quoted and character in "<(":
            depth += 1
        elif not quoted and character in ">)":
            depth -= 1
        if character == "," and not quoted and depth <= 0:
            parts.append(current.strip())
            current = ""
        else:
            current += character
    return [part for part in (*parts, current.strip()) if part]


def bare_address(value: str) -> str:
    """`a@b` of `Name <a@b>`."""
    return value[value.rfind("<") + 1 :].partition(">")[0].strip() if "<" in value else value.strip()


def first_link(raw: bytes) -> str:
    """The first http link in the bodies of a message: what a click follows."""
    message = BytesParser(policy=default).parsebytes(raw)
    for part in message.walk():
        if part.get_content_maintype() == "text" and not part.is_attachment():
            found = _LINK.search(str(part.get_content()))
            if found:
                return found[0].rstrip(".,)")
    return "https://example.com/"


def compose(source: str, destination: Mapping[str, Any], reply_to: Sequence[str], simple: Mapping[str, Any]) -> bytes:
    """The message that SES makes of `Content.Simple`. Raises SesError where it is incomplete."""
    try:
        message = EmailMessage(policy=SMTP)
        message["From"] = source
        for header, key in (("To", "ToAddresses"), ("Cc", "CcAddresses")):
            if destination.get(key):
                message[header] = ", ".join(destination[key])
        if reply_to:
            message["Reply-To"] = ", ".join(reply_to)
        message["Subject"] = str(simple["Subject"]["Data"])
        for extra in simple.get("Headers") or ():
            message[str(extra["Name"])] = str(extra["Value"])
        body = simple["Body"]
        text, html = body.get("Text"), body.get("Html")
        if not text and not html:
            raise bad_request("Body: text or html is required.")
        if text:
            message.set_content(str(text["Data"]))
        if html and text:
            message.add_alternative(str(html["Data"]), subtype="html")
        elif html:
            message.set_content(str(html["Data"]), subtype="html")
        for attachment in simple.get("Attachments") or ():
            kind, _, subtype = str(attachment.get("ContentType") or "application/octet-stream").partition("/")
            content = b64decode(attachment["RawContent"])
            message.add_attachment(content, maintype=kind, subtype=subtype, filename=str(attachment["FileName"]))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise bad_request(f"Content.Simple is not valid: {type(error).__name__} {error}") from None
    return message.as_bytes()
