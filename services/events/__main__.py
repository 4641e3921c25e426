"""`python -m services.events all|http|projector`, and `backfill <generation>`, which a rebuild starts by itself."""

from __future__ import annotations

import sys
from typing import get_args

from services.events.app import Part, run, run_backfill
from services.events.settings import EventsSettings
from services.kit.lifecycle import main
from services.kit.settings import load

USAGE = "usage: python -m services.events all|http|projector\n"


def _main(arguments: list[str]) -> None:
    match arguments:
        case ["backfill", number] if number.isdecimal():
            main(lambda: run_backfill(int(number), load(EventsSettings)))
        case [part] if part in get_args(Part):
            main(lambda: run(part, load(EventsSettings)))  # type: ignore[arg-type]  # looked up in the line above
        case _:
            sys.stderr.write(USAGE)
            sys.exit(64)


if __name__ == "__main__":
    _main(sys.argv[1:])
