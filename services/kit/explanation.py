"""What a raw notification would become, for people at a terminal and for tests."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Explanation:
    """CloudEvents as JSON text, one each, or a sentence that says why there are none (`refused`: it is an error)."""

    lines: tuple[str, ...]
    why_none: str | None = None
    refused: bool = False
