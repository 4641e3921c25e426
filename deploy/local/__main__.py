"""`python -m deploy.local …`: the commands behind `make up`, `down`, `status`, `logs`."""

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from deploy.local import provision
from deploy.local.parts import NAME_WIDTH, PARTS
from deploy.local.site import DEFAULT_PORTS, HOST, ROOT, Site, StackError, port_setting, site_from_environment
from deploy.local.stack import Stack
from deploy.processes import AwsResources, Secrets, service_environment
from services.kit.pipes import until_nobody_reads

_OWN_SETTINGS = ("MAILROOM_STATE_DIR", "MAILROOM_CACHE_DIR", "MAILROOM_PORT_BASE")


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    try:
        site = site_from_environment(os.environ)
        command: Callable[[Stack, argparse.Namespace], int] = args.command
        return command(Stack(site, _say, _passed_on()), args)
    except StackError as error:
        print(f"\nmailroom: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nmailroom: interrupted; `make down` stops what was started.", file=sys.stderr)
        return 130


def up(stack: Stack, args: argparse.Namespace) -> int:
    """Start the named parts, or all."""
    began = time.monotonic()
    with _one_at_a_time(stack.site):
        provision.everything(stack.site.cache_dir, _say)
        stack.start(args.parts or None)
    if args.parts:
        return 0
    print(f"\nMailroom is up after {time.monotonic() - began:.1f} s.")
    print(f"  API through the gateway  {stack.site.url('gateway')}/api/email")
    print(f"  a page to upload from    {stack.site.url('gateway')}/files-page/")
    described = "  ".join(f"{stack.site.url(name)}/docs" for name in ("email", "files", "events"))
    print(f"  API descriptions         {described}")
    print("  a token for it           ./mailroom token --help")
    print("  next                     make demo · make status · make logs · make down")
    return 0


def down(stack: Stack, args: argparse.Namespace) -> int:
    """Stop the named parts, or all; the data stays."""
    with _one_at_a_time(stack.site):
        running = [name for name in PARTS if stack.child(name)]
        stack.stop(args.parts or None)
    if not running:
        print("Nothing was running.")
    return 0


def restart(stack: Stack, args: argparse.Namespace) -> int:
    """Stop and start the named parts."""
    with _one_at_a_time(stack.site):
        for name in args.parts:
            stack.restart(name)
    return 0


def kill(stack: Stack, args: argparse.Namespace) -> int:
    """Signal the named parts, by default SIGKILL."""
    try:
        number = signal.Signals[f"SIG{args.signal.upper().removeprefix('SIG')}"]
    except KeyError:
        raise StackError(f"No signal is called {args.signal}.") from None
    for name in args.parts:
        stack.kill(name, number)
    return 0


def status(stack: Stack, args: argparse.Namespace) -> int:
    """Say what runs and works; exit status 1 unless everything does."""
    rows = []
    for name, part in PARTS.items():
        if part.launch is None:
            continue
        child, problem = stack.child(name), stack.problem(name)
        state = "down" if child is None else "ready" if problem is None else "not ready"
        port = stack.site.ports[part.ports[0]]
        rows.append(
            {
                "part": name,
                "state": state,
                "port": port,
                "pid": child.pid if child else None,
                "memory_mb": child.memory_mb() if child else None,
                "problem": problem if child else None,
            }
        )
    if args.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"{'PART':<{NAME_WIDTH}} {'STATE':<10} {'ADDRESS':<16} {'PID':>8} {'MEMORY':>8}")
        for row in rows:
            memory = f"{row['memory_mb']} MB" if row["memory_mb"] else ""
            address = f"{HOST}:{row['port']}"
            print(f"{row['part']:<{NAME_WIDTH}} {row['state']:<10} {address:<16} {row['pid'] or '':>8} {memory:>8}")
            if row["problem"]:
                print(f"{'':<{NAME_WIDTH}} {row['problem']}")
        print(f"\nstate and logs: {stack.site.state_dir}")
    return 0 if all(row["state"] == "ready" for row in rows) else 1


def logs(stack: Stack, args: argparse.Namespace) -> int:
    """Show the end of the logs of the named parts, or all; with --follow go on until Ctrl-C."""
    files = [str(stack.site.log_file(name)) for name in args.parts or PARTS]
    files = [name for name in files if os.path.exists(name)]  # noqa: PTH110 - tail wants names
    if not files:
        raise StackError("There are no logs yet: run `make up`.")
    sys.stdout.flush()
    follow = ["-F"] if args.follow else []
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and tail would inherit that and complain
    os.execvp("tail", ["tail", "-n", str(args.lines), *follow, *files])  # noqa: S606


def env(stack: Stack, args: argparse.Namespace) -> int:
    """Print the environment of the services on this stack, as `NAME=value` lines. It contains secrets."""
    for name, value in sorted(stack.env().items()):
        print(f"{name}={value}")
    return 0


def fetch(stack: Stack, args: argparse.Namespace) -> int:
    """Fetch all that a stack needs into the cache, and start nothing."""
    provision.everything(stack.site.cache_dir, _say)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deploy.local", description=__doc__)
    commands = parser.add_subparsers(required=True)
    for command in (up, down, restart, kill, status, logs, env, fetch):
        sub = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        sub.set_defaults(command=command)
        if command in (up, down, logs):
            sub.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}")
        if command in (restart, kill):
            sub.add_argument("parts", nargs="+", metavar="PART", help=f"one of {', '.join(PARTS)}")
        if command is kill:
            sub.add_argument("--signal", default="KILL")
        if command is status:
            sub.add_argument("--json", action="store_true")
        if command is logs:
            sub.add_argument("-n", "--lines", type=int, default=30)
            sub.add_argument("-f", "--follow", action="store_true")
    return parser


def _passed_on() -> dict[str, str]:
    """Settings of the services that the caller's environment has and the stack does not fix itself."""
    stack_settings = {*_OWN_SETTINGS, *map(port_setting, DEFAULT_PORTS)}
    addresses = site_from_environment(os.environ).addresses()
    fixed = service_environment(addresses, AwsResources(), Secrets("", "", ""))
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("MAILROOM_")
        and not name.startswith("MAILROOM_TEST_")
        and name not in stack_settings
        and name not in fixed
    }


def _say(line: str) -> None:
    print(f"  {line}", flush=True)


@contextmanager
def _one_at_a_time(site: Site) -> Iterator[None]:
    """Hold the stack's lock, so that two commands do not start or stop it at once."""
    site.state_dir.mkdir(parents=True, exist_ok=True)
    with (site.state_dir / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say("another command is starting or stopping this stack: waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    os.chdir(ROOT)
    with until_nobody_reads():
        sys.exit(main())
