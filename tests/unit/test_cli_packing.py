"""Packing files for the way up."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from services.cli.packing import packed
from services.kit.errors import PermanentError
from services.kit.gzip_streams import CHUNK

TEXT = b"".join(b"%d;Ann;%d\n" % (n, n * n) for n in range(5000))


async def pack(data: bytes, folder: Path) -> bytes | None:
    """The stream that `data` becomes; None where it stays as it is."""
    source, target = folder / "source", folder / "target.gz"
    target.unlink(missing_ok=True)
    source.write_bytes(data)
    moved: list[int] = []
    if not await packed(source, target, moved.append):
        assert [each.name for each in folder.iterdir()] == ["source"], "nothing is left"
        return None
    assert sum(moved) == len(data)
    assert sorted(each.name for each in folder.iterdir()) == ["source", "target.gz"]
    return target.read_bytes()


async def test_one_file_always_gives_one_stream(tmp_path: Path) -> None:
    data = TEXT * 40
    assert len(data) > 2 * CHUNK
    first = await pack(data, tmp_path)
    assert first is not None
    assert gzip.decompress(first) == data
    assert await pack(data, tmp_path) == first


@pytest.mark.parametrize(
    "data",
    [b"", b"a" * 1023, os.urandom(5000), os.urandom(2 * CHUNK), b"a" * CHUNK + os.urandom(60 * CHUNK)],
    ids=["empty", "small", "noise", "much noise", "only at the beginning"],
)
async def test_what_does_not_pay_stays_as_it_is(data: bytes, tmp_path: Path) -> None:
    assert await pack(data, tmp_path) is None


async def test_a_file_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    source, target = tmp_path / "log", tmp_path / "log.gz"
    source.write_bytes(TEXT)

    def grow(_: int) -> None:
        if source.stat().st_size < 2 * len(TEXT):
            with source.open("ab") as more:
                more.write(TEXT)

    with pytest.raises(PermanentError, match="changes"):
        await packed(source, target, grow)
    assert [each.name for each in tmp_path.iterdir()] == ["log"]


async def test_without_room_it_goes_as_it_is(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(TEXT)
    assert not await packed(source, tmp_path / "no folder" / "target.gz", lambda _: None)
