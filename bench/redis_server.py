"""Redis for the Celery peer: Debian's package, on a free port, with nothing written to disk."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from bench.ground import Program, running, wait_until
from bench.results import BenchFailed
from deploy.local.site import HOST, free_ports
from deploy.local.stack import Stack


@contextmanager
def redis(stack: Stack) -> Iterator[Program]:
    """A Redis of its own that keeps everything in memory: its fastest. Its URL is `redis://127.0.0.1:<port>/0`."""
    (port,) = free_ports(1)
    command = [_binary(), "--port", str(port), "--bind", HOST, "--save", "", "--appendonly", "no"]
    with running(stack, "redis", command, {}, port) as program:
        wait_until(lambda: _answers(program), "Redis to answer", 10)
        yield program


def _binary() -> str:
    """Where redis-server is, installed first if it is missing and we may; BenchFailed says what to do otherwise."""
    if found := shutil.which("redis-server"):
        return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("  installing Debian's redis-server (once)", flush=True)
        install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "redis-server"]
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (install, ["apt-get", "update", "-q"], install):
            subprocess.run(command, env=env, capture_output=True, check=False)
            if found := shutil.which("redis-server"):
                return found
    raise BenchFailed(
        "The Celery peer needs Redis: install it (on Debian and Ubuntu, as root: apt-get install redis-server), "
        "so that `redis-server` is on the PATH, and run again."
    )


def _answers(program: Program) -> bool:
    program.check()
    try:
        with socket.create_connection((HOST, program.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
