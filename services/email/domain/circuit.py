"""When a provider is left alone for a while: one circuit per account.

Closed: mail goes. A refusal that means the account, a connection that does not stand, throttling, or a run of calls
without any answer opens it for a pause that doubles as long as nothing gets through. Then one attempt is let through,
and what comes of it decides. A refusal that nobody knows is that mail's own until several mails have met one. No mail's
budget is spent on the account's troubles (throttling apart, which is counted by the decider). Pure: the caller gives
the time (seconds on the monotonic clock).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from services.email.domain.outcomes import Accepted, NotCalled, Outcome, Rejected, Unknown

FIRST_PAUSE = {"account": 5.0, "unreachable": 0.5, "throttle": 0.5, "silence": 5.0}
LONGEST_PAUSE = {"account": 300.0, "unreachable": 5.0, "throttle": 3.0, "silence": 60.0}

SILENCE_LIMIT = 8
"""So many calls in a row without an answer open the circuit: each is a mail whose fate nobody knows."""

UNLISTED_LIMIT = 3
"""Unlisted refusals of so many different mails, with nothing taken in between, mean the account."""

_NO_LIMIT = 1_000_000


@dataclass(slots=True)
class Circuit:
    """Closed while `open_until` is None and nothing is being tried."""

    open_until: float | None = None
    reason: str = ""
    _pause: float = 0.0
    _half_open: bool = False
    _trying: bool = False
    _silent: int = 0
    _met_unlisted: set[str] = field(default_factory=set)

    def allowance(self, now: float) -> int:
        """How many attempts may be planned now: none, one to try with, or any number."""
        if self.open_until is not None:
            if now < self.open_until:
                return 0
            self.open_until, self._half_open, self._trying = None, True, False
        if self._half_open:
            return 0 if self._trying else 1
        return _NO_LIMIT

    def planned(self) -> None:
        """An attempt is on its way; half open it is the one that decides."""
        self._trying = self._half_open

    def may_call(self) -> bool:
        """Whether an attempt that was planned earlier may still be called: not since the circuit opened."""
        return self.open_until is None

    def charged(self, outcome: Outcome, message_id: str) -> Outcome:
        """The outcome of a call for this mail as it is to be recorded and `heard`: an unlisted refusal means the
        account once `UNLISTED_LIMIT` different mails have met one.
        """
        if not isinstance(outcome, Rejected) or not outcome.unlisted:
            return outcome
        if len(self._met_unlisted) < UNLISTED_LIMIT:
            self._met_unlisted.add(message_id)
        if len(self._met_unlisted) < UNLISTED_LIMIT:
            return outcome
        return replace(outcome, kind="account", unlisted=False)

    def heard(self, outcome: Outcome, now: float) -> None:
        """What came of a call, as `charged` says it."""
        match outcome:
            case Accepted() | Rejected(kind="mail"):
                self.open_until, self.reason, self._pause = None, "", 0.0
                self._half_open = self._trying = False
                self._silent = 0
                self._met_unlisted.clear()
            case Rejected(unlisted=True):
                self._silent = 0
                self._trying = False  # neither health nor the account's trouble: half open, another mail decides
            case Rejected(kind=kind, code=code, retry_after=asked):
                self._silent = 0
                self._open(kind, code, asked or 0.0, now)
            case Unknown():
                self._silent += 1
                if self._half_open or self._silent >= SILENCE_LIMIT:
                    self._open("silence", "noAnswer", 0.0, now)
            case NotCalled():
                self._trying = False

    @property
    def is_open(self) -> bool:
        """Whether nothing gets through, as far as is known."""
        return self.open_until is not None or self._half_open

    def _open(self, kind: str, code: str, asked: float, now: float) -> None:
        if self.open_until is not None and not self._half_open:
            return  # calls that were under way when it opened tell nothing new
        doubled = self._pause * 2 if self._half_open else 0.0
        self._pause = min(LONGEST_PAUSE[kind], max(FIRST_PAUSE[kind], doubled))
        self.open_until, self.reason = now + max(self._pause, asked), code
        self._half_open = self._trying = False
