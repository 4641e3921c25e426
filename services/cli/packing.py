"""Files made smaller on their way: a gzip stream (RFC 1952) goes up and lies in S3, and the file comes down again."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from services.kit.errors import PermanentError

LEAST: Final = 1024
"""Bytes of the smallest file that is worth it."""

PAYS: Final = 0.9
"""A stream above this share of its file is not worth what decoding costs everybody who reads it."""

CHUNK: Final = 1 << 20
SAMPLE: Final = 1 << 20
"""So much of a file is tried before all of it is."""

_LEVEL: Final = 6
_GZIP: Final = 31
"""For zlib: gzip's header, without a time or a name, so that one file always gives one stream."""


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
    stream, total = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP), 0
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


class Unpacking:
    """Decodes a stream as it comes. Never gives more than `most` bytes and one, so that whoever declared fewer is found
    out and not believed.
    """

    def __init__(self, most: int) -> None:
        self._stream, self._left = zlib.decompressobj(_GZIP), most + 1
        self.size = 0

    def take(self, data: bytes) -> Iterator[bytes]:
        """What these bytes hold, in pieces. Raises PermanentError `broken` where they are no stream, or the checksum
        that it carries is another one.
        """
        while data and self._left and not self._stream.eof:
            try:
                piece = self._stream.decompress(data, min(CHUNK, self._left))
            except zlib.error as error:
                raise PermanentError("broken", f"what came cannot be decoded: {error}") from error
            data = self._stream.unconsumed_tail
            self._left -= len(piece)
            self.size += len(piece)
            yield piece

    @property
    def is_whole(self) -> bool:
        """Whether the stream has ended where it should."""
        return self._stream.eof and not self._stream.unused_data
