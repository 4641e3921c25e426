"""Append-only files of JSON lines: fsynced in groups, or merely written."""

import asyncio
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

PAGE = 4 * 1024 * 1024


class JournalInUse(Exception):
    """Another simulator writes to this state directory."""


class Journal:
    """One line per entry, in the order of `append`; nothing is ever changed, deduplicated or removed.

    A torn last line, left by a crash before its fsync, was never acknowledged to anybody and is cut off when
    the file is opened. With `sync=True`, `append` returns only after the line is on disk; all lines that wait at
    the same time share one fsync, done in a thread; `groups` counts those, `sync_seconds` is the time they took.
    """

    def __init__(self, path: Path, *, sync: bool) -> None:
        self.groups = 0
        self.sync_seconds = 0.0
        self.slowest_sync_seconds = 0.0
        self._sync = sync
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise JournalInUse(f"{path} is used by another simulator: give each its own --state-dir.") from None
        self._cut_torn_line()
        self._waiting: deque[tuple[bytes, asyncio.Future[None]]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._write_groups, name="journal", daemon=True)
        if sync:
            self._thread.start()

    async def append(self, line: bytes) -> None:
        """Write one line (without its line end) and wait until it is on disk. Raises OSError if it cannot be."""
        future = self._loop.create_future()
        self._waiting.append((line, future))
        self._wake.set()
        await future

    def write(self, lines: Iterable[bytes]) -> None:
        """Write lines without fsync: for what is only of interest while the machine runs."""
        os.write(self._file, b"".join(line + b"\n" for line in lines))

    def end(self) -> int:
        """The position after the last line: what `read` gives later begins here."""
        return os.fstat(self._file).st_size

    def read(self, since: int) -> tuple[list[bytes], int]:
        """Whole lines from position `since` (0, or one given by `read` or `end`), about 4 MB, and where to go on."""
        data = os.pread(self._file, PAGE, since)
        whole = data.rfind(b"\n") + 1
        if not whole:
            return [], since
        return data[: whole - 1].split(b"\n"), since + whole

    def close(self) -> None:
        """Write what waits, then close."""
        if self._sync:
            self._stopping = True
            self._wake.set()
            self._thread.join()
        os.close(self._file)

    def _cut_torn_line(self) -> None:
        size = os.fstat(self._file).st_size
        keep = size
        while keep:
            start = max(0, keep - 65536)
            at = os.pread(self._file, keep - start, start).rfind(b"\n")
            if at >= 0:
                keep = start + at + 1
                break
            keep = start
        if keep != size:
            os.ftruncate(self._file, keep)
            os.fsync(self._file)

    def _write_groups(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            stopping = self._stopping  # read before the queue is emptied: nothing is appended after it is set
            group = []
            while self._waiting:
                group.append(self._waiting.popleft())
            if group:
                error = self._write_group(b"".join(line + b"\n" for line, _ in group))
                self._loop.call_soon_threadsafe(_resolve, group, error)
            if stopping:
                return

    def _write_group(self, data: bytes) -> OSError | None:
        end = self.end()
        try:
            self._write_all(data)
            began = time.perf_counter()
            os.fdatasync(self._file)
            took = time.perf_counter() - began
        except OSError as error:
            os.ftruncate(self._file, end)  # none of it was acknowledged
            return error
        self.groups += 1
        self.sync_seconds += took
        self.slowest_sync_seconds = max(self.slowest_sync_seconds, took)
        return None

    def _write_all(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]


def _resolve(group: list[tuple[bytes, asyncio.Future[None]]], error: OSError | None) -> None:
    for _, future in group:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
