"""Gzip streams (RFC 1952), decoded without believing what whoever made them says."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from services.kit.errors import PermanentError

WINDOW: Final = 31
"""For zlib: a gzip header, the largest window."""

CHUNK: Final = 1 << 20


class Unpacking:
    """Decodes a stream as it comes. Never gives more than `most` bytes and one, so that whoever declared fewer is found
    out and not believed.
    """

    def __init__(self, most: int) -> None:
        self._stream, self._left = zlib.decompressobj(WINDOW), most + 1
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
