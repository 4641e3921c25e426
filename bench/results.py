"""What a benchmark found: printed, kept as JSON, and written into its section of `bench/README.md`.

A benchmark is a module `bench.<name>` with `def run(quick: bool) -> Result`. It starts what it needs, runs its
baseline in the same run, and raises `BenchFailed` with what to do when it cannot measure.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

FOLDER = Path(__file__).parent
README = FOLDER / "README.md"
RESULTS = FOLDER / "results"


class BenchFailed(Exception):
    """It could not be measured, or what was measured did wrong; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What was aimed at and what came of it. `value` and `target` are in `unit`."""

    what: str
    value: float
    target: float
    unit: str = ""
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the aim was reached."""
        return self.value <= self.target if self.at_most else self.value >= self.target

    def line(self) -> str:
        """One line for people."""
        sign = "≤" if self.at_most else "≥"
        verdict = "met" if self.met else "MISSED"
        return f"{self.what}: {_number(self.value)}{self.unit} (aim {sign} {_number(self.target)}{self.unit}) {verdict}"


@dataclass(frozen=True, slots=True)
class Table:
    """Figures for people. The first column is text."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | float | int]]

    def markdown(self) -> str:
        """As a table of GitHub's Markdown."""
        lines = ["| " + " | ".join(self.header) + " |", "|---|" + "---:|" * (len(self.header) - 1)]
        lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in self.rows]
        return f"{self.title}\n\n" + "\n".join(lines)

    def plain(self) -> str:
        """As aligned columns."""
        cells = [list(self.header), *([_cell(cell) for cell in row] for row in self.rows)]
        widths = [max(len(row[column]) for row in cells) for column in range(len(self.header))]
        lines = [
            "  ".join(
                cell.ljust(width) if column == 0 else cell.rjust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            for row in cells
        ]
        return f"{self.title}\n" + "\n".join(f"  {line}" for line in lines)


@dataclass(frozen=True, slots=True)
class Result:
    """All that one benchmark found. `data` is everything measured, for JSON."""

    name: str
    machine: dict[str, Any]
    aims: Sequence[Aim]
    tables: Sequence[Table]
    notes: Sequence[str] = ()
    data: dict[str, Any] = field(default_factory=dict)

    def show(self) -> str:
        """For a terminal."""
        parts = [aim.line() for aim in self.aims]
        parts += ["\n" + table.plain() for table in self.tables]
        parts += ["", *self.notes] if self.notes else []
        return "\n".join(parts)

    def keep(self) -> None:
        """Write `results/<name>.json` and the section of the README."""
        RESULTS.mkdir(exist_ok=True)
        aims = [{"what": a.what, "value": a.value, "aim": a.target, "unit": a.unit, "met": a.met} for a in self.aims]
        found = {"name": self.name, "machine": self.machine, "aims": aims, **self.data}
        (RESULTS / f"{self.name}.json").write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        parts = ["\n".join(f"- {aim.line()}" for aim in self.aims)]
        parts += [table.markdown() for table in self.tables]
        parts += ["\n".join(f"- {note}" for note in self.notes)] if self.notes else []
        parts.append(f"Measured {self.machine['at']} at commit {self.machine['commit']}: {describe(self.machine)}.")
        _write_section(self.name, "\n\n".join(parts))


def describe(machine: dict[str, Any]) -> str:
    """A machine in one line."""
    return (
        f"{machine['cores']} cores ({machine['processor']}), {machine['memoryGb']} GB, {machine['system']}, "
        f"Python {machine['python']}, load before {machine['loadBefore']}"
    )


def percentile(values: Sequence[float], hundredths: int) -> float:
    """By linear interpolation; 0.0 of nothing."""
    if len(values) < 2:
        return values[0] if values else 0.0
    return quantiles(values, n=100, method="inclusive")[hundredths - 1]


def _write_section(name: str, text: str) -> None:
    """Replace what stands between the markers of `name` in the README; BenchFailed if they are not there."""
    begin, end = f"<!-- results of {name}: written by the benchmark -->", f"<!-- end of {name} -->"
    readme = README.read_text()
    if begin not in readme or end not in readme:
        raise BenchFailed(f"bench/README.md has no section for {name}: it needs the lines\n{begin}\n{end}")
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    README.write_text(pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", readme))


def _cell(value: str | float) -> str:
    return value if isinstance(value, str) else _number(value)


def _number(value: float) -> str:
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
