"""Where one local stack lives: its state folder, its ports, the cache it shares with other stacks."""

import os
import random
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.processes import Addresses

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
_OUTGOING_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")

DEFAULT_PORTS = {
    "gateway": 8100,
    "email": 8101,
    "events": 8102,
    "simulator": 8103,
    "aws": 8104,
    "mongo": 8105,
    "kafka": 8106,
    "kafka_controller": 8107,
    "email-urgent": 8108,
    "files": 8109,
    "simulator-smtp": 8110,
}
QUICK_JAVA = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""The quick compiler and the plain collector: starting takes 40 % less CPU, which two cores feel, and a stack on one
machine never lives or works enough to want the others. `bench/` sets what a broker would run with."""


class StackError(Exception):
    """The stack cannot do what was asked; the message says why and what to do."""


def port_setting(name: str) -> str:
    """The environment variable that sets a port, e.g. `MAILROOM_KAFKA_PORT`."""
    return f"MAILROOM_{name.upper().replace('-', '_')}_PORT"


@dataclass(frozen=True, slots=True)
class Site:
    """A stack's folders and ports.

    Two stacks with different `state_dir` and `ports` run side by side; `cache_dir` (downloads, wheels,
    jars) may be shared by all. `kafka_options` (of Java) and `mongo_cache_gb` bound the memory of the two large parts;
    `durable_aws` lets the emulator keep its queues and objects over a restart; `aws_access_key`, where it is twelve
    digits, names an account of the emulator that is not the usual one; `every_provider` has the email service send
    through all providers that it knows, SES first, and not through SES alone.
    """

    state_dir: Path
    cache_dir: Path
    ports: Mapping[str, int]
    kafka_options: tuple[str, ...] = ("-Xmx512m", *QUICK_JAVA)
    mongo_cache_gb: float = 1.0
    durable_aws: bool = True
    aws_access_key: str = "test"
    every_provider: bool = True

    @property
    def run_dir(self) -> Path:
        return self.state_dir / "run"

    @property
    def log_dir(self) -> Path:
        return self.state_dir / "logs"

    @property
    def ports_file(self) -> Path:
        return self.state_dir / "ports"

    @property
    def env_file(self) -> Path:
        return self.state_dir / "env"

    @property
    def secrets_file(self) -> Path:
        return self.state_dir / "secrets.json"

    @property
    def webhook_keys_file(self) -> Path:
        return self.state_dir / "webhook-keys.json"

    @property
    def outputs_file(self) -> Path:
        return self.state_dir / "aws-outputs.json"

    def data_dir(self, part: str) -> Path:
        return self.state_dir / "data" / part

    def log_file(self, part: str) -> Path:
        return self.log_dir / f"{part}.log"

    def url(self, part: str) -> str:
        return f"http://{HOST}:{self.ports[part]}"

    def addresses(self) -> Addresses:
        return Addresses(
            http_host=HOST,
            email_port=self.ports["email"],
            events_port=self.ports["events"],
            files_port=self.ports["files"],
            kafka_bootstrap=f"{HOST}:{self.ports['kafka']}",
            mongo_url=f"mongodb://{HOST}:{self.ports['mongo']}/?replicaSet=rs0",
            aws_url=self.url("aws"),
            s3_public_url=self.url("aws"),
            simulator_url=self.url("simulator"),
            public_url=self.url("gateway"),
            gateway=HOST,
            aws_access_key=self.aws_access_key,
        )


def site_from_environment(environ: Mapping[str, str]) -> Site:
    """The site that the environment names.

    MAILROOM_STATE_DIR (default `.mailroom` in the checkout), MAILROOM_CACHE_DIR (default
    `.mailroom/cache` in the checkout), MAILROOM_PORT_BASE (all ports from there on), and one
    MAILROOM_<PART>_PORT per part. What the environment leaves open is read from the state folder's
    `ports` file, which `up` writes and a person may edit.

    Raises StackError for a port that is no port, or that two parts share.
    """
    state_dir = Path(environ.get("MAILROOM_STATE_DIR") or ROOT / ".mailroom").resolve()
    cache_dir = Path(environ.get("MAILROOM_CACHE_DIR") or ROOT / ".mailroom" / "cache").resolve()
    remembered = _read_ports(state_dir / "ports")
    base = environ.get("MAILROOM_PORT_BASE")
    ports: dict[str, int] = {}
    for index, (name, default) in enumerate(DEFAULT_PORTS.items()):
        setting = port_setting(name)
        text = environ.get(setting)
        if text is None and base:
            port = _port("MAILROOM_PORT_BASE", base) + index
        elif text is None:
            port = _port(setting, remembered.get(setting, str(default)))
        else:
            port = _port(setting, text)
        taken = next((other for other, number in ports.items() if number == port), None)
        if taken:
            raise StackError(f"{setting} and {port_setting(taken)} are both {port}: give each its own port.")
        ports[name] = port
    return Site(state_dir=state_dir, cache_dir=cache_dir, ports=ports)


def throwaway_site(state_dir: Path, environ: Mapping[str, str]) -> Site:
    """A site with little memory and SES alone, for tests; downloads come from the shared cache.

    Its ports are those that the folder remembers, or else free ones. MAILROOM_PORT_SHARE, `2/8` for instance, leaves
    it every eighth port only: processes with different shares that choose ports at the same moment never choose the
    same.
    """
    cache_dir = Path(environ.get("MAILROOM_CACHE_DIR") or ROOT / ".mailroom" / "cache").resolve()
    remembered = _read_ports(state_dir / "ports")
    number, _, of = environ.get("MAILROOM_PORT_SHARE", "0/1").partition("/")
    if remembered:
        ports = {name: int(remembered[port_setting(name)]) for name in DEFAULT_PORTS}
    else:
        ports = dict(zip(DEFAULT_PORTS, free_ports(len(DEFAULT_PORTS), int(number), int(of)), strict=True))
    return Site(
        state_dir=state_dir.resolve(),
        cache_dir=cache_dir,
        ports=ports,
        kafka_options=("-Xmx384m", *QUICK_JAVA),
        mongo_cache_gb=0.5,
        durable_aws=False,
        every_provider=False,
    )


def free_ports(count: int, share: int = 0, of: int = 1) -> list[int]:
    """Ports of the loopback address that nobody listened on a moment ago, all different, and `share` modulo `of`.

    They are below the range from which the system takes the ports of outgoing connections: else a client that tries
    to reach a stopped part could be given that part's own port, and keep the part from starting again.
    """
    lowest = int(_OUTGOING_PORTS.read_text().split()[0]) if _OUTGOING_PORTS.exists() else 32768
    candidates = [port for port in range(20000, lowest) or range(1024, 65536) if port % of == share]
    found: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise StackError(f"No {count} free ports were found on {HOST}.")


def remember_ports(site: Site) -> None:
    """Write the `ports` file, so that later commands find this stack without the environment; never half of it."""
    site.state_dir.mkdir(parents=True, exist_ok=True)
    lines = [f"{port_setting(name)}={port}" for name, port in site.ports.items()]
    part = site.ports_file.with_suffix(f".{os.getpid()}")
    part.write_text("# Ports of this stack; the environment goes before them.\n" + "\n".join(lines) + "\n")
    part.replace(site.ports_file)


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _read_ports(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    lines = (line.strip() for line in path.read_text().splitlines())
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


def _port(setting: str, text: str) -> int:
    if not text.isdecimal() or not 1024 <= int(text) <= 65535:
        raise StackError(f"{setting} is {text!r}: it must be a port from 1024 to 65535.")
    return int(text)
