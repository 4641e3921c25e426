"""The certificates that SNS signs with, fetched when first needed and kept.

Whose URL may be fetched is decided before (`signatures.read_sns`). TLS proves that what comes is SNS's: the certificate
itself names `sns.amazonaws.com`, whatever the region. What was fetched once is good until the process ends; a failure
is never kept. At most `FETCHES` are under way at a time, since anybody can name a certificate that is not there.
"""

from __future__ import annotations

import asyncio

import httpx
from cryptography import x509

from services.kit.errors import Unavailable
from services.kit.logs import get_logger

log = get_logger(__name__)

LARGEST = 64 * 1024
"""Bytes of a certificate at most; SNS's have two kilobytes."""

FETCHES = 4
KEPT = 100
"""Certificates that are kept; SNS has one or two for each region."""


class SnsCertificates:
    """Certificates by URL."""

    def __init__(self, *, limit: float = 3.0, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """`limit`: seconds that a fetch may take, from the look-up of the name to the last byte; `transport`: for
        tests.
        """
        self._limit = limit
        self._transport = transport
        self._kept: dict[str, x509.Certificate] = {}
        self._fetching: dict[str, asyncio.Task[x509.Certificate]] = {}

    async def __call__(self, url: str) -> x509.Certificate:
        """The certificate at `url`; everybody who needs the same one waits for the same fetch. Raises Unavailable."""
        found = self._kept.get(url)
        if found is not None:
            return found
        fetching = self._fetching.get(url)
        if fetching is None:
            if len(self._fetching) >= FETCHES:
                raise Unavailable("SNS", "too many certificates are being fetched", retry_after=self._limit)
            fetching = self._fetching[url] = asyncio.create_task(self._fetch(url), name="fetch a certificate of SNS")
            fetching.add_done_callback(lambda _: self._fetching.pop(url))
        return await asyncio.shield(fetching)  # a caller who goes away takes the fetch from nobody

    async def _fetch(self, url: str) -> x509.Certificate:
        try:
            async with asyncio.timeout(self._limit):
                certificate = x509.load_pem_x509_certificate(await self._read(url))
        except (httpx.HTTPError, ValueError, TimeoutError) as error:
            log.warning("cannot fetch a certificate of SNS", error=type(error).__name__)
            raise Unavailable("SNS", f"its certificate cannot be fetched ({type(error).__name__})") from error
        if len(self._kept) < KEPT:
            self._kept[url] = certificate
        return certificate

    async def _read(self, url: str) -> bytes:
        read = bytearray()
        async with (
            # The time limit is the whole fetch's. httpx has one for each phase, which a slow server never exceeds.
            httpx.AsyncClient(transport=self._transport, timeout=None, follow_redirects=False) as client,  # noqa: S113
            client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status_code != 200:
                raise ValueError(f"SNS answered {answer.status_code}")
            async for chunk in answer.aiter_bytes():
                read += chunk
                if len(read) > LARGEST:
                    raise ValueError("the certificate is too large")
        return bytes(read)
