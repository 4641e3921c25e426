"""`python -m services.events all|http|projector`, and `backfill <projection> <generation> <processes>`, which a
rebuild starts.
"""

from __future__ import annotations

import sys

from services.events.settings import EventsSettings
from services.kit.lifecycle import main
from services.kit.settings import load

USAGE = "usage: python -m services.events all|http|projector\n"


def _main(arguments: list[str]) -> None:
    match arguments:
        case ["backfill", projection, number, processes] if number.isdecimal() and processes.isdecimal():
            from services.events.backfilling import run_backfill

            main(lambda: run_backfill(projection, int(number), int(processes), load(EventsSettings)))
        case ["all" | "http" | "projector" as part]:
            from services.events.app import run

            main(lambda: run(part, load(EventsSettings)))
        case _:
            sys.stderr.write(USAGE)
            sys.exit(64)


if __name__ == "__main__":
    _main(sys.argv[1:])
