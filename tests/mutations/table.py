"""The tables of `docs/invariants.md`: `python -m tests.mutations.table` writes them into the page."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

from tests.mutations.catalogue import MUTATIONS
from tests.mutations.mutation import Mutation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "invariants.md"


def page(text: str) -> str:
    """`text` with every table between its marks as the catalogue has it."""
    for invariant in sorted({each.invariant for each in MUTATIONS}):
        begin, end = f"<!-- mutations of {invariant} -->", f"<!-- end of {invariant} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page has no place for the mutations of invariant {invariant}")
        text = f"{before}{begin}\n{table(invariant)}{end}{after}"
    return text


def table(invariant: int) -> str:
    """The mutations of one invariant as Markdown."""
    lines = ["| | the change | noticed by |", "|---|---|---|"]
    lines += [
        f"| {each.name} | {each.breaks}<br>`{each.file}`: {_change(each)} | {'<br>'.join(map(_test, each.tests))} |"
        for each in MUTATIONS
        if each.invariant == invariant
    ]
    return "\n".join(lines) + "\n"


def _change(mutation: Mutation) -> str:
    compared = list(difflib.ndiff(mutation.old.splitlines(), mutation.new.splitlines()))
    gone = [line[2:].strip() for line in compared if line.startswith("- ")]
    new = [line[2:].strip() for line in compared if line.startswith("+ ")]
    if not new:
        return f"without {_code(gone)}"
    return f"{_code(gone)} → {_code(new)}" if gone else f"with {_code(new)}"


def _code(lines: list[str]) -> str:
    return " ".join("`" + line.replace("|", "\\|") + "`" for line in lines)


def _test(name: str) -> str:
    file, _, test = name.partition("::")
    return f"`{file}` `{test}`"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    sys.exit(0)
