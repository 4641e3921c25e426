"""As much as fits: what of a sequence is taken where not all of it can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")
Why = TypeVar("Why")


def most_of(
    sequence: Sequence[T], objection: Callable[[Sequence[T]], Why | None]
) -> tuple[list[T], list[tuple[T, Why]]]:
    """What is taken of `sequence`, and what is left out of it with the objection to it. Both in its order.

    A function of its arguments alone: runs are taken whole where they fit to what was taken before them, else by
    halves. So each that is left out does not fit to those taken before it; one of n costs about 2·log2(n) questions.

    Args:
        sequence: what there is.
        objection: why these cannot be taken together; None = they can. Never asked about nothing.
    """
    taken: list[T] = []
    left: list[tuple[T, Why]] = []

    def take(run: Sequence[T]) -> None:
        why = objection([*taken, *run])
        if why is None:
            taken.extend(run)
        elif len(run) == 1:
            left.append((run[0], why))
        else:
            middle = len(run) // 2
            take(run[:middle])
            take(run[middle:])

    if sequence:
        take(sequence)
    return taken, left
