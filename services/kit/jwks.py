"""An issuer's public keys, fetched when needed and kept.

A caller whose key id is known never waits for the issuer: keys older than `keep` seconds are served as they are, and
refreshed in the background. A key id that is not known is a rotated key or an invention of the caller's: one fetch in
`least_between` seconds finds out, however many such tokens come. At most one fetch is under way, everybody who needs it
waits for the same one, and it ends within `limit` seconds whatever the issuer does. While the issuer is away, the keys
that are there go on being good.
"""

import asyncio

import httpx
import jwt
import orjson

from services.kit.clock import Clock
from services.kit.errors import Unavailable
from services.kit.logs import get_logger

log = get_logger(__name__)

LARGEST = 512 * 1024
"""Bytes of a key set at most; issuers publish a few kilobytes."""

_NEVER_FETCHED_PAUSE = 1.0


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
        """`keep`: seconds after which keys are refreshed; `limit`: seconds a fetch may take from the look-up of the
        issuer's name to the last byte; `transport`: for tests.
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
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, key_id: str) -> jwt.PyJWK | None:
        """The RSA key called `key_id`, None when the issuer has none such.

        Raises Unavailable where nobody knows: the key is not among those that are there, and the issuer could not be
        asked for more.
        """
        found = self._keys.get(key_id)
        if found is not None:
            if self._stale():
                self._refresh()
            return found
        fetching = self._refresh()
        if fetching is not None:
            await asyncio.shield(fetching)  # a caller who goes away takes the fetch from nobody
        found = self._keys.get(key_id)
        if found is None and not self._reached():
            raise Unavailable("the token issuer", "its keys cannot be fetched: check MAILROOM_JWKS_URL")
        return found

    def _stale(self) -> bool:
        return self._fetched_at is None or self._clock.monotonic() - self._fetched_at > self._keep

    def _reached(self) -> bool:
        """Whether the last try succeeded."""
        return self._fetched_at is not None and self._tried_at is not None and self._fetched_at >= self._tried_at

    def _may_try(self) -> bool:
        pause = _NEVER_FETCHED_PAUSE if self._fetched_at is None else self._least_between
        return self._tried_at is None or self._clock.monotonic() - self._tried_at >= pause

    def _refresh(self) -> asyncio.Task[None] | None:
        """The fetch that is under way, begun now if there is none; None where it is too early for one."""
        if self._fetching is not None and not self._fetching.done():
            return self._fetching
        if not self._may_try():
            return None
        self._tried_at = self._clock.monotonic()
        self._fetching = asyncio.create_task(self._fetch(), name="fetch the issuer's keys")
        return self._fetching

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(self._limit):
                keys = jwt.PyJWKSet.from_dict(orjson.loads(await self._read())).keys
        except Exception as error:  # noqa: BLE001 - whatever the issuer sends: the keys that are there stay good
            log.warning("cannot fetch the issuer's keys", error=type(error).__name__, keys_kept=len(self._keys))
            return
        self._keys = {key.key_id: key for key in keys if key.key_id and key.key_type == "RSA"}
        self._fetched_at = self._clock.monotonic()

    async def _read(self) -> bytes:
        read = bytearray()
        async with (
            # The time limit is the whole fetch's. httpx has one for each phase, which a slow issuer never exceeds.
            httpx.AsyncClient(transport=self._transport, timeout=None) as client,  # noqa: S113
            client.stream("GET", self._url, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            answer.raise_for_status()
            async for chunk in answer.aiter_bytes():
                read += chunk
                if len(read) > LARGEST:
                    raise ValueError("the key set is too large")
        return bytes(read)
