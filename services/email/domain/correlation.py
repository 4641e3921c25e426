"""How a provider's notification finds the message and the attempt that it is about.

The sender writes both ids twice: as tags of the call (SES returns them in event publishing) and as headers of the
message (SES returns them in identity notifications, when headers are switched on). SendGrid and Mailgun return the
variables of the call. Over SMTP, which has no tags, they stand in the envelope: in the envelope id and, where bounces
have a domain of their own, in the return address.
"""

from __future__ import annotations

import re
from base64 import b32decode, b32encode
from dataclasses import dataclass
from uuid import UUID

MESSAGE_TAG = "mailroom-message-id"
ATTEMPT_TAG = "mailroom-attempt-id"
MESSAGE_VARIABLE = "mailroom_message_id"
ATTEMPT_VARIABLE = "mailroom_attempt_id"
MESSAGE_HEADER = "X-Mailroom-Message-Id"
ATTEMPT_HEADER = "X-Mailroom-Attempt-Id"


@dataclass(frozen=True, slots=True)
class Correlation:
    """The message, and where it is known the attempt, that a notification is about.

    Attributes:
        recipient: whose attempt it is, in our spelling, where that was looked up.
        forgeable: anybody may have written the notification, with ids that they read in a mail of ours. Nothing is made
            of it until the attempt was looked up, and then only for that attempt's recipient.
    """

    message_id: str
    attempt_id: str | None = None
    recipient: str | None = None
    forgeable: bool = False


# --- the envelope of SMTP -----------------------------------------------------------------------------------------

RETURN_MAILBOX = "bounces"
"""The mailbox of return addresses; the ids follow its `+`."""

_UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ENVELOPE_ID = re.compile(rf"({_UUID})\.({_UUID})", re.IGNORECASE)
_RETURN_ADDRESS = re.compile(r"\+([a-z2-7]{26})-([a-z2-7]{26})@", re.IGNORECASE)


def envelope_id(message_id: str, attempt_id: str) -> str:
    """The ENVID of an attempt: 73 of the 100 characters that RFC 3461 §4.4 allows, none of which needs encoding."""
    return f"{message_id}.{attempt_id}"


def return_address(message_id: str, attempt_id: str, domain: str) -> str:
    """The envelope sender of an attempt, to which its bounces go: `bounces+<message>-<attempt>@<domain>`.

    The ids are in base32, since servers on the way may change a local part to lower case, and 61 characters fit into
    the 64 of RFC 5321 §4.5.3.1.1. Raises ValueError for an id that is no UUID.
    """
    return f"{RETURN_MAILBOX}+{_base32(message_id)}-{_base32(attempt_id)}@{domain}"


def from_envelope_id(text: str) -> Correlation | None:
    """The ids in an ENVID that comes back; None for somebody else's."""
    found = _ENVELOPE_ID.fullmatch(text.strip())
    return None if found is None else Correlation(found[1].lower(), found[2].lower(), forgeable=True)


def from_return_address(text: str) -> Correlation | None:
    """The ids in a return address, which may stand among others; None where there is none."""
    found = _RETURN_ADDRESS.search(text)
    return None if found is None else Correlation(_uuid(found[1]), _uuid(found[2]), forgeable=True)


def _base32(uuid: str) -> str:
    return b32encode(UUID(uuid).bytes).decode().rstrip("=").lower()


def _uuid(base32: str) -> str:
    return str(UUID(bytes=b32decode(base32.upper() + "======")))
