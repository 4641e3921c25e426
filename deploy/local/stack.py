"""One local stack: start, stop, restart and kill its parts.

```python
stack = Stack(throwaway_site(folder, os.environ))
stack.start()                          # everything, in parallel where nothing needs another
stack.kill("email", signal.SIGKILL)    # for tests of crashes
stack.restart("email")
stack.stop()
```

The parts are processes of their own that outlive the caller; what is known about them is in the state
folder, so that any later `Stack` of the same site finds them.
"""

import json
import re
import secrets
import shlex
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from typing import Any

from deploy.local import children, providers
from deploy.local.children import Child
from deploy.local.parts import NAME_WIDTH, PARTS, Part, plain_environment, read_outputs
from deploy.local.site import HOST, ROOT, Site, StackError, port_setting, remember_ports, write_private
from deploy.processes import GATEWAY, PROCESSES, AwsResources, Secrets, service_environment

PORT_SECONDS = 5.0
"""How long a port that is in use is waited for: one that a stopped part has just left may be held a moment longer."""
OURS = (GATEWAY, *(process.name for process in PROCESSES))
"""What serves, and is stopped before all that it stands on."""
_COMPLAINT = re.compile(r'\b(ERROR|FATAL|CRITICAL|Traceback|Exception)\b|"s":"[EF]"|"level":\s*"(error|critical)"')
_NO_RESOURCES = AwsResources()


class Stack:
    """The parts of one site. `extra` is added to the environment of our own processes at their next start."""

    def __init__(
        self,
        site: Site,
        progress: Callable[[str], None] = lambda line: None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self.site = site
        self.extra = dict(extra or {})
        self._progress = progress
        self._secrets_lock = threading.Lock()
        self._interrupted = threading.Event()

    def start(self, names: Iterable[str] | None = None, *, with_needs: bool = True) -> None:
        """Start the named parts (default: all) and what they need, and wait until each works.

        What runs already is left alone. Raises StackError if a part does not come up; what did come up
        stays up.
        """
        chosen = list(PARTS) if names is None else _known(names)
        wanted = needs_of(chosen) if with_needs else chosen
        self.site.log_dir.mkdir(parents=True, exist_ok=True)
        remember_ports(self.site)
        self._check_ports(wanted)
        self._interrupted.clear()
        futures: dict[str, Future[None]] = {}
        with ThreadPoolExecutor(max_workers=len(wanted) or 1) as pool:
            for name in wanted:
                needs = [futures[need] for need in PARTS[name].needs if need in futures]
                futures[name] = pool.submit(self._start_after, needs, PARTS[name])
            try:
                wait(futures.values())
            except BaseException:
                self._interrupted.set()
                raise
        self.write_env_file()
        failures = [error for error in (future.exception() for future in futures.values()) if error]
        own = [error for error in failures if not isinstance(error, _NeedFailed)]
        if own:
            unexpected = next((error for error in own if not isinstance(error, StackError)), None)
            raise StackError("\n".join(str(error) for error in own)) from unexpected

    def stop(self, names: Iterable[str] | None = None) -> None:
        """Stop the named parts (default: all): ours first, then what they use. SIGKILL for what does not go."""
        chosen = list(PARTS) if names is None else _known(names)
        for wave in (
            [name for name in chosen if name in OURS],
            [name for name in chosen if name not in OURS],
        ):
            with ThreadPoolExecutor(max_workers=len(wave) or 1) as pool:
                list(pool.map(self._stop_one, wave))

    def restart(self, *names: str) -> None:
        """Stop parts and start them again; jobs that prepare them are done again."""
        self.stop(names)
        jobs = [job for job, part in PARTS.items() if part.run and not set(names).isdisjoint(part.needs)]
        self.start([*names, *jobs], with_needs=False)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal a part's process, by default kill -9, and for a kill wait until it is gone."""
        child = self.child(name)
        if child is None:
            raise StackError(f"{name} is not running.")
        child.signal(number)
        if number is signal.SIGKILL and not child.wait_gone(10):
            raise StackError(f"{name} (pid {child.pid}) survived SIGKILL.")

    def child(self, name: str) -> Child | None:
        """The living process of a part, or None."""
        _known([name])
        return children.find(self.site.run_dir / f"{name}.json")

    def ready(self, names: Collection[str] | None = None) -> bool:
        """True if every named part (default: all) runs and works now."""
        return all(self.problem(name) is None for name in (PARTS if names is None else _known(names)))

    def problem(self, name: str) -> str | None:
        """Why a part does not work now; None if it does, and for a job."""
        part = PARTS[name]
        if part.launch is None or part.ready is None:
            return None
        if self.child(name) is None:
            return "not running"
        try:
            part.ready(self.site)
        except Exception as error:  # noqa: BLE001 - whatever a client library raises means "does not work"
            return str(error) or type(error).__name__
        return None

    def wait_ready(self, names: Collection[str] | None = None, seconds: float = 120) -> None:
        """Wait until every named part (default: all) works; raises StackError after `seconds`."""
        deadline = time.monotonic() + seconds
        for name in PARTS if names is None else _known(names):
            while problem := self.problem(name):
                if time.monotonic() > deadline:
                    raise StackError(f"{name} is not ready after {seconds:.0f} s: {problem}")
                time.sleep(0.1)

    def logs(self, name: str) -> str:
        """All that a part has written so far."""
        path = self.site.log_file(_known([name])[0])
        return path.read_text(errors="replace") if path.exists() else ""

    def env(self) -> dict[str, str]:
        """The environment of the services and of the `mailroom` command on this stack."""
        try:
            made = read_outputs(self.site)
        except StackError:
            made = _NO_RESOURCES
        ours = service_environment(self.site.addresses(), made, self._secrets())
        if self.site.every_provider:
            ours |= providers.service_environment(self.site)
        return {**ours, **self.extra}

    def resources(self) -> AwsResources:
        """What the AWS template made; raises StackError before the first deployment."""
        return read_outputs(self.site)

    def write_env_file(self) -> None:
        """Write `env` into the state folder, for `./mailroom` and a person's shell."""
        lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(self.env().items())]
        write_private(self.site.env_file, "\n".join(lines) + "\n")

    def _secrets(self) -> Secrets:
        with self._secrets_lock:
            path = self.site.secrets_file
            if not path.exists():
                made = Secrets(secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48))
                write_private(path, json.dumps(asdict(made), indent=2))
            return Secrets(**json.loads(path.read_text()))

    def _start_after(self, needs: list[Future[None]], part: Part) -> None:
        for need in needs:
            if need.exception():
                raise _NeedFailed(part.name)
        began = time.monotonic()
        env = {**plain_environment(), **self.env()}
        if part.run:
            try:
                restarted = part.run(self.site, env)
            except StackError as error:
                raise StackError(f"{part.name}: {error}") from error
            if restarted:
                self._stop_one(restarted)
                self._launch(PARTS[restarted], env)
            self._progress(f"{part.name:<{NAME_WIDTH}} done in {time.monotonic() - began:.1f} s")
        elif self.problem(part.name) is None:
            self._progress(f"{part.name:<{NAME_WIDTH}} runs already")
        else:
            self._launch(part, env)
            where = ", ".join(str(self.site.ports[port]) for port in part.ports[:1])
            self._progress(f"{part.name:<{NAME_WIDTH}} ready in {time.monotonic() - began:.1f} s ({HOST}:{where})")

    def _launch(self, part: Part, env: Mapping[str, str]) -> None:
        if part.launch is None or part.ready is None:
            raise StackError(f"{part.name} is a job, not a process.")
        child = self.child(part.name)
        if child is None:
            launch = part.launch(self.site, env, self._progress)
            record, log = self.site.run_dir / f"{part.name}.json", self.site.log_file(part.name)
            child = children.start(record, log, launch.command, launch.env, ROOT, part.cpu_shares)
        deadline = time.monotonic() + part.ready_seconds
        while True:
            try:
                return part.ready(self.site)
            except Exception as error:  # noqa: BLE001 - whatever a client library raises means "not yet"
                reason: Any = error
            if self._interrupted.is_set():
                raise StackError(f"{part.name}: interrupted while it was starting.")
            if not child.alive():
                raise StackError(f"{part.name} ended while starting.\n{self._last_words(part.name)}")
            if time.monotonic() > deadline:
                raise StackError(
                    f"{part.name} is not ready after {part.ready_seconds:.0f} s: {reason}\n"
                    f"{self._last_words(part.name)}"
                )
            time.sleep(0.05)

    def _last_words(self, name: str) -> str:
        lines = self.logs(name).splitlines()[-400:]
        complaints = [line for line in lines[:-12] if _COMPLAINT.search(line)][-8:]
        shown = "\n".join(f"  {line[:400]}" for line in (*complaints, *lines[-12:]))
        return f"From {self.site.log_file(name)}:\n{shown}"

    def _check_ports(self, names: Iterable[str]) -> None:
        starting = [name for name in names if PARTS[name].launch and self.child(name) is None]
        needed = [(name, port) for name in starting for port in PARTS[name].ports]
        deadline = time.monotonic() + PORT_SECONDS
        while taken := [(name, port) for name, port in needed if not children.port_is_free(self.site.ports[port])]:
            if time.monotonic() > deadline:
                problems = [
                    f"port {self.site.ports[port]} for {name} is in use by another program: "
                    f"set {port_setting(port)} to a free port, or stop that program"
                    for name, port in taken
                ]
                problems.append("(MAILROOM_PORT_BASE=9100 moves all ports; `make status` shows what runs)")
                raise StackError("\n".join(problems))
            time.sleep(0.05)

    def _stop_one(self, name: str) -> None:
        child = self.child(name)
        if child is None:
            return
        began = time.monotonic()
        by_itself = child.stop(PARTS[name].stop_seconds)
        (self.site.run_dir / f"{name}.json").unlink(missing_ok=True)
        how = "stopped" if by_itself else f"KILLED after {PARTS[name].stop_seconds:.0f} s"
        self._progress(f"{name:<{NAME_WIDTH}} {how} in {time.monotonic() - began:.1f} s")


class _NeedFailed(StackError):
    """A part was not started because one that it needs failed, which is reported by itself."""


def _known(names: Iterable[str]) -> list[str]:
    chosen = list(names)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        raise StackError(f"No part is called {', '.join(unknown)}; there are {', '.join(PARTS)}.")
    return chosen


def needs_of(names: Iterable[str]) -> list[str]:
    """The names of these parts and of all that they need, each after what it needs."""
    ordered: list[str] = []

    def add(name: str) -> None:
        if name not in ordered:
            for need in PARTS[name].needs:
                add(need)
            ordered.append(name)

    for name in names:
        add(name)
    return ordered
