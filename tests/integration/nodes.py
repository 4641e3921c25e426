"""Kafka and MongoDB as a test wants them: of several nodes, or asking for TLS and a log-in.

The processes are found and stopped as those of a stack are: the folder looks like that of a run (`own_stack`).
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local import children, provision
from deploy.local.children import Child
from deploy.local.kafka import WARNINGS_TO_CONSOLE
from deploy.local.parts import plain_environment
from deploy.local.site import HOST, QUICK_JAVA, ROOT, Site, free_ports, throwaway_site
from deploy.processes import KAFKA_SETTINGS, MONGO_OPTIONS
from tests.suite.shared import PREFIX

HEAP = "-Xmx256m"
HANG = 120.0


@dataclass
class Node:
    """One server process: started, killed, and started again over the same data."""

    name: str
    folder: Path
    port: int
    command: list[str]
    env: Mapping[str, str] = field(default_factory=plain_environment)
    child: Child | None = None

    def start(self) -> None:
        """Begin; it listens some time later."""
        record, log = self.folder / "run" / f"{self.name}.json", self.folder / "logs" / f"{self.name}.log"
        self.child = children.start(record, log, self.command, self.env, ROOT)

    def listening(self) -> None:
        """Wait until it listens. AssertionError, with its last words, when it ends instead."""
        deadline = time.monotonic() + HANG
        while not children.listens(self.port):
            alive = self.child is not None and self.child.alive() and time.monotonic() < deadline
            assert alive, f"{self.name} does not come up:\n{self.log()[-3000:]}"
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self.child is not None
        self.child.signal(signal.SIGKILL)
        assert self.child.wait_gone(20), f"{self.name} survived SIGKILL"

    def stop(self) -> None:
        """End it."""
        if self.child is not None:
            self.child.stop(20)

    def log(self) -> str:
        """All that it has written."""
        path = self.folder / "logs" / f"{self.name}.log"
        return path.read_text(errors="replace") if path.exists() else ""


@dataclass(frozen=True, slots=True)
class KafkaCluster:
    """A cluster's nodes, each broker and controller."""

    nodes: Sequence[Node]

    @property
    def bootstrap(self) -> str:
        return ",".join(f"{HOST}:{node.port}" for node in self.nodes)


@dataclass
class Place:
    """Where nodes live: a folder, downloads, and free ports."""

    site: Site
    ports: list[int]
    started: list[Node] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.site.state_dir

    def kafka(
        self,
        count: int,
        *,
        settings: Mapping[str, str] | None = None,
        listener: str = "PLAINTEXT",
        ports: Sequence[int] = (),
        format_options: Sequence[str] = (),
    ) -> KafkaCluster:
        """A cluster of so many nodes, started. `listener`: the protocol of the one for clients; `ports`: its ports."""
        brokers = [*ports] or [self.ports.pop() for _ in range(count)]
        controllers = [self.ports.pop() for _ in range(count)]
        voters = ",".join(f"{n}@{HOST}:{port}" for n, port in enumerate(controllers, 1))
        common = {**KAFKA_SETTINGS, **({} if count == 1 else _several(count)), "controller.quorum.voters": voters}
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        nodes = []
        for n, (broker, controller) in enumerate(zip(brokers, controllers, strict=True), 1):
            own = {
                "node.id": str(n),
                "listeners": f"{listener}://{HOST}:{broker},CONTROLLER://{HOST}:{controller}",
                "advertised.listeners": f"{listener}://{HOST}:{broker}",
                "inter.broker.listener.name": listener,
                "listener.security.protocol.map": f"CONTROLLER:PLAINTEXT,{listener}:{listener}",
                "log.dirs": str(self.folder / f"kafka-{n}"),
            }
            nodes.append(self._kafka_node(n, broker, {**common, **own, **(settings or {})}, cluster_id, format_options))
        return KafkaCluster(self._begin(nodes))

    def _kafka_node(
        self, n: int, port: int, properties: Mapping[str, str], cluster_id: str, format_options: Sequence[str]
    ) -> Node:
        file = self.folder / f"kafka-{n}.properties"
        file.write_text("\n".join(f"{name}={value}" for name, value in properties.items()) + "\n")
        logging = self.folder / "log4j2.properties"
        logging.write_text(WARNINGS_TO_CONSOLE)
        jars = provision.kafka_jars(self.site.cache_dir, _silent)
        java = [str(provision.java(self.site.cache_dir, _silent)), HEAP, *QUICK_JAVA]
        java += [f"-Dlog4j2.configurationFile={logging}", "-cp", f"{jars}/*"]
        tool = [*java, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(file)]
        done = subprocess.run([*tool, *format_options], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return Node(f"kafka-{n}", self.folder, port, [*java, "kafka.Kafka", str(file)])

    def mongo(self, count: int, *, options: Sequence[str] = ()) -> list[Node]:
        """So many servers of one replica set, started and not initiated."""
        server = str(provision.mongod(self.site.cache_dir, _silent))
        nodes = []
        for n in range(1, count + 1):
            data, port = self.folder / f"mongo-{n}", self.ports.pop()
            data.mkdir()
            command = [server, *MONGO_OPTIONS, f"--bind_ip={HOST}", f"--port={port}", f"--dbpath={data}", *options]
            command += ["--wiredTigerCacheSizeGB=0.25", "--nounixsocket", "--quiet"]
            nodes.append(Node(f"mongo-{n}", self.folder, port, command))
        return list(self._begin(nodes))

    def _begin(self, nodes: Sequence[Node]) -> Sequence[Node]:
        for node in nodes:
            self.started.append(node)
            node.start()
        for node in nodes:
            node.listening()
        return nodes


@contextmanager
def place(ports: int = 12) -> Iterator[Place]:
    """A folder and ports for nodes; all that was started there is stopped at the end, and its data deleted."""
    number, _, of = os.environ.get("MAILROOM_PORT_SHARE", "0/1").partition("/")
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    found = Place(throwaway_site(folder / "nodes", os.environ), free_ports(ports, int(number), int(of)))
    found.folder.mkdir(parents=True, exist_ok=True)
    try:
        yield found
    finally:
        for node in found.started:
            node.stop()
        if not os.environ.get("MAILROOM_TEST_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)


def until(condition: Callable[[], bool], what: str, *failures: type[Exception]) -> None:
    """Wait for a condition; these exceptions mean "not yet". AssertionError after two minutes."""
    deadline = time.monotonic() + HANG
    while True:
        with contextlib.suppress(*failures):
            if condition():
                return
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.1)


def _several(count: int) -> dict[str, str]:
    copies, enough = str(min(3, count)), str(min(3, count) // 2 + 1)
    return {
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": enough,
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": enough,
    }


def _silent(_line: str) -> None:
    pass
