"""The bytes of files that mails attach, read from the buckets of the files service, by version and within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from services.email.adapters.objects import Objects
from services.email.domain.files import Usable
from services.kit.clock import Clock
from services.kit.errors import PermanentError, TransientError
from services.kit.gzip_streams import Unpacking


class S3FileBytes:
    """A `FileBytes`. `s3` is an entered `kit.aws.s3_client` whose account may read versions of those buckets."""

    def __init__(self, s3: Any, clock: Clock) -> None:
        self._s3, self._clock = s3, clock
        self._buckets: dict[str, Objects] = {}

    async def read_many(self, files: Sequence[Usable]) -> dict[str, bytes | TransientError]:
        """Exactly these versions; see the port. How long S3 may take for one is said in `objects`."""
        found = await asyncio.gather(*(self._read(file) for file in files))
        return {file.file_id: data for file, data in zip(files, found, strict=True) if data is not None}

    async def _read(self, file: Usable) -> bytes | TransientError | None:
        objects = self._buckets.setdefault(file.bucket, Objects(self._s3, file.bucket, self._clock))
        try:
            stored = await objects.get_version(file.key, file.version_id, file.size)
        except TransientError as error:
            return error
        if stored is None or file.content_encoding is None:
            return stored
        return await asyncio.to_thread(_decoded, stored, file.carried)


def _decoded(stored: bytes, size: int) -> bytes | None:
    """The contents of a gzip stream, if they are `size` bytes and their checksum is right; never more are decoded."""
    unpacking = Unpacking(size)
    try:
        data = b"".join(unpacking.take(stored))
    except PermanentError:
        return None
    return data if unpacking.is_whole and unpacking.size == size else None
