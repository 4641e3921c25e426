"""Files made smaller on their way: a gzip stream (RFC 1952) goes up and lies in S3, and the file comes down again."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from services.kit.errors import PermanentError
from services.kit.gzip_streams import CHUNK, WINDOW

LEAST: Final = 1024
"""Bytes of the smallest file that is worth it."""

PAYS: Final = 0.9
"""A stream above this share of its file is not worth what decoding costs everybody who reads it."""

SAMPLE: Final = 1 << 20
"""So much of a file is tried before all of it is."""

_LEVEL: Final = 6


async def packed(source: Path, target: Path, moved: Callable[[int], None]) -> bool:
    """Write `source` as a gzip stream to `target`, which appears once it is whole; False, and no file, where that does
    not pay or there is no room for it. `moved` is told how many bytes of the file were read. Raises OSError where the
    file cannot be read, PermanentError `changed` where it changes meanwhile.
    """
    size = await asyncio.to_thread(_size_if_it_pays, source)
    if size is None:
        return False
    partial = target.with_suffix(".part")
    try:
        with source.open("rb") as file:
            read = await _pack(file.read, partial, moved)
        if read is None:
            return False
        if read != size:
            raise PermanentError("changed", f"{source} changes while it is read: {size} bytes became {read}")
        return _kept(partial, target, size * PAYS)
    finally:
        partial.unlink(missing_ok=True)


async def _pack(read: Callable[[int], bytes], partial: Path, moved: Callable[[int], None]) -> int | None:
    """How many bytes were packed; None where they could not be written."""
    stream, total = zlib.compressobj(_LEVEL, zlib.DEFLATED, WINDOW), 0  # without a time or a name: one file, one stream
    try:
        with partial.open("wb") as out:
            while data := await asyncio.to_thread(read, CHUNK):
                out.write(await asyncio.to_thread(stream.compress, data))
                total += len(data)
                moved(len(data))
            out.write(stream.flush())
    except OSError:
        return None
    return total


def _size_if_it_pays(source: Path) -> int | None:
    """The bytes of a file whose beginning becomes smaller; None for any other."""
    size = source.stat().st_size
    with source.open("rb") as file:
        sample = file.read(SAMPLE)
    return size if size >= LEAST and len(zlib.compress(sample, _LEVEL)) <= len(sample) * PAYS else None


def _kept(partial: Path, target: Path, most: float) -> bool:
    if partial.stat().st_size > most:
        return False
    partial.replace(target)
    return True
