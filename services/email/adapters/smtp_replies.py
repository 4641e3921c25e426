"""What an SMTP server's replies mean: pure.

Sources: RFC 5321 §4.2 (form and classes of replies), §4.2.4.2 and §4.5.3.2.6 (after the dot); RFC 3463 and RFC 5248
(enhanced codes); RFC 4954 §6 (of AUTH); RFC 1870 §6 (of SIZE). No live server was tried.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from services.email.domain.outcomes import RefusalKind, Rejected

Phase = Literal["connection", "authentication", "sender", "recipient", "data", "message"]
"""What a reply answers: the greeting, EHLO and STARTTLS; AUTH; MAIL; RCPT; DATA; the final dot."""

LONGEST_REPLY = 32_768
"""Bytes of a whole reply. RFC 5321 §4.5.3.1.5 asks for 512 a line."""

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?!\S)")
_ADDRESS = re.compile(r'"[^"]*"@\S+|\S+@\S+')
_QUEUE_ID = (
    re.compile(r"queued as <?([A-Za-z0-9][A-Za-z0-9._-]{5,99})", re.IGNORECASE),  # Postfix and what stands behind it
    re.compile(r"\bid=([A-Za-z0-9][A-Za-z0-9._-]{5,99})"),  # Exim
    re.compile(r"\[InternalId=(\d{6,})"),  # Exchange
    re.compile(r"^(?:2\.\d\.\d )?([A-Za-z0-9]{8,40}) Message accepted for delivery"),  # Sendmail
    re.compile(r"^Ok ([0-9a-f]{16}-[0-9a-f-]{36}-[0-9]{6})$", re.IGNORECASE),  # Amazon SES by SMTP: its message id
)
"""Where servers put the id under which they log a mail. The text is for people: an id is taken only where it has one of
these forms."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply: its code, and its lines without the code."""

    code: int
    text: str

    @property
    def enhanced(self) -> tuple[int, int, int] | None:
        """Its enhanced code (RFC 2034), where it begins with one."""
        found = _ENHANCED.match(self.text)
        return None if found is None else (int(found[1]), int(found[2]), int(found[3]))


def first_reply(heard: bytes) -> tuple[Reply, bytes] | None:
    """The first reply in what a server sent, and what follows it; None while it is not all there.

    Raises ValueError for what is no reply: a line without a code of three digits from 200 to 599, lines of one reply
    with different codes, or more bytes than a reply has.
    """
    code, texts, rest = b"", list[bytes](), heard
    while True:
        line, newline, rest = rest.partition(b"\n")
        if not newline:
            if len(heard) > LONGEST_REPLY:
                raise ValueError("a reply that does not end")
            return None
        found = _LINE.fullmatch(line.removesuffix(b"\r"))
        if found is None or (code and found[1] != code):
            raise ValueError("not a reply of SMTP")
        code = found[1]
        texts.append(found[3] or b"")
        if found[2] != b"-":
            return Reply(int(code), b"\n".join(texts).decode("utf-8", "replace")), rest


def queue_id(text: str) -> str | None:
    """The id under which the server logs a mail that it took, from the text of its reply."""
    return next((found[1] for pattern in _QUEUE_ID if (found := pattern.search(text))), None)


def refusal(phase: Phase, reply: Reply) -> Rejected:
    """What a reply other than the wanted one says, before the dot or as the answer to it: certainly not taken.

    Whether a 5yz means this mail or everything of the account follows its phase and code. Where it may be either (a
    policy against a sender, or against relaying to a recipient), it is unlisted: it counts as this mail's own until
    several mails meet it.
    """
    kind, unlisted = _meaning(phase, reply)
    enhanced = "" if reply.enhanced is None else " " + ".".join(map(str, reply.enhanced))
    code = f"{reply.code}{enhanced}" if 200 <= reply.code <= 599 else "malformedReply"
    return Rejected(code, told(f"{_DOING[phase]}: {reply.text}"), kind, unlisted=unlisted)


def told(text: str) -> str:
    """A server's words for people: on one line, short, without addresses."""
    line = re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", text.encode("utf-8", "replace").decode())
    return _ADDRESS.sub("(address)", line).strip()[:300]


_DOING: dict[Phase, str] = {
    "connection": "on connecting",
    "authentication": "on logging in",
    "sender": "of the sender",
    "recipient": "of the recipient",
    "data": "of the message, before it was sent",
    "message": "of the message",
}

_LOG_IN = frozenset({530, 534, 535, 538})
"""RFC 4954 §6: authentication is needed, failed, or too weak."""


def _meaning(phase: Phase, reply: Reply) -> tuple[RefusalKind, bool]:
    """Whom a reply means, and whether that is unlisted."""
    permanent = 500 <= reply.code <= 599
    subject, detail = (0, 0) if reply.enhanced is None else reply.enhanced[1:]
    if phase == "connection":
        return "unreachable", False
    if phase == "authentication":
        return ("account" if permanent else "unreachable"), False
    if not permanent:
        return "throttle", False
    if reply.code in _LOG_IN or (subject, detail) == (7, 60):  # 5.7.60: Exchange, "cannot send as this sender"
        return "account", False
    if phase in ("data", "message"):
        return "mail", False
    if phase == "recipient":
        return ("throttle", True) if subject == 7 else ("mail", False)
    if reply.code == 552 or (subject, detail) in ((2, 3), (3, 4)):
        return "mail", False  # too large (RFC 1870)
    if subject == 7:
        return "account", False  # it does not take this sender from us
    if reply.code in (501, 555) or (subject, detail) in ((1, 7), (1, 8)):
        return "mail", False  # it cannot read this sender's address, or its domain does not exist
    return "throttle", True
