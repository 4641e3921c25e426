"""What a local stack consists of: how each part is started, and how one sees that it works."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from deploy import processes
from deploy.local import kafka, mongo, providers, provision, resources
from deploy.local.provision import Progress
from deploy.local.site import HOST, ROOT, Site, StackError
from deploy.processes import AwsResources, Job, Process

_LONGEST_ANSWER = 1 << 20
_OF_THE_GATEWAY = ("MAILROOM_GATEWAY_PATIENCE", "MAILROOM_GATEWAY_REQUESTS")
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE")


class NotReady(Exception):
    """A part does not answer as it should yet; the message says what it answers."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A command and its whole environment."""

    command: list[str]
    env: dict[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the stack.

    `launch` says how to start its process, after writing whatever files it needs; `ready` returns when it
    works and raises anything else while it does not. A part without `launch` is a job: `run` does it, each
    time the stack starts, and returns the part that must be restarted before the work counts, if any.
    """

    name: str
    needs: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    launch: Callable[[Site, Mapping[str, str], Progress], Launch] | None = None
    ready: Callable[[Site], None] | None = None
    run: Callable[[Site, Mapping[str, str]], str | None] | None = None
    ready_seconds: float = 120
    stop_seconds: float = 10
    cpu_shares: int = processes.FIRST


def plain_environment() -> dict[str, str]:
    """The few variables that every process gets from the person who starts it."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}


def http_ok(site: Site, part: str, path: str) -> None:
    """Return if `part` answers 200 on `path`, else raise NotReady with what it says."""
    connection = http.client.HTTPConnection(HOST, site.ports[part], timeout=3)
    try:
        connection.request("GET", path, headers={"Accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read(_LONGEST_ANSWER).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        raise NotReady(f"{path} does not answer: {error}") from None
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK:
        raise NotReady(f"{path} answers {answer.status}: {in_short(body)}")


def in_short(body: str) -> str:
    """What keeps a process from being ready, of all that its `/readyz` tells; what is no such answer, its beginning."""
    try:
        told = json.loads(body)
        away = [f"{name}: {why}" for name, why in told["dependencies"].items() if why != "reachable"]
        unready = {name: each for name, each in told["components"].items() if not (each["live"] and each["ready"])}
    except (ValueError, KeyError, TypeError, AttributeError):
        return body[:2000]
    parts = [
        f"{name}: {'; '.join(each.get('reasons', ())) or each.get('state', 'not ready')}"
        for name, each in unready.items()
    ]
    return ", ".join([*away, *parts]) or body[:2000]


def read_outputs(site: Site) -> AwsResources:
    """What the template made at the last start of this stack."""
    try:
        found = json.loads(site.outputs_file.read_text())
        return AwsResources(**{name: found[name] for name in AwsResources.__slots__})
    except (OSError, ValueError, TypeError, KeyError):
        raise StackError("The AWS resources are not deployed yet: run `make up`.") from None


def _kafka(site: Site, env: Mapping[str, str], progress: Progress) -> Launch:
    return Launch(kafka.command(site, progress), plain_environment())


def _mongo(site: Site, env: Mapping[str, str], progress: Progress) -> Launch:
    return Launch(mongo.command(site, progress), plain_environment())


def _aws(site: Site, env: Mapping[str, str], progress: Progress) -> Launch:
    folder = site.data_dir("aws")
    folder.mkdir(parents=True, exist_ok=True)
    durable = "1" if site.durable_aws else "0"
    return Launch(
        [str(provision.ministack(site.cache_dir, progress))],
        plain_environment()
        | processes.emulator_environment(HOST, HOST, site.ports["aws"])
        | {
            "PERSIST_STATE": durable,
            "STATE_DIR": str(folder / "state"),
            "S3_PERSIST": durable,
            "S3_DATA_DIR": str(folder / "s3"),
            "TMPDIR": str(folder),
        },
    )


def _simulator(site: Site, env: Mapping[str, str], progress: Progress) -> Launch:
    folder = site.data_dir("simulator")
    folder.mkdir(parents=True, exist_ok=True)
    environment = processes.aws_environment(site.url("aws"), site.aws_access_key)
    at = (HOST, site.ports["simulator"], site.ports["simulator-smtp"])
    command = processes.simulator_command(*at, site.addresses(), str(folder))
    return Launch(
        [sys.executable, *command, *providers.simulator_options(site)],
        plain_environment() | environment | providers.simulator_environment(site),
    )


def _gateway(site: Site, env: Mapping[str, str], progress: Progress) -> Launch:
    folder = site.data_dir("gateway")
    folder.mkdir(parents=True, exist_ok=True)
    caddyfile = str(ROOT / "deploy/gateway/Caddyfile")
    return Launch(
        [str(provision.caddy(site.cache_dir, progress)), "run", "--adapter", "caddyfile", "--config", caddyfile],
        plain_environment()
        | {
            "XDG_DATA_HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
            "MAILROOM_GATEWAY_BIND": HOST,
            "MAILROOM_GATEWAY_PORT": str(site.ports["gateway"]),
            "MAILROOM_EMAIL_UPSTREAM": f"{HOST}:{site.ports['email']}",
            "MAILROOM_EVENTS_UPSTREAM": f"{HOST}:{site.ports['events']}",
            "MAILROOM_FILES_UPSTREAM": f"{HOST}:{site.ports['files']}",
            "MAILROOM_CLIENTS_JS": str(ROOT / "clients/js"),
            "MAILROOM_S3_PUBLIC_ENDPOINT": env["MAILROOM_S3_PUBLIC_ENDPOINT"],
        }
        | {name: value for name, value in env.items() if name in _OF_THE_GATEWAY},
    )


def _only(env: Mapping[str, str], variables: frozenset[str]) -> dict[str, str]:
    """What one process gets of `env`: what the list gives to another is left out."""
    others = frozenset().union(*(each.variables | each.optional for each in processes.PROCESSES)) - variables
    return {name: value for name, value in env.items() if name not in others}


def _service(process: Process) -> Part:
    def launch(site: Site, env: Mapping[str, str], progress: Progress) -> Launch:
        own = {**dict(process.own), process.port_setting: str(site.ports[process.name]), "PYTHONUNBUFFERED": "1"}
        return Launch(
            [sys.executable, "-m", *process.module],
            {**_only(env, process.variables | process.optional), **own},
        )

    return Part(
        name=process.name,
        needs=process.needs,
        ports=(process.name,),
        launch=launch,
        ready=lambda site: http_ok(site, process.name, process.ready_path),
        stop_seconds=process.stop_seconds,
        cpu_shares=process.cpu_shares,
    )


def _deploy_resources(site: Site, env: Mapping[str, str]) -> str | None:
    try:
        made = resources.deploy(
            site.url("aws"),
            resources.origins(env),
            access_key=site.aws_access_key,
            record=site.data_dir("aws") / "move.json",
        )
    except StackError as error:
        raise StackError(
            f"{error}\nTo begin with an empty emulator: `make down`, then delete {site.data_dir('aws')}."
        ) from None
    site.outputs_file.write_text(json.dumps(asdict(made), indent=2))
    # The emulator writes objects at once but all else only when it ends. Without a first state on disk, a
    # crash or a power cut would leave a bucket that no template owns, and the next deployment would fail.
    saved = site.data_dir("aws") / "state"
    return "aws" if site.durable_aws and not (saved.exists() and any(saved.iterdir())) else None


def _command_job(job: Job) -> Callable[[Site, Mapping[str, str]], str | None]:
    def run(site: Site, env: Mapping[str, str]) -> str | None:
        done = subprocess.run(
            [sys.executable, "-m", *job.module],
            env=_only(env, job.variables),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        with site.log_file(job.name).open("a") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode:
            tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
            raise StackError(f"`python -m {' '.join(job.module)}` failed ({done.returncode}):\n{tail}")
        return None

    return run


_JOB_RUNS = {"resources": _deploy_resources}

PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Part("kafka", ports=("kafka", "kafka_controller"), launch=_kafka, ready=kafka.answers, stop_seconds=20),
        Part("mongo", ports=("mongo",), launch=_mongo, ready=mongo.answers, stop_seconds=20),
        Part(
            "aws",
            ports=("aws",),
            launch=_aws,
            ready=lambda site: http_ok(site, "aws", "/_ministack/health"),
            cpu_shares=processes.IN_THE_BACKGROUND,
        ),
        *(Part(job.name, needs=job.needs, run=_JOB_RUNS.get(job.name) or _command_job(job)) for job in processes.JOBS),
        Part(
            processes.SIMULATOR,
            ports=(processes.SIMULATOR, "simulator-smtp"),
            launch=_simulator,
            ready=lambda site: http_ok(site, processes.SIMULATOR, "/healthz"),
        ),
        *(_service(process) for process in processes.PROCESSES),
        Part(
            processes.GATEWAY,
            ports=(processes.GATEWAY,),
            launch=_gateway,
            ready=lambda site: http_ok(site, processes.GATEWAY, "/healthz"),
        ),
    )
}

NAME_WIDTH = max(map(len, PARTS))
"""Letters of the longest name, for what is printed in columns."""
