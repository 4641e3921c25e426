"""The token of an upload in parts: what it binds, signed, so that no request needs the store to know whose it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import jwt

from services.files.ports import UploadTicket
from services.kit.errors import ApiError, Gone, InvalidRequest

_ALGORITHM = "HS256"
_AUDIENCE = "mailroom-upload"


class UploadTokens:
    """Issues tokens with the first key, and takes those of the others: `KeyRing.derive_all("upload")`."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = tuple(keys)

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
        return jwt.encode(claims, self._keys[0], algorithm=_ALGORITHM)

    def verify(self, token: str, now: datetime) -> UploadTicket:
        """What the token binds. Raises InvalidRequest for one that is not ours, Gone for one whose time is over."""
        for key in self._keys:
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
        raise _forged()


def _forged() -> ApiError:
    message = "is not an upload token of ours, or was changed: send it as it was given"
    return InvalidRequest(details=[{"field": "uploadToken", "message": message}])
