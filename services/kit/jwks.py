"""An issuer's public keys, fetched when needed and kept.

A key id that we do not know is a rotated key or an invention of the caller's: one fetch in `least_between` seconds
finds out, however many such tokens come. While the issuer is away, the keys we have go on being good.
"""

import asyncio

import httpx
import jwt

from services.kit.clock import Clock
from services.kit.errors import Unavailable
from services.kit.logs import get_logger

log = get_logger(__name__)


class KeySet:
    """Signing keys by id, from a JWKS URL (RFC 7517)."""

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        keep: float = 600.0,
        least_between: float = 30.0,
        limit: float = 3.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`keep`: seconds after which keys are fetched anew; `limit`: seconds a fetch may take; `transport`: for
        tests.
        """
        self._url = url
        self._clock = clock
        self._keep = keep
        self._least_between = least_between
        self._limit = limit
        self._transport = transport
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching = asyncio.Lock()

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        """The RSA key called `key_id`, None when the issuer has none such. Unavailable when it was never reached."""
        if self._stale() or key_id not in self._keys:
            async with self._fetching:
                if (self._stale() or key_id not in self._keys) and self._may_try():
                    await self._fetch()
        if self._fetched_at is None:
            raise Unavailable("the token issuer", "its keys cannot be fetched: check MAILROOM_JWKS_URL")
        return self._keys.get(key_id)

    def _stale(self) -> bool:
        return self._fetched_at is None or self._clock.monotonic() - self._fetched_at > self._keep

    def _may_try(self) -> bool:
        pause = 1.0 if self._fetched_at is None else self._least_between
        return self._tried_at is None or self._clock.monotonic() - self._tried_at >= pause

    async def _fetch(self) -> None:
        self._tried_at = self._clock.monotonic()
        try:
            async with httpx.AsyncClient(transport=self._transport, timeout=self._limit) as client:
                answer = await client.get(self._url)
                answer.raise_for_status()
                keys = jwt.PyJWKSet.from_dict(answer.json()).keys
        except (httpx.HTTPError, jwt.PyJWTError, ValueError, AttributeError) as error:
            log.warning("cannot fetch the issuer's keys", error=type(error).__name__, keys_kept=len(self._keys))
            return
        self._keys = {key.key_id: key for key in keys if key.key_id and key.key_type == "RSA"}
        self._fetched_at = self._clock.monotonic()
