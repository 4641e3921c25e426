"""How commands speak: one JSON document with --json, else words and tables for people."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def print_json(value: Any) -> None:
    """`value` as indented JSON; times as RFC 3339."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, default=_plain)
    sys.stdout.write("\n")


def console() -> Console:
    """Where text for people goes. Not to a terminal, lines are not broken at its width."""
    from rich.console import Console

    from services.kit.pipes import say_that_nobody_reads

    made = Console(highlight=False, width=None if sys.stdout.isatty() else _given_width() or 200)
    made.on_broken_pipe = say_that_nobody_reads  # type: ignore[method-assign]  # it would end with status 1
    return made


def _given_width() -> int:
    import os

    value = os.environ.get("COLUMNS", "")
    return int(value) if value.isdecimal() else 0


def table(*columns: str, right: tuple[str, ...] = (), whole: tuple[str, ...] = ()) -> Table:
    """An empty table. `right` names the columns of numbers; they and those of `whole` are not broken. Other long values
    are folded, never cut.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in columns:
        unbroken = name in right or name in whole
        made.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=unbroken)
    return made


def say(text: str) -> None:
    """One line for people."""
    sys.stdout.write(text + "\n")


def refuse(message: str) -> typer.Exit:
    """To be raised: the answer is no, and why."""
    sys.stderr.write(f"mailroom: {message}\n")
    return typer.Exit(1)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before what cannot be taken back, unless `--yes` was given; aborts on no."""
    if not yes:
        typer.confirm(question, abort=True, err=True)


def moment(time: datetime | None) -> str:
    """`2026-11-24 10:25:00`, UTC."""
    return "" if time is None else time.strftime("%Y-%m-%d %H:%M:%S")


def span(seconds: float | None) -> str:
    """`1 h 02 min`, `3 min 20 s`, `4 s`; `?` for None."""
    if seconds is None:
        return "?"
    whole = int(timedelta(seconds=seconds).total_seconds() + 0.5)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        from contracts.base import format_time

        return format_time(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
