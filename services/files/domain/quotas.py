"""How much may be uploaded for somebody: uploads that are open at once, and bytes asked for in 24 hours. Pure.

The bytes are a bucket that a quota's worth of bytes flows out of in 24 hours, evenly. What was asked for flows in, and
what did not come flows back when the upload ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

WINDOW: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Quota:
    """What one user or one client may have. None = without a limit."""

    open: int | None = None
    bytes: int | None = None

    @property
    def limits(self) -> bool:
        """Whether it limits anything."""
        return self.open is not None or self.bytes is not None

    def times(self, factor: float) -> Quota:
        """As many times as much."""
        return Quota(
            None if self.open is None else int(self.open * factor),
            None if self.bytes is None else int(self.bytes * factor),
        )


@dataclass(frozen=True, slots=True)
class Over:
    """Why an upload may not begin.

    Attributes:
        what: which of the two is used up.
        most: what the quota allows of it.
        wait: until it may; None where it never may: it is larger than the whole quota.
    """

    what: Literal["open", "bytes"]
    most: int
    wait: timedelta | None


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """An upload that has begun. It counts until it ends, or until `until`, when no bytes can come any more."""

    file_id: str
    size: int
    until: datetime


@dataclass(frozen=True, slots=True)
class Usage:
    """What one user or one client has, at a time. `used`: bytes in the bucket."""

    at: datetime
    open: tuple[OpenUpload, ...] = ()
    used: float = 0.0

    def later(self, quota: Quota, now: datetime) -> Usage:
        """At `now`, which may be any time from `at` on."""
        flowed = 0.0 if quota.bytes is None else quota.bytes * (max(timedelta(), now - self.at) / WINDOW)
        still = tuple(each for each in self.open if each.until > now)
        return Usage(max(self.at, now), still, max(0.0, self.used - flowed))

    def over(self, quota: Quota, size: int) -> Over | None:
        """What stands against one more upload of `size` bytes now."""
        if quota.bytes is not None and size > quota.bytes:
            return Over("bytes", quota.bytes, None)
        if quota.open is not None and len(self.open) >= quota.open:
            first = min((each.until for each in self.open), default=self.at)
            return Over("open", quota.open, first - self.at)
        if quota.bytes is not None and self.used + size > quota.bytes:
            return Over("bytes", quota.bytes, WINDOW * ((self.used + size - quota.bytes) / quota.bytes))
        return None

    def holds(self, file_id: str) -> bool:
        """Whether this upload is open."""
        return any(each.file_id == file_id for each in self.open)

    def begun(self, upload: OpenUpload, quota: Quota) -> Usage:
        """With one more upload."""
        used = self.used if quota.bytes is None else self.used + upload.size
        return replace(self, open=(*self.open, upload), used=used)

    def ended(self, file_id: str, stored: int) -> Usage:
        """Without an upload of which `stored` bytes came."""
        back = sum(each.size - stored for each in self.open if each.file_id == file_id)
        still = tuple(each for each in self.open if each.file_id != file_id)
        return replace(self, open=still, used=max(0.0, self.used - back))
