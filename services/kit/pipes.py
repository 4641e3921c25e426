"""Commands in a pipe whose reader has had enough (`mailroom files ls | head`): they end quietly, as others do."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NoReturn


@contextmanager
def until_nobody_reads() -> Iterator[None]:
    """A whole command. A reader that is gone ends it with exit status 0 and without a word; a pipe that broke
    elsewhere, a connection for instance, is an error like any other.
    """
    try:
        yield
    except BrokenPipeError:
        if not reader_is_gone():
            raise
        raise SystemExit(0) from None
    finally:
        for stream in (sys.stdout, sys.stderr):  # what is left in a buffer would be tried once more, and told of
            try:
                stream.flush()
            except BrokenPipeError:
                _let_go(stream)


def reader_is_gone() -> bool:
    """Whether nobody reads what this process prints."""
    return any(_is_gone(stream) for stream in (sys.stdout, sys.stderr))


def say_that_nobody_reads() -> NoReturn:
    """For libraries that would end the process by themselves."""
    raise BrokenPipeError


def _is_gone(stream: IO[str]) -> bool:
    poll = select.poll()
    try:
        poll.register(stream, 0)
    except (ValueError, OSError):  # closed, or no file at all
        return False
    return any(state & select.POLLERR for _, state in poll.poll(0))


def _let_go(stream: IO[str]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
