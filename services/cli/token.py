"""`mailroom token`: a token for development."""

from __future__ import annotations

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from services.cli.environment import JWT_SECRET, need
from services.cli.output import Json, print_json, refuse, say

if TYPE_CHECKING:
    from services.kit.auth import Role

SCOPES: Final = (
    "email:create",
    "email:create:auth",
    "email:create:notification",
    "email:create:marketing",
    "email:create:system",
    "email:create:client-portal",
    "email:create:urgent",
    "email:read",
    "email:operate",
    "files:create",
    "files:read",
    "files:delete",
    "files:operate",
    "projections:operate",
)
LONGEST_DAYS: Final = 30
_TTL = re.compile(r"(\d{1,6})([smhd])")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def token(
    sub: Annotated[str, typer.Option(help="The user's id.")] = "developer",
    scope: Annotated[
        list[str] | None,
        typer.Option(help="A scope; give it several times, or several separated by commas. Default: all."),
    ] = None,
    role: Annotated[
        Literal["user", "admin", "service"], typer.Option(help="admin sees what belongs to others.")
    ] = "user",
    ttl: Annotated[str, typer.Option(help="How long it is good: 30m, 1h, 7d; 30d at most.")] = "1h",
    json: Json = False,
) -> None:
    """Mint a token that services on this machine accept. For development: it needs MAILROOM_JWT_SECRET (HS256)."""
    seconds = _seconds(ttl)
    scopes = [word for given in (scope or SCOPES) for word in re.split(r"[,\s]+", given) if word]
    strange = sorted(set(scopes) - set(SCOPES))
    if strange:
        raise typer.BadParameter(f"there is no scope {', '.join(strange)}; there are {', '.join(SCOPES)}")
    if os.environ.get("MAILROOM_JWT_ALGORITHM", "HS256") != "HS256":
        raise refuse("these services take tokens of an issuer (MAILROOM_JWT_ALGORITHM is RS256): get one there")
    secret = need(JWT_SECRET)[JWT_SECRET]
    minted = _mint(secret, sub, scopes, role, seconds)
    if json:
        print_json({"token": minted, "sub": sub, "role": role, "scopes": scopes, "expiresIn": seconds})
    else:
        say(minted)


def _mint(secret: str, sub: str, scopes: list[str], role: Role, seconds: int) -> str:
    from services.kit.auth import mint_token

    name, _, value = os.environ.get("MAILROOM_JWT_CLAIM", "").partition("=")
    audience = os.environ.get("MAILROOM_JWT_AUDIENCE")
    return mint_token(
        secret,
        sub,
        scopes,
        role,
        timedelta(seconds=seconds),
        issuer=os.environ.get("MAILROOM_JWT_ISSUER") or None,
        claims=({"aud": audience} if audience else {}) | ({name.strip(): value.strip()} if value else {}),
    )


def _seconds(ttl: str) -> int:
    match = _TTL.fullmatch(ttl)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 0 < seconds <= LONGEST_DAYS * 86400:
        raise typer.BadParameter("a time such as 30m, 1h or 7d, 30d at most", param_hint="--ttl")
    return seconds
