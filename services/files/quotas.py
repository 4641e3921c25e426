"""Quotas of uploads: what a user may have open and ask for, and what may be for a client.

An upload is reserved before anything is begun for it, and released when it ends. It counts until it expires at most, so
that a process that dies between the two costs its user that long and no longer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from contracts.files.events import FileUploadRequested
from services.files.domain.file import File
from services.files.domain.quotas import OpenUpload, Over, Quota
from services.files.ports import NoQuotas, QuotaStore
from services.kit.errors import InvalidRequest, TooManyRequests, TransientError
from services.kit.logs import get_logger

log = get_logger(__name__)

LONGEST_WAIT = timedelta(hours=1)
"""What a caller is told to wait at most: an upload may end at any time."""


@dataclass(frozen=True, slots=True)
class UploadQuotas:
    """`user`: of each user; `client`: of each `clientId` that uploads name. `service_factor`: how many times as much a
    user may have whose token is a service's, since it uploads for many people.
    """

    store: QuotaStore = field(default_factory=NoQuotas)
    user: Quota = field(default_factory=Quota)
    client: Quota = field(default_factory=Quota)
    service_factor: float = 1.0

    async def reserve(self, file_id: str, request: FileUploadRequested, *, of_service: bool) -> None:
        """Count an upload that is about to begin; again, if it is counted already, does nothing.

        Raises TooManyRequests where a quota is used up, InvalidRequest where the upload alone is more than the quota
        allows; then nothing is counted. Raises Unavailable.
        """
        upload = OpenUpload(file_id, request.max_size_bytes, request.expires_at)
        for number, (holder, quota) in enumerate(held := list(self._held(request, of_service))):
            over = await self.store.reserve(holder, quota, upload)
            if over is not None:
                for before, _ in held[:number]:
                    await self.store.release(before, file_id, 0)
                raise _refusal(over, "client" if holder.startswith("client:") else "user")

    async def give_up(self, file_id: str, request: FileUploadRequested) -> None:
        """Count an upload no more that was reserved and did not begin. Never raises: it runs out by itself."""
        await self._release(file_id, request, 0)

    async def end(self, file_id: str, file: File) -> None:
        """Count an upload no more that has ended; its bytes are those that came. Never raises, as above."""
        await self._release(file_id, file.request, 0 if file.verified is None else file.verified.size)

    async def _release(self, file_id: str, request: FileUploadRequested, stored: int) -> None:
        for holder, _ in self._held(request, False):
            try:
                await self.store.release(holder, file_id, stored)
            except TransientError as error:
                log.warning("an upload counts until it expires", aggregate_id=file_id, error=str(error))

    def _held(self, request: FileUploadRequested, of_service: bool) -> Iterable[tuple[str, Quota]]:
        if self.user.limits:
            yield f"user:{request.user_id}", self.user.times(self.service_factor) if of_service else self.user
        if self.client.limits and request.client_id is not None:
            yield f"client:{request.client_id}", self.client


def _refusal(over: Over, whose: str) -> TooManyRequests | InvalidRequest:
    if over.wait is None:
        why = f"uploads of one {whose} may have {over.most} bytes in 24 hours, all together"
        return InvalidRequest(details=[{"field": "maxSizeBytes", "message": why}])
    wait = max(1, math.ceil(min(over.wait, LONGEST_WAIT).total_seconds()))
    if over.what == "open":
        why = f"Too many open uploads: one {whose} may have {over.most}. Complete or abort some, or wait {wait} s."
    else:
        why = f"Too much to upload: one {whose} may ask for {over.most} bytes in 24 hours. Repeat after {wait} s."
    return TooManyRequests(why, retry_after=wait)
