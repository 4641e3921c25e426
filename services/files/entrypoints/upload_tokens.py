"""The token of an upload in parts: what it binds, signed, so that no request needs the store to know whose it is."""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import jwt

from services.files.ports import UploadTicket
from services.kit.errors import ApiError, Gone, InvalidRequest, KeyUnknown

_ALGORITHM = "HS256"
_AUDIENCE = "mailroom-upload"
_KEY_ID = re.compile("[0-9a-f]{16}")


class UploadTokens:
    """Issues tokens with the first key, and takes those of the others: `KeyRing.derive_all("upload")`."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {_key_id(key): key for key in keys}
        self._current = _key_id(keys[0])

    def issue(self, ticket: UploadTicket) -> str:
        """The token of an upload."""
        claims: dict[str, Any] = {
            "aud": _AUDIENCE,
            "fid": ticket.file_id,
            "upl": ticket.upload_id,
            "key": ticket.key,
            "sub": ticket.owner,
            "exp": int(ticket.expires_at.timestamp()),
        }
        return jwt.encode(claims, self._keys[self._current], algorithm=_ALGORITHM, headers={"kid": self._current})

    def verify(self, token: str, now: datetime) -> UploadTicket:
        """What the token binds. Raises InvalidRequest for one that is not ours, Gone for one whose time is over,
        KeyUnknown for one that names a key which another process may have.
        """
        for key in self._keys.values():
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=[_ALGORITHM],
                    audience=_AUDIENCE,
                    options={"verify_exp": False, "require": ["exp", "sub", "aud"]},
                )
                ticket = UploadTicket(
                    claims["fid"],
                    claims["upl"],
                    claims["key"],
                    claims["sub"],
                    datetime.fromtimestamp(claims["exp"], UTC),
                )
            except (jwt.PyJWTError, KeyError, TypeError):
                continue
            if ticket.expires_at <= now:
                raise Gone("The upload has expired: ask for a new one.")
            return ticket
        key_id = _named_key(token)
        if key_id is not None and key_id not in self._keys:
            raise KeyUnknown(key_id)
        raise _forged()


def _key_id(key: bytes) -> str:
    return hmac.digest(key, b"mailroom upload key id", "sha256")[:8].hex()


def _named_key(token: str) -> str | None:
    """The key that a token says it was signed with; earlier versions of Mailroom named none."""
    try:
        named = jwt.get_unverified_header(token).get("kid")
    except jwt.PyJWTError:
        return None
    return named if isinstance(named, str) and _KEY_ID.fullmatch(named) else None


def _forged() -> ApiError:
    message = "is not an upload token of ours, or was changed: send it as it was given"
    return InvalidRequest(details=[{"field": "uploadToken", "message": message}])
