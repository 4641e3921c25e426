"""The log that judges the tests: nothing acknowledged is lost, nothing is merged."""

import asyncio
from pathlib import Path

import pytest

from deploy.local.simulator.journal import Journal, JournalInUse


async def test_lines_are_on_disk_when_append_returns(tmp_path: Path) -> None:
    path = tmp_path / "log"
    journal = Journal(path, sync=True)
    await journal.append(b'{"n":1}')
    assert path.read_bytes() == b'{"n":1}\n'
    journal.close()


async def test_nothing_is_deduplicated_and_order_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "log"
    journal = Journal(path, sync=True)
    lines = [b"%d" % (number // 3) for number in range(600)]
    await asyncio.gather(*(journal.append(line) for line in lines))
    journal.close()
    assert path.read_bytes().split() == lines


async def test_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log", sync=True)
    await journal.append(b"one")
    first, after = journal.read(0)
    assert journal.read(after) == ([], after)
    await journal.append(b"two")
    assert first == [b"one"]
    assert journal.read(after) == ([b"two"], journal.end())
    journal.close()


async def test_a_torn_line_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"n":1}\n{"n":2')
    journal = Journal(path, sync=True)
    await journal.append(b'{"n":3}')
    journal.close()
    assert path.read_bytes() == b'{"n":1}\n{"n":3}\n'


async def test_a_file_that_is_one_long_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 200_000)
    journal = Journal(path, sync=False)
    assert journal.end() == 0
    journal.close()


async def test_two_simulators_cannot_share_a_log(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "log", sync=True)
    with pytest.raises(JournalInUse, match="--state-dir"):
        Journal(tmp_path / "log", sync=True)
    journal.close()
    Journal(tmp_path / "log", sync=False).close()


async def test_close_writes_what_waits(tmp_path: Path) -> None:
    path = tmp_path / "log"
    journal = Journal(path, sync=True)
    waiting = asyncio.ensure_future(journal.append(b"last"))
    await asyncio.sleep(0)
    journal.close()
    await waiting
    assert path.read_bytes() == b"last\n"
