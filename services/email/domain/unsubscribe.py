"""The token in an unsubscribe link: who leaves what, signed, readable by nobody and good for ever.

The recipient is named by the recipient key (an HMAC of the address), so that no address, not even an encrypted one,
stands in a URL that proxies and mail scanners write down. Whoever appends the suppression finds the address among the
recipients of `message_id`'s stream.

A token never expires. CAN-SPAM (15 U.S.C. §7704(a)(3)(A)(ii)) wants a way out that works for 30 days after sending,
RFC 8058 sets no end, and a person who digs out an old newsletter means what they press. So the keys that once signed
must go on verifying: after FILE_ENCRYPTION_KEY is replaced, the keys derived from its old values are passed as `older`.

The same token is the subject of the mail by which somebody leaves (RFC 2369's `mailto:`): the part of an address before
the @ has 64 octets at most, which is too short for it.

Bytes of a token, in unpadded base64url: version (1) | issued, Unix seconds (8) | message id (16) | length of the
recipient key (1) | recipient key | scope | HMAC-SHA256 over all before it (32).
"""

import base64
import binascii
import hmac
import re
import struct
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from services.kit.errors import PermanentError

UnsubscribeSource = Literal["oneClick", "page", "mailto"]
"""Who pressed: a mail program's own button (RFC 8058), a person on our page, or either by mail (RFC 2369)."""

LONGEST_TOKEN = 700
"""Characters: keeps the whole URL within one header line."""

LONGEST_SUBJECT = 2_000
"""Characters of a subject that are looked through for a token."""

_VERSION = 1
_HEAD = struct.Struct(">BQ16sB")
_MAC_BYTES = 32
_SCOPE = re.compile(r"marketing|list:[A-Za-z0-9._-]{1,128}")
_RECIPIENT_KEY = re.compile(r"[A-Za-z0-9_-]{16,128}")


class InvalidUnsubscribeToken(PermanentError):
    """Not a token of ours. `reason`: `tokenMalformed`, `tokenVersionUnknown` or `tokenForged`."""


@dataclass(frozen=True, slots=True)
class UnsubscribeClaims:
    """What a token says: this recipient of this message wants no more of `scope` (`marketing` or `list:<id>`).

    `issued_at` is aware, UTC, in whole seconds.
    """

    recipient_key: str
    scope: str
    message_id: str
    issued_at: datetime

    @property
    def list_id(self) -> str | None:
        """The list that is left, None where it is all marketing."""
        return self.scope.removeprefix("list:") if self.scope.startswith("list:") else None


class UnsubscribeTokens:
    """Issues tokens with one key, verifies them with that and older ones. Keys: `KeyRing.derive("unsubscribe")`."""

    def __init__(self, key: bytes, older: Sequence[bytes] = ()) -> None:
        if any(len(each) < _MAC_BYTES for each in (key, *older)):
            raise ValueError("a signing key needs 32 bytes")
        self._keys = (key, *older)

    def issue(self, claims: UnsubscribeClaims) -> str:
        """The token for one recipient: letters, digits, `-` and `_`, the same for the same claims.

        Raises ValueError for claims that no link can carry: they come from our own streams, so it is a bug.
        """
        if not _SCOPE.fullmatch(claims.scope):
            raise ValueError("a scope is marketing or list:<id>")
        if not _RECIPIENT_KEY.fullmatch(claims.recipient_key):
            raise ValueError("a recipient key has 16 to 128 letters, digits, hyphens and underscores")
        recipient = claims.recipient_key.encode("ascii")
        issued = int(claims.issued_at.timestamp())
        body = _HEAD.pack(_VERSION, issued, uuid.UUID(claims.message_id).bytes, len(recipient))
        body += recipient + claims.scope.encode("ascii")
        return base64.urlsafe_b64encode(body + _mac(self._keys[0], body)).rstrip(b"=").decode("ascii")

    def verify(self, token: str) -> UnsubscribeClaims:
        """The claims of a token of ours, however old.

        Raises InvalidUnsubscribeToken. Beyond its version nothing of a token is read before its signature holds.
        """
        signed = _decode(token)
        body, mac = signed[:-_MAC_BYTES], signed[-_MAC_BYTES:]
        if body[0] != _VERSION:
            raise InvalidUnsubscribeToken("tokenVersionUnknown", "this link was made by another version of Mailroom")
        if not any(hmac.compare_digest(_mac(key, body), mac) for key in self._keys):
            raise InvalidUnsubscribeToken(
                "tokenForged", "the signature does not hold: changed, or signed with a lost key"
            )
        _, issued, message_id, length = _HEAD.unpack_from(body)
        rest = body[_HEAD.size :]
        return UnsubscribeClaims(
            recipient_key=rest[:length].decode("ascii"),
            scope=rest[length:].decode("ascii"),
            message_id=str(uuid.UUID(bytes=message_id)),
            issued_at=datetime.fromtimestamp(issued, UTC),
        )

    def find(self, subject: str) -> UnsubscribeClaims | None:
        """The claims of the token in the subject of a mail; None where there is no valid one.

        What programs put before it (`Re:`, `[External]`) does no harm, nor do blanks within it, from folding.
        """
        subject = subject[:LONGEST_SUBJECT]
        for candidate in (*subject.split(), "".join(subject.split())):
            with suppress(InvalidUnsubscribeToken):
                return self.verify(candidate)
        return None


def _decode(token: str) -> bytes:
    malformed = InvalidUnsubscribeToken("tokenMalformed", "this is no unsubscribe link, or it was cut short")
    if len(token) > LONGEST_TOKEN or not token.isascii():
        raise malformed
    try:
        signed = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise malformed from None
    one_spelling = base64.urlsafe_b64encode(signed).rstrip(b"=").decode("ascii") == token
    if not one_spelling or len(signed) <= _HEAD.size + _MAC_BYTES:
        raise malformed
    return signed


def _mac(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, b"mailroom unsubscribe\x00" + body, "sha256")
