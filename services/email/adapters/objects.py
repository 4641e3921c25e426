"""The bucket of large contents: every call bounded, and left alone for a while when it does not answer.

All trouble is `Unavailable`, refusals of S3 too: rights and credentials are an operator's business, and nothing about
an object's bytes can be refused for good. So whoever waits for one goes on by itself once they are mended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import aiohttp
from botocore.exceptions import ClientError

from services.kit import aws
from services.kit.clock import Clock
from services.kit.errors import PermanentError, Unavailable
from services.kit.logs import get_logger
from services.kit.retry import Backoff

log = get_logger(__name__)

PARALLEL_OBJECTS = 8
READ_SECONDS = 5.0
"""For one object, the client's own repetitions included; of one whose size is known, until `SLOWEST` counts."""

SLOWEST = 2_000_000
"""Bytes a second below which S3 counts as not answering; a large object may take longer by as much."""

WRITE_SECONDS = 10.0
REFUSED_SECONDS = 20.0
"""How soon whoever was refused may come again."""

LOG_EVERY = 10.0
_BACKOFF = Backoff(first=1.0, most=30.0)
_NOT_THERE = frozenset({"NoSuchKey", "NoSuchVersion"})
"""S3's own words. A 404 without them is a proxy's, and says nothing about the object."""


class Objects:
    """Objects of one bucket. `client` is an entered `kit.aws.s3_client`."""

    def __init__(self, client: Any, bucket: str, clock: Clock) -> None:
        self._client, self._bucket, self._clock = client, bucket, clock
        self._parallel = asyncio.Semaphore(PARALLEL_OBJECTS)
        self._failures = 0
        self._failed_at = self._next_try = float("-inf")
        self._logged_at = float("-inf")

    @property
    def away(self) -> bool:
        """Whether it has not answered lately, so that calls are refused here."""
        return self._failures > 0 and self._clock.monotonic() < self._next_try

    async def put(self, name: str, data: bytes) -> None:
        """Store it. After an Unavailable it may be there all the same."""
        async with self._parallel:
            with self._bounded():
                async with asyncio.timeout(WRITE_SECONDS):
                    await self._client.put_object(
                        Bucket=self._bucket, Key=name, Body=data, ContentType="application/octet-stream"
                    )

    async def get(self, name: str) -> bytes | None:
        """Its bytes, None where there is none of that name. Raises Unavailable."""
        return await self._get({"Key": name}, None)

    async def get_version(self, name: str, version_id: str, size: int) -> bytes | None:
        """The bytes of exactly that version; None where it is not there (any more), or not of that size, in which case
        nothing of it is read. Raises Unavailable.
        """
        return await self._get({"Key": name, "VersionId": version_id}, size)

    async def delete(self, names: Sequence[str]) -> dict[str, str]:
        """Delete these; what is not there is fine. Those that S3 keeps, with its code for why: it answers for each one
        by itself. Raises Unavailable, after which some may be gone.
        """
        kept: dict[str, str] = {}
        for start in range(0, len(names), 1000):
            with self._bounded():
                async with asyncio.timeout(WRITE_SECONDS):
                    answer = await self._client.delete_objects(
                        Bucket=self._bucket,
                        Delete={"Objects": [{"Key": name} for name in names[start : start + 1000]], "Quiet": True},
                    )
            kept |= {str(each.get("Key")): str(each.get("Code")) for each in answer.get("Errors", ())}
        return kept

    # --- inside --------------------------------------------------------------------------------------------------

    async def _get(self, which: Mapping[str, str], size: int | None) -> bytes | None:
        async with self._parallel:
            with self._bounded():
                async with asyncio.timeout(READ_SECONDS + (size or 0) / SLOWEST):
                    try:
                        answer = await self._client.get_object(Bucket=self._bucket, **which)
                    except ClientError as error:
                        if aws.error_code(error) in _NOT_THERE:
                            return None
                        raise
                    if size is not None and answer["ContentLength"] != size:
                        answer["Body"].close()
                        return None
                    data: bytes = await answer["Body"].read()
                    return data

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """One call: refused at once while S3 is left alone; what comes of it says whether that goes on."""
        began = self._clock.monotonic()
        if self.away:
            raise Unavailable("S3", "did not answer lately", retry_after=self._next_try - began)
        if self._failures:
            self._next_try = began + READ_SECONDS  # this call alone finds out
        try:
            with aws.foreign_errors("S3"):
                yield
        except Unavailable as error:
            self._failed(began, error)
            raise
        except (aiohttp.ClientError, OSError) as error:  # a body that breaks off
            broken = Unavailable("S3", f"broke off ({type(error).__name__})")
            self._failed(began, broken)
            raise broken from error
        except PermanentError as error:
            refused = Unavailable("S3", f"refuses us ({error.detail})", retry_after=REFUSED_SECONDS)
            if isinstance(error.__cause__, ClientError):
                self._failures = 0  # it answers
                self._tell(log.error, refused)
            else:
                self._failed(began, refused)
            raise refused from error
        else:
            self._failures = 0

    def _failed(self, began: float, error: Unavailable) -> None:
        if self._failures and began <= self._failed_at:
            return  # calls that were under way together tell the same thing
        self._failures += 1
        self._failed_at = self._clock.monotonic()
        error.retry_after = _BACKOFF.delay(self._failures)
        self._next_try = self._failed_at + error.retry_after
        self._tell(log.warning, error)

    def _tell(self, write: Callable[..., Any], error: Unavailable) -> None:
        now = self._clock.monotonic()
        if now - self._logged_at >= LOG_EVERY:
            self._logged_at = now
            write("large contents cannot be had or stored in S3", error=str(error), again_in=error.retry_after)
