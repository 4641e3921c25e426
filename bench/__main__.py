"""`python -m bench [names] [--quick]`: run benchmarks, each beside its baseline; all of them by default.

Each prints its figures and writes `bench/results/<name>.json` and its section of `bench/README.md`. With `--quick`
everything is small, to see that it works: such figures say little, are only printed, and nothing is written.
"""

import argparse
import importlib
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

from bench.measure import machine
from bench.results import BenchFailed, Result, describe
from deploy.local.site import StackError
from services.kit.pipes import until_nobody_reads

NAMES = (
    "sends",
    "freshness",
    "projection",
    "rebuilding",
    "priorities",
    "failover",
    "attachments",
    "overload",
    "providers",
    "webhooks",
)


def main(arguments: list[str]) -> int:
    """The exit status: 0 when everything was measured, whatever came of the aims; 1 when something could not be."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure Mailroom, each time beside a peer.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"of {', '.join(NAMES)}; default: all")
    parser.add_argument("--quick", action="store_true", help="small and fast, to see that it works; nothing is written")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in NAMES]:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    signal.signal(signal.SIGTERM, _end)
    print(f"machine: {describe(machine())}", flush=True)
    failed = False
    for name in given.names or NAMES:
        print(f"\n== {name}", flush=True)
        began = time.monotonic()
        try:
            result: Result = importlib.import_module(f"bench.{name}").run(given.quick)
            print(f"\n{result.show()}\n\n{name} took {time.monotonic() - began:.0f} s", flush=True)
            if not given.quick:
                result.keep()
        except (BenchFailed, StackError) as error:
            print(f"{name} could not be measured: {error}", file=sys.stderr, flush=True)
            failed = True
    return 1 if failed else 0


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM ends like Ctrl-C, so that what was started is stopped."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    with until_nobody_reads():
        sys.exit(main(sys.argv[1:]))
