"""How many requests a caller may make: token buckets in this process, per user and per address.

A bucket holds as many requests as a `Limit` allows and refills evenly. Whoever has a token draws from buckets of their
own, one for each class of routes (`read`, `operate`, and what a service's other routes are called: `send`, `upload`);
what has no token, or none that is accepted, draws from its address's (`public`, `unsubscribe`, `unauthenticated`). A
good token is never refused for what others do at the same address: many people sit behind one, and behind a gateway
that is not among the trusted proxies everybody does.

A bucket is refused from the headers alone. Each process counts for itself: behind N of them a caller may get up to N
times as much.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Final, Protocol

from starlette.requests import Request

from services.kit.clock import Clock
from services.kit.errors import TooManyRequests
from services.kit.logs import get_logger

log = get_logger(__name__)

KEPT: Final = 10_000
"""Buckets of one kind that are remembered; about 2 MB when all of them are there."""

UNAUTHENTICATED: Final = "unauthenticated"
READ: Final = "read"
OPERATE: Final = "operate"

_NO_ADDRESS = "unknown"
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Limit:
    """`requests` at once, and as many again in every `seconds`, evenly. Written `requests/seconds`."""

    requests: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.requests}/{self.seconds}"

    @classmethod
    def parse(cls, text: str) -> Limit | None:
        """The limit that `text` says, None for `off` and `0`. Raises ValueError."""
        if text.strip().lower() in ("off", "0"):
            return None
        requests, slash, seconds = (part.strip() for part in text.partition("/"))
        if not slash or not _is_count(requests) or not _is_count(seconds):
            raise ValueError("not a limit: requests/seconds such as 6000/60, or off")
        return cls(int(requests), int(seconds))

    def times(self, factor: float) -> Limit:
        """As many times the requests in the same time, at least one."""
        return Limit(max(1, int(self.requests * factor)), self.seconds)


class Buckets:
    """One bucket for each caller, by any text.

    Kept is when a bucket will be full, and of at most `kept` buckets: one more, and the one that was not asked of for
    longest is forgotten, which fills it. That helps nobody who goes on asking, refused or not: it takes `kept` other
    callers between two of their requests, and whoever commands so many addresses has a full bucket at each of them.
    """

    def __init__(self, limit: Limit, clock: Clock, *, kept: int = KEPT) -> None:
        self.limit = limit
        self._clock = clock
        self._kept = kept
        self._each = limit.seconds / limit.requests
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._full_at)

    def draw(self, who: str) -> float:
        """Take one request: 0.0; or, taking nothing, the seconds after which there will be one."""
        now = self._clock.monotonic()
        full_at = max(now, self._full_at.pop(who, now)) + self._each
        wait = full_at - now - self.limit.seconds
        if wait > _ROUNDING:
            self._full_at[who] = full_at - self._each
            return wait
        self._full_at[who] = full_at
        if len(self._full_at) > self._kept:
            self._full_at.popitem(last=False)
        return 0.0


class Caller(Protocol):
    """Somebody who proved who they are: `auth.Principal`."""

    @property
    def user_id(self) -> str:
        """Their id."""
        ...

    @property
    def role(self) -> str:
        """`service` for one that calls for many people."""
        ...


class RequestLimits:
    """What every request of a process is held to."""

    def __init__(
        self,
        limits: Mapping[str, Limit | None],
        clock: Clock,
        *,
        writes: str = "write",
        service_factor: float = 1.0,
        kept: int = KEPT,
    ) -> None:
        """
        Args:
            limits: by class; one that is None or absent is not limited.
            writes: the class of routes whose scope neither reads nor operates.
            service_factor: how many times as much a caller of role `service` may make.
            kept: see `Buckets`, for each class.
        """
        self._writes = writes
        set_ = {name: limit for name, limit in limits.items() if limit is not None}
        self._buckets = {name: Buckets(limit, clock, kept=kept) for name, limit in set_.items()}
        self._of_services = {
            name: Buckets(limit.times(service_factor), clock, kept=kept) for name, limit in set_.items()
        }

    @classmethod
    def off(cls, clock: Clock) -> RequestLimits:
        """No limits at all."""
        return cls({}, clock)

    def hold_caller(self, caller: Caller, scopes: Collection[str]) -> None:
        """Count a request of somebody known, to a route that needs `scopes`. Raises TooManyRequests."""
        verbs = {scope.rpartition(":")[2] for scope in scopes}
        name = OPERATE if OPERATE in verbs else READ if verbs == {READ} else self._writes
        buckets = self._of_services if caller.role == "service" else self._buckets
        self._hold(name, buckets.get(name), caller.user_id, f"{caller.role}:{caller.user_id}")

    def hold_address(self, request: Request, name: str) -> None:
        """Count a request of nobody known, of the class `name`, for its address. Raises TooManyRequests."""
        self._hold(name, self._buckets.get(name), address_block(request), None)

    def _hold(self, name: str, buckets: Buckets | None, who: str, told: str | None) -> None:
        if buckets is None:
            return
        wait = buckets.draw(who)
        if wait > 0:
            log.info("too many requests", limit=name, actor=told)
            raise _refusal(name, buckets.limit, math.ceil(wait))


def limited(name: str) -> Callable[[], Coroutine[Any, Any, None]]:
    """A FastAPI dependency that says: this route is for everybody, and the address is held to the class `name` before
    the body is read.
    """

    async def held() -> None:
        """Held before."""

    async def hold(request: Request) -> None:
        limits: RequestLimits = request.app.state.limits
        limits.hold_address(request, name)

    held.asks = hold  # type: ignore[attr-defined]
    return held


def address_block(request: Request) -> str:
    """Whom an address belongs to, as far as it tells: an IPv4 address, or the /64 that an IPv6 host has at least.

    It is that of whoever connected, or what a trusted proxy says (`HttpServer`).
    """
    try:
        address = ip_address("" if request.client is None else request.client.host)
    except ValueError:
        return _NO_ADDRESS
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ip_network((int(address), 64), strict=False))
    return str(address)


def _refusal(name: str, limit: Limit, wait: int) -> TooManyRequests:
    """With the fields of draft-ietf-httpapi-ratelimit-headers-11: lists of policies, here one, named by a string."""
    return TooManyRequests(
        f"Too many requests: at most {limit.requests} of this kind ({name}) in {limit.seconds} s. "
        f"Repeat after {wait} s.",
        retry_after=wait,
        headers={
            "RateLimit-Policy": f'"{name}";q={limit.requests};w={limit.seconds}',
            "RateLimit": f'"{name}";r=0;t={wait}',
        },
    )


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) <= 1_000_000_000
