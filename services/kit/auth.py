"""Who is calling, and what they may do.

A JSON Web Token, as a bearer token or in a same-origin cookie. The algorithm is fixed by settings and never taken
from the token. Claims: `exp`, `sub` (the user's id), `role` (user, admin or service), `scope` (words separated by
spaces; RFC 8693 §4.2). A cookie is sent by the browser whoever made the page, so with it everything that changes
something needs an `Origin` on the list.
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Literal, Protocol, cast, get_args

import jwt
from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from services.kit.errors import Forbidden, Unauthenticated
from services.kit.jwks import KeySet
from services.kit.request_limits import UNAUTHENTICATED, RequestLimits

Role = Literal["user", "admin", "service"]

LONGEST_USER_ID = 128
"""Characters; as many as commands and events take (`contracts.email.values.UserId`)."""

LEEWAY_SECONDS = 10
"""How far an issuer's clock may differ from ours."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_REQUIRED = ["exp", "sub", "role", "scope"]
_NONE: Mapping[str, str] = MappingProxyType({})
_bearer = HTTPBearer(
    auto_error=False,
    bearerFormat="JWT",
    scheme_name="token",
    description="A JSON Web Token with the scope that a call needs.",
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who proved who they are."""

    user_id: str
    scopes: frozenset[str]
    role: Role

    @property
    def is_admin(self) -> bool:
        """Whether they may see and touch what belongs to others."""
        return self.role == "admin"

    @property
    def actor(self) -> str:
        """How they are written into events: `user:<id>`, `admin:<id>` or `service:<id>`."""
        return f"{self.role}:{self.user_id}"

    def need(self, scopes: Collection[str]) -> None:
        """Raise Forbidden, with all that is missing, unless they have each of `scopes`: for what a request's body asks,
        beyond the route's `require`.
        """
        missing = [scope for scope in scopes if scope not in self.scopes]
        if missing:
            raise Forbidden(
                f"The token lacks the scope {' and '.join(missing)}.", [{"missingScope": s} for s in missing]
            )

    def may_see(self, owner: str | None) -> bool:
        """Whether something that belongs to `owner` exists for them. If not, answer 404 and not 403."""
        return self.is_admin or (owner is not None and owner == self.user_id)


class Verifier(Protocol):
    """Turns a token into whoever it stands for."""

    async def verify(self, token: str) -> Principal:
        """Raises Unauthenticated, or Unavailable when the issuer's keys cannot be had."""
        ...


class SecretVerifier:
    """HS256 with a shared secret, for development and single installations."""

    def __init__(self, secret: str, *, issuer: str | None = None, claims: Mapping[str, str] = _NONE) -> None:
        """`issuer` and `claims`: demanded of every token where they are given."""
        self._secret = secret
        self._issuer = issuer
        self._claims = claims

    async def verify(self, token: str) -> Principal:
        return _principal(token, self._secret, "HS256", self._issuer, self._claims)


class KeySetVerifier:
    """RS256 with the keys that an issuer publishes.

    An issuer signs tokens for many applications with the same keys. So every token must name the issuer and hold each
    of `claims`, which tell those that are for us: `aud`, `client_id`, `azp` or another.
    """

    def __init__(self, keys: KeySet, *, issuer: str, claims: Mapping[str, str]) -> None:
        """Raises ValueError without an issuer or a claim: any token of that issuer would pass."""
        if not issuer or not claims:
            raise ValueError("RS256 needs an issuer and a claim that tells tokens for us from others")
        self._keys = keys
        self._issuer = issuer
        self._claims = claims

    async def verify(self, token: str) -> Principal:
        try:
            key_id = jwt.get_unverified_header(token).get("kid")
        except jwt.PyJWTError:
            raise Unauthenticated("The token is not a JSON Web Token.") from None
        key = await self._keys.key(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise Unauthenticated("The token is signed with a key that its issuer does not publish.")
        return _principal(token, key, "RS256", self._issuer, self._claims)


class Authenticator:
    """Finds the token in a request and checks it."""

    def __init__(self, verifier: Verifier, *, cookie: str | None = None, origins: Collection[str] = ()) -> None:
        """`cookie`: the name of the one that may carry the token; `origins`: whose pages may act with it."""
        self._verifier = verifier
        self._cookie = cookie
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)

    async def principal(self, request: Request) -> Principal:
        """Whoever sends `request`. Raises Unauthenticated (401), or Forbidden for a cookie used from another's page."""
        header = request.headers.get("authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise Unauthenticated("Authorization must be: Bearer <token>.")
            return await self._verifier.verify(token.strip())
        cookie = request.cookies.get(self._cookie) if self._cookie else None
        if not cookie:
            raise Unauthenticated("Send a token: Authorization: Bearer <token>.")
        if request.method not in _SAFE_METHODS and not self._from_our_page(request):
            raise Forbidden("With the session cookie, a change needs an Origin header that names an allowed page.")
        return await self._verifier.verify(cookie)

    def _from_our_page(self, request: Request) -> bool:
        return request.headers.get("origin", "").lower().rstrip("/") in self._origins


def require(*scopes: str) -> Callable[..., Any]:
    """A FastAPI dependency: the Principal, if they have all of `scopes`; else 401 or 403, or 429 beyond their limit.
    All of it before the body is read.

        @router.post("/api/email")
        async def create(principal: Annotated[Principal, Depends(require("email:create"))]) -> …

    The application must be made by `kit.http.create_app`, which keeps the Authenticator and the RequestLimits in its
    state. Its routes have either this, `anybody` or `request_limits.limited`.
    """

    async def allowed(
        request: Request,
        _documented: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer, scopes=scopes)] = None,
    ) -> Principal:
        return await admit(request, scopes)

    allowed.asks = partial(admit, scopes=scopes)  # type: ignore[attr-defined]
    return allowed


async def anybody() -> None:
    """A FastAPI dependency that says: this route is for everybody, with or without a token."""


async def _nothing(_request: Request) -> None:
    """What `anybody` asks."""


anybody.asks = _nothing  # type: ignore[attr-defined]


def asked_first(calls: Iterable[object]) -> list[Callable[[Request], Awaitable[object]]]:
    """What is asked of a request's headers before its body is read, by a route's dependencies: who calls, whether they
    may, and how often. Raises ValueError where none of them asks anything.
    """
    found = [call.asks for call in calls if hasattr(call, "asks")]
    if not found:
        raise ValueError("say who may call this route: Depends(require(…)), Depends(limited(…)) or Depends(anybody)")
    return found


async def admit(request: Request, scopes: Collection[str]) -> Principal:
    """The Principal of `request`, if they have all of `scopes`, from its headers alone. The token is verified, and the
    request counted, once. Raises Unauthenticated, Forbidden and TooManyRequests.
    """
    principal: Principal | None = getattr(request.state, "principal", None)
    if principal is None:
        principal = request.state.principal = await _within_limits(request, scopes)
    principal.need(scopes)
    return principal


async def _within_limits(request: Request, scopes: Collection[str]) -> Principal:
    """Whoever sends `request`, to a route that needs `scopes`, held to their limit; or, where that is nobody known, the
    address held to its own: beyond it the answer is 429 in place of 401.
    """
    authenticator: Authenticator = request.app.state.authenticator
    limits: RequestLimits = request.app.state.limits
    try:
        principal = await authenticator.principal(request)
    except (Unauthenticated, Forbidden):
        limits.hold_address(request, UNAUTHENTICATED)
        raise
    limits.hold_caller(principal, scopes)
    return principal


def mint_token(
    secret: str,
    sub: str,
    scopes: Iterable[str],
    role: Role = "user",
    ttl: timedelta = timedelta(hours=1),
    *,
    now: datetime | None = None,
    issuer: str | None = None,
    claims: Mapping[str, str] = _NONE,
) -> str:
    """An HS256 token that `SecretVerifier` with the same secret takes, for development. `now` is the clock's, `claims`
    are further ones.
    """
    issued = now or datetime.now(UTC)
    own: dict[str, Any] = {
        "sub": sub,
        "role": role,
        "scope": " ".join(scopes),
        "iat": int(issued.timestamp()),
        "exp": int((issued + ttl).timestamp()),
    }
    return jwt.encode(dict(claims) | ({"iss": issuer} if issuer else {}) | own, secret, algorithm="HS256")


def _principal(
    token: str,
    key: str | jwt.PyJWK,
    algorithm: Literal["HS256", "RS256"],
    issuer: str | None,
    demanded: Mapping[str, str],
) -> Principal:
    try:
        claims = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            issuer=issuer,
            leeway=LEEWAY_SECONDS,
            options={"require": [*_REQUIRED, *demanded], "verify_aud": False},
        )
    except jwt.ExpiredSignatureError:
        raise Unauthenticated("The token has expired: get a new one.") from None
    except jwt.MissingRequiredClaimError as error:
        raise Unauthenticated(f"The token lacks the claim {error.claim}.") from None
    except jwt.InvalidIssuerError:
        raise Unauthenticated("The token is of an issuer that is not accepted (iss).") from None
    except (jwt.PyJWTError, ValueError, TypeError):
        raise Unauthenticated("The token is not valid.") from None
    for name, value in demanded.items():
        found = claims[name]
        if found != value and not (isinstance(found, list) and value in found):  # aud may be a list: RFC 7519 §4.1.3
            raise Unauthenticated(f"The token is meant for somebody else ({name}).")
    return _from_claims(claims)


def _from_claims(claims: dict[str, Any]) -> Principal:
    subject, role, scope = claims["sub"], claims["role"], claims["scope"]
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_USER_ID or not subject.isprintable():
        raise Unauthenticated(f"The token's sub must be a user id of 1 to {LONGEST_USER_ID} printable characters.")
    if role not in get_args(Role):
        raise Unauthenticated(f"The token's role must be one of {', '.join(get_args(Role))}.")
    if not isinstance(scope, str):
        raise Unauthenticated("The token's scope must be words separated by spaces.")
    return Principal(subject, frozenset(scope.split()), cast("Role", role))
