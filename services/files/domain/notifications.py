"""What a notification becomes: the values that the translator works with."""

from __future__ import annotations

from dataclasses import dataclass

from contracts.envelope import Envelope


@dataclass(frozen=True, slots=True)
class Translation:
    """The facts of one notification, or why there are none."""

    facts: tuple[Envelope, ...]
    why_none: str | None = None
