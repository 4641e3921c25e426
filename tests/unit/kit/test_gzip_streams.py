"""Gzip streams of others: whole and right, or found out."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit.errors import PermanentError
from services.kit.gzip_streams import CHUNK, Unpacking

TEXT = b"".join(b"%d;Ann;%d\n" % (n, n * n) for n in range(5000))


def unpacked(stream: bytes, said: int, step: int) -> tuple[bytes, bool]:
    unpacking = Unpacking(said)
    pieces = [stream[n : n + step] for n in range(0, len(stream), step)]
    data = b"".join(part for piece in pieces for part in unpacking.take(piece))
    return data, unpacking.is_whole and unpacking.size == said


@given(st.binary(max_size=3000), st.integers(1, 500))
def test_what_comes_in_any_pieces_is_what_went(data: bytes, step: int) -> None:
    assert unpacked(gzip.compress(data), len(data), step) == (data, True)


def test_a_bomb_is_never_unpacked() -> None:
    bomb = gzip.compress(b"\0" * (64 << 20))
    data, whole = unpacked(bomb, 1000, 4096)
    assert (len(data), whole) == (1001, False)


def test_what_is_not_the_stream_is_found_out() -> None:
    stream = gzip.compress(TEXT)
    for wrong in (stream[:-1], stream + b"x", gzip.compress(TEXT[:-1]), stream * 2):
        assert not unpacked(wrong, len(TEXT), 1000)[1]
    for broken in (b"no stream", stream[:-8] + b"\0" * 8):
        with pytest.raises(PermanentError, match="decoded"):
            unpacked(broken, len(TEXT), 1000)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK])
def test_the_end_of_a_piece_is_not_the_end_of_the_stream(size: int) -> None:
    data = bytes(size)
    assert unpacked(gzip.compress(data), size, CHUNK) == (data, True)
