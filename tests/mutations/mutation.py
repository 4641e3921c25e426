"""What a mutation is: the smallest change to the code that breaks an invariant, and the tests that must notice."""

from __future__ import annotations

from dataclasses import dataclass
from string import ascii_lowercase


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change of one place.

    Attributes:
        name: invariant and letter, for instance `1a`; after `1z` comes `1za`.
        breaks: what the changed code does, in one sentence.
        file: path in the repository.
        old: text that stands exactly once in the file.
        new: what takes its place.
        tests: `file::test` without parameters; each of them must fail.
    """

    name: str
    breaks: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def invariant(self) -> int:
        """Which of the invariants of `docs/invariants.md` it breaks."""
        return int(self.name.rstrip(ascii_lowercase))
