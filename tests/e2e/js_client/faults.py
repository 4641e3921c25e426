"""What goes wrong on demand between the browser and the stack, and what was asked."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Literal

Doing = Literal["cut", "hold", "lost", "refuse-early", "spoil"] | int
"""cut: half of the body (of a download: of the answer) is passed on, then both connections are reset. hold: nothing is
read until it is released. lost: all is done, and the connection closed without the answer. refuse-early: 403 and the
connection closed before the body is read, as S3 may. spoil: the answer's first byte is another one. A number: that
status, with nothing done.
"""


@dataclass(eq=False)
class Fault:
    """Of the next `times` requests at `at` (`put`, `post` and `get` to S3, or an API path), or only those of `part`."""

    at: str
    do: Doing
    part: int | None = None
    times: int = 1
    released: threading.Event = field(default_factory=threading.Event)
    dropped: bool = False


@dataclass(frozen=True)
class Asked:
    """One request, as far as tests look at it."""

    at: str
    part: int | None = None


class Faults:
    """Shared by all connections of the proxy. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planned: list[Fault] = []
        self._open = 0
        self.asked: list[Asked] = []
        self.begun: list[str] = []
        """The fileId of each upload that the service answered with, whether the browser heard it or not."""
        self.forms: list[list[str]] = []
        """The names of the fields of each form, in their order."""
        self.most_at_once = 0

    def plan(self, at: str, do: Doing, part: int | None = None, times: int = 1) -> Fault:
        """From now on."""
        fault = Fault(at, do, part, times)
        with self._lock:
            self._planned.append(fault)
        return fault

    def meet(self, at: str, part: int | None = None) -> Fault | None:
        """Note a request, and give the fault that is meant for it."""
        with self._lock:
            self.asked.append(Asked(at, part))
            for fault in self._planned:
                if fault.at == at and fault.part in (None, part) and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None

    def clear(self) -> None:
        """Nothing goes wrong any more, what is held is cut, and what was asked is forgotten."""
        with self._lock:
            for fault in self._planned:
                fault.dropped = True
                fault.released.set()
            self._planned.clear()
            self.asked.clear()
            self.begun.clear()
            self.forms.clear()
            self.most_at_once = 0

    def release(self) -> None:
        """Nothing goes wrong any more, and what is held goes on."""
        with self._lock:
            for fault in self._planned:
                fault.times = 0
                fault.released.set()

    def count(self, at: str, part: int | None = None) -> int:
        """How many requests there were."""
        with self._lock:
            return sum(1 for each in self.asked if each.at == at and part in (None, each.part))

    def parts(self) -> list[int]:
        """The parts that were sent, in this order, repeats included."""
        with self._lock:
            return [each.part for each in self.asked if each.at == "put" and each.part is not None]

    def begin(self) -> None:
        """A transfer begins."""
        with self._lock:
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)

    def end(self) -> None:
        """It ends."""
        with self._lock:
            self._open -= 1
