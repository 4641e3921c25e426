"""When a provider is left alone for a while: one circuit per account.

Closed: mail goes. A refusal that means the account, a connection that does not stand, throttling, or a run of calls
without any answer opens it for a pause that doubles as long as nothing gets through. Then one attempt is let through,
and what comes of it decides; after a yes two, four, eight, so that a provider that has just come back is not buried. A
refusal that nobody knows is that mail's own until several mails have met one. No mail's budget is spent on the
account's troubles (throttling apart, which is counted by the decider). Pure: the caller gives the time (seconds on the
monotonic clock).

Processes share what they know of an account (`services/email/entrypoints/provider_watch.py`): where they do, a circuit
does not try again by itself, but when `probe` is told that it is this process's turn.
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


STEPS_END = 32
"""So many attempts at a time are no step any more: the circuit is closed as before."""


@dataclass(slots=True)
class Circuit:
    """Closed while `open_until` is None and nothing is being tried. `shared`: see the module."""

    open_until: float | None = None
    reason: str = ""
    shared: bool = False
    _pause: float = 0.0
    _step: int = 0
    """How many attempts may be planned until the next answer; 0 = any number."""

    _trying: bool = False
    _silent: int = 0
    _met_unlisted: set[str] = field(default_factory=set)

    def allowance(self, now: float) -> int:
        """How many attempts may be planned now: none, a few to try with, or any number."""
        if self.open_until is not None:
            if now < self.open_until or self.shared:
                return 0
            self.probe()
        if self._step:
            return 0 if self._trying else self._step
        return _NO_LIMIT

    def probe(self) -> None:
        """Let one attempt through, which decides."""
        self.open_until, self._step, self._trying = None, 1, False

    def planned(self) -> None:
        """Attempts are on their way; while a few try, the next answer decides."""
        self._trying = self._step > 0

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
                # A late answer of a call from before it opened: it works again, as far as anybody knows.
                self._on(self._step * 2 if self._step else int(self.open_until is not None))
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
                if self._step == 1 or self._silent >= SILENCE_LIMIT:
                    self._open("silence", "noAnswer", 0.0, now)
                else:
                    self._trying = False  # none of the step may be answered any more: another mail decides
            case NotCalled():
                self._trying = False

    @property
    def is_open(self) -> bool:
        """Whether nothing gets through, as far as is known."""
        return self.open_until is not None or self.trying_one

    @property
    def trying_one(self) -> bool:
        """Whether one attempt is let through, and nothing has come of it yet."""
        return self.open_until is None and self._step == 1

    @property
    def is_tried(self) -> bool:
        """Whether an attempt that decides is under way."""
        return self._trying

    def shut(self, seconds: float, reason: str, now: float) -> None:
        """Others found it so: leave the provider alone for that long."""
        self.open_until, self.reason = now + seconds, reason
        self._step, self._trying = 0, False

    def resume(self) -> None:
        """Others found that it works again. Load comes back in steps."""
        if self.open_until is not None:
            self._on(1)

    def _on(self, step: int) -> None:
        self.open_until, self._trying = None, False
        self._step = step if 0 < step <= STEPS_END else 0
        if not self._step:
            self.reason, self._pause = "", 0.0

    def _open(self, kind: str, code: str, asked: float, now: float) -> None:
        if self.open_until is not None:
            return  # calls that were under way when it opened tell nothing new
        doubled = self._pause * 2 if self._step == 1 else 0.0
        self._pause = min(LONGEST_PAUSE[kind], max(FIRST_PAUSE[kind], doubled))
        self.open_until, self.reason = now + max(self._pause, asked), code
        self._step, self._trying = 0, False
