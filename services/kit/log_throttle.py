"""Foreign loggers that say one thing hundreds of times a second: once every so often is enough, with a count."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

SECONDS = 10.0
"""Of repeated records, one in so many seconds is written."""

HELD_BACK = "held_back"
"""Attribute of a record, and field in the log: how many like it were held back since the last one."""

_REMEMBERED = 1000  # a logger that puts ids into its templates must not fill the memory


@dataclass(slots=True)
class _Repeated:
    until: float
    held_back: int = 0


class Throttle(logging.Filter):
    """Lets through one record in `seconds` of each (logger, level, message template, type of exception).

    The first is written at once. The next one written carries how many were held back before it, as `held_back`.
    Arguments do not make a record another one: what a client says of one broker it says of each of its connections.
    """

    def __init__(self, seconds: float = SECONDS, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._monotonic = monotonic
        self._known: OrderedDict[tuple[str, int, str, str], _Repeated] = OrderedDict()
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is written."""
        failure = record.exc_info[0] if record.exc_info else None
        key = (record.name, record.levelno, str(record.msg), failure.__name__ if failure else "")
        now = self._monotonic()
        with self._lock:
            known = self._known.pop(key, None)
            if known is not None and now < known.until:
                known.held_back += 1
                self._known[key] = known
                return False
            self._known[key] = _Repeated(now + self._seconds)
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        if known is not None and known.held_back:
            setattr(record, HELD_BACK, known.held_back)
        return True
