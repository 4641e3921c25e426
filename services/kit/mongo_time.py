"""Time limits on what MongoDB reads for one HTTP answer, and what it means to exceed one.

The limit is MongoDB's own (`maxTimeMS`): the server stops the query, so that nothing goes on running for a caller who
has gone. A limit of ours alone would leave it running.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from services.kit.errors import TooMuch, Unavailable
from services.kit.mongo import foreign_errors

READ_SECONDS: Final = 5.0
"""What reading one page, or one thing by its key, may take."""

_MAX_TIME_EXPIRED: Final = 50


def milliseconds(seconds: float) -> int:
    """A time limit as MongoDB takes it: at least 1, since 0 means none."""
    return max(1, int(seconds * 1000))


@contextmanager
def in_time(what: str, seconds: float) -> Iterator[None]:
    """`foreign_errors`, for a query of the caller's choice: it raises TooMuch where the server stopped it.

    `what` was asked for, for people: "the page". For a query by key use `foreign_errors`: there the server is
    slow, and the caller cannot ask for less.
    """
    try:
        with foreign_errors():
            yield
    except Unavailable as error:
        if getattr(error.__cause__, "code", None) == _MAX_TIME_EXPIRED:
            raise TooMuch(f"{what} cannot be read within {seconds:g} s") from None
        raise
