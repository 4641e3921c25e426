"""Write `docker-compose.yml` from `deploy.processes`; with `--check`, say whether it is up to date.

Compose differs from the local stack in addresses, images and limits only. It cannot hold secrets:
they are references to variables, which `python -m deploy.compose --env > .env` makes once.
"""

import argparse
import secrets
import sys
from pathlib import Path
from typing import Any

import yaml

from deploy import processes
from deploy.local.providers import WEBHOOK_KEYS
from deploy.processes import Addresses, AwsResources, Job, Process, Secrets
from services.kit.pipes import until_nobody_reads

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "docker-compose.yml"

EMAIL_PORT, EVENTS_PORT, FILES_PORT = 8101, 8102, 8109
SIMULATOR_PORT, SMTP_PORT, AWS_PORT, GATEWAY_PORT = 8103, 8110, 4566, 8100
SUBNET = "${MAILROOM_SUBNET:-10.231.8}"
"""The first three numbers of the network's addresses. The gateway has a fixed one: it is believed about who calls."""

KAFKA_IMAGE = "apache/kafka:4.3.1"
MONGO_IMAGE = "mongo:6.0"
AWS_IMAGE = "ministackorg/ministack:1.5.33"
CADDY_IMAGE = "caddy:2.11"

ADDRESSES = Addresses(
    http_host="0.0.0.0",  # noqa: S104 - inside its container; only the gateway and the emulator are published
    email_port=EMAIL_PORT,
    events_port=EVENTS_PORT,
    files_port=FILES_PORT,
    kafka_bootstrap="kafka:9092",
    mongo_url="mongodb://mongo:27017/?replicaSet=rs0",
    aws_url=f"http://aws:{AWS_PORT}",
    s3_public_url=f"http://127.0.0.1:${{MAILROOM_AWS_PORT:-{AWS_PORT}}}",
    simulator_url=f"http://simulator:{SIMULATOR_PORT}",
    public_url=f"http://127.0.0.1:${{MAILROOM_GATEWAY_PORT:-{GATEWAY_PORT}}}",
    gateway=f"{SUBNET}.10",
)
SECRETS = Secrets(
    file_encryption_key="${FILE_ENCRYPTION_KEY:?make .env first, see the top of docker-compose.yml}",
    webhook_secret="${WEBHOOK_SECRET:?make .env first, see the top of docker-compose.yml}",  # noqa: S106
    jwt_secret="${MAILROOM_JWT_SECRET:?make .env first, see the top of docker-compose.yml}",  # noqa: S106
)

HEADER = """\
# Mailroom in containers: `docker compose up --build`, then http://127.0.0.1:8100.
# Written by `make compose` from deploy/processes.py; a change here is lost, and fails `make check`.
#
# Once, before the first start:  python -m deploy.compose --env > .env
# The AWS emulator and the simulator keep nothing over a restart: `docker compose up resources` deploys again.
# In production leave both out, deploy
# the templates of deploy/aws to AWS, and set the AWS_* variables to what they made.
"""


def document() -> dict[str, Any]:
    """The Compose file as data."""
    ours = {process.name: _process(process) for process in processes.PROCESSES}
    return {
        "name": "mailroom",
        "services": {
            "kafka": _kafka(),
            "mongo": _mongo(),
            "aws": _aws(),
            **{job.name: _job(job) for job in processes.JOBS},
            processes.SIMULATOR: _simulator(),
            **ours,
            processes.GATEWAY: _gateway(),
        },
        "volumes": {"kafka-data": {}, "mongo-data": {}},
        # Others get their addresses from the upper half, so that nobody can take the gateway's while it is away.
        "networks": {"default": {"ipam": {"config": [{"subnet": f"{SUBNET}.0/24", "ip_range": f"{SUBNET}.128/25"}]}}},
    }


def text() -> str:
    """The Compose file as it stands in git."""
    return HEADER + yaml.dump(document(), Dumper=_NoAliases, sort_keys=False, width=130, allow_unicode=True)


def resources() -> AwsResources:
    """What the template makes in the emulator: its names are fixed there, so they are known beforehand."""
    queues = f"{ADDRESSES.aws_url}/{processes.ACCOUNT}"
    return AwsResources(
        queue_url=f"{queues}/{processes.QUEUE_NAME}",
        dead_letter_queue_url=f"{queues}/{processes.DEAD_LETTER_QUEUE_NAME}",
        topic_arn=f"arn:aws:sns:{processes.REGION}:{processes.ACCOUNT}:{processes.TOPIC_NAME}",
        bucket=processes.BUCKET_NAME,
        configuration_set=processes.CONFIGURATION_SET,
        files_bucket=processes.FILES_BUCKET_NAME,
        files_queue_url=f"{queues}/{processes.FILES_QUEUE_NAME}",
        files_dead_letter_queue_url=f"{queues}/{processes.FILES_DEAD_LETTER_QUEUE_NAME}",
        distribution_domain="${CLOUDFRONT_DOMAIN:-}",
        distribution_key_pair_id="${MAILROOM_CLOUDFRONT_KEY_PAIR_ID:-}",
        distribution_private_key="${MAILROOM_CLOUDFRONT_PRIVATE_KEY:-}",
    )


def _hardened(memory: str, cpus: str, *, keep: tuple[str, ...] = (), restart: str = "unless-stopped") -> dict[str, Any]:
    limits: dict[str, Any] = {
        "restart": restart,
        "init": True,
        "read_only": True,
        "cap_drop": ["ALL"],
        "deploy": {"resources": {"limits": {"cpus": cpus, "memory": memory, "pids": 512}}},
        "logging": {"driver": "json-file", "options": {"max-size": "20m", "max-file": "3"}},
    }
    if keep:
        return {**limits, "cap_add": list(keep)}
    return {**limits, "security_opt": ["no-new-privileges:true"]}


def _image() -> dict[str, Any]:
    return {
        "image": "mailroom:${MAILROOM_VERSION:-dev}",
        "build": {"context": ".", "dockerfile": "deploy/docker/Dockerfile"},
    }


def _environment(variables: frozenset[str]) -> dict[str, str]:
    everything = processes.service_environment(ADDRESSES, resources(), SECRETS)
    return {name: value for name, value in everything.items() if name in variables}


def _after(needs: tuple[str, ...]) -> dict[str, Any]:
    jobs = {job.name for job in processes.JOBS}
    return {
        need: {"condition": "service_completed_successfully" if need in jobs else "service_healthy"} for need in needs
    }


def _health(test: list[str], *, start: str = "30s", interval: str = "10s") -> dict[str, Any]:
    return {"test": test, "interval": interval, "timeout": "5s", "retries": 3, "start_period": start}


def _our_health(port: int, path: str) -> dict[str, Any]:
    return _health(["CMD", "python", "/app/deploy/docker/healthcheck.py", f"http://127.0.0.1:{port}{path}"])


TEMPLATES = "/srv/templates"
"""Where an operator's mail templates lie in the containers."""

TEMPLATES_VOLUME = {
    "type": "bind",
    "source": "${MAILROOM_TEMPLATES_DIR:-./services/email/templates}",  # there has to be one; then nobody reads it
    "target": TEMPLATES,
    "read_only": True,
    "bind": {"create_host_path": False},
}

PRICES = "/srv/prices.json"
"""Where an operator's file of prices lies in the containers."""

PRICES_VOLUME = TEMPLATES_VOLUME | {
    "source": "${MAILROOM_PRICES_FILE:-./services/kit/prices.json}",
    "target": PRICES,
}


def optional_environment(process: Process) -> dict[str, str]:
    """What .env may hold for a process beside what every stack has; an empty value counts as none."""
    if process.module[0] != "services.email":
        return {"MAILROOM_OLD_ENCRYPTION_KEYS": "${MAILROOM_OLD_ENCRYPTION_KEYS:-}"}
    return {
        "MAILROOM_OLD_ENCRYPTION_KEYS": "${MAILROOM_OLD_ENCRYPTION_KEYS:-}",
        "MAILROOM_UNSUBSCRIBE_MAILTO": "${MAILROOM_UNSUBSCRIBE_MAILTO:-}",
        "MAILROOM_TEMPLATES_DIR": f"${{MAILROOM_TEMPLATES_DIR:+{TEMPLATES}}}",
        "MAILROOM_PRICES_FILE": f"${{MAILROOM_PRICES_FILE:+{PRICES}}}",
        **{name: f"${{{name}:-}}" for name in sorted(process.optional)},
    }


def _process(process: Process) -> dict[str, Any]:
    environment = {**_environment(process.variables), **dict(process.own), **optional_environment(process)}
    return {
        **_image(),
        "command": ["python", "-m", *process.module],
        "environment": environment,
        "depends_on": _after(process.needs),
        "healthcheck": _our_health(int(environment[process.port_setting]), process.live_path),
        "stop_grace_period": f"{process.stop_seconds}s",
        **({"volumes": [TEMPLATES_VOLUME, PRICES_VOLUME]} if process.module[0] == "services.email" else {}),
        "tmpfs": ["/tmp"],  # noqa: S108 - in its own container
        "cpu_shares": process.cpu_shares,
        **_hardened(process.memory, process.cpus),
    }


def _job(job: Job) -> dict[str, Any]:
    return {
        **_image(),
        "command": ["python", "-m", *job.module],
        "environment": _environment(job.variables),
        "depends_on": _after(job.needs),
        "healthcheck": {"disable": True},
        "tmpfs": ["/tmp"],  # noqa: S108 - in its own container
        **_hardened("512m", "1.0", restart="on-failure:5"),
    }


def _simulator() -> dict[str, Any]:
    at = ("0.0.0.0", SIMULATOR_PORT, SMTP_PORT)  # noqa: S104 - reached by the other containers alone
    command = processes.simulator_command(*at, ADDRESSES, "/state")
    reports_to = f"http://{processes.GATEWAY}:{GATEWAY_PORT}/api/webhooks"
    return {
        **_image(),
        "command": ["python", *command, "--webhooks", reports_to],
        "environment": {
            **processes.aws_environment(ADDRESSES.aws_url),
            **{name: f"${{{name}:-}}" for name in WEBHOOK_KEYS.values()},
        },
        "depends_on": _after(("aws",)),
        "healthcheck": _our_health(SIMULATOR_PORT, "/healthz"),
        "tmpfs": ["/tmp", "/state:uid=10001,gid=10001"],  # noqa: S108 - in its own container
        **_hardened("512m", "1.0"),
    }


def _kafka() -> dict[str, Any]:
    settings = {
        **processes.KAFKA_SETTINGS,
        "controller.quorum.voters": "1@localhost:9093",
        "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://{ADDRESSES.kafka_bootstrap}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": "/var/lib/kafka/data",
    }
    names = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in settings.items()}
    ask = "/opt/kafka/bin/kafka-broker-api-versions.sh --bootstrap-server 127.0.0.1:9092 > /dev/null"
    hardened = _hardened("1536m", "2.0")
    # Its entrypoint writes the configuration into its own file system.
    del hardened["read_only"]
    return {
        "image": KAFKA_IMAGE,
        "user": "1000:1000",
        "environment": {**names, "KAFKA_HEAP_OPTS": "-Xmx768m"},
        "healthcheck": {**_health(["CMD-SHELL", ask], interval="15s"), "timeout": "10s"},
        "stop_grace_period": "30s",
        "volumes": ["kafka-data:/var/lib/kafka/data"],
        **hardened,
    }


def _mongo() -> dict[str, Any]:
    member = "{_id: 0, host: 'mongo:27017'}"
    initiate = f"rs.initiate({{_id: 'rs0', members: [{member}]}})"
    # Initiates the replica set at the first check; healthy once it is primary.
    script = f"try {{ rs.status() }} catch (e) {{ {initiate} }}; if (!db.hello().isWritablePrimary) quit(1)"
    return {
        "image": MONGO_IMAGE,
        "user": "999:999",
        # mongosh of the health check keeps its history at home.
        "environment": {"HOME": "/tmp"},  # noqa: S108 - in its own container
        "command": ["mongod", *processes.MONGO_OPTIONS, "--bind_ip_all", "--wiredTigerCacheSizeGB=1"],
        "healthcheck": _health(["CMD", "mongosh", "--quiet", "--norc", "--eval", script], start="40s"),
        "stop_grace_period": "30s",
        "volumes": ["mongo-data:/data/db"],
        "tmpfs": ["/tmp", "/data/configdb:uid=999,gid=999"],  # noqa: S108 - in its own container
        **_hardened("2g", "2.0"),
    }


def _aws() -> dict[str, Any]:
    ask = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{AWS_PORT}/_ministack/health', timeout=4)"
    return {
        "image": AWS_IMAGE,
        "user": "1000:1000",
        "environment": {
            **processes.emulator_environment("aws", "0.0.0.0", AWS_PORT),  # noqa: S104
            "HOME": "/tmp",  # noqa: S108 - in its own container
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        "healthcheck": _health(["CMD", "python", "-c", ask]),
        # Browsers upload straight to its S3.
        "ports": [f"127.0.0.1:${{MAILROOM_AWS_PORT:-{AWS_PORT}}}:{AWS_PORT}"],
        "tmpfs": ["/tmp"],  # noqa: S108 - in its own container
        "cpu_shares": processes.IN_THE_BACKGROUND,
        **_hardened("1g", "1.0"),
    }


def _gateway() -> dict[str, Any]:
    return {
        "image": CADDY_IMAGE,
        "user": "1000:1000",
        "networks": {"default": {"ipv4_address": ADDRESSES.gateway}},
        "environment": {
            "MAILROOM_GATEWAY_BIND": "0.0.0.0",  # noqa: S104
            "MAILROOM_GATEWAY_PORT": str(GATEWAY_PORT),
            "MAILROOM_EMAIL_UPSTREAM": f"email:{EMAIL_PORT}",
            "MAILROOM_EVENTS_UPSTREAM": f"events:{EVENTS_PORT}",
            "MAILROOM_FILES_UPSTREAM": f"files:{FILES_PORT}",
            "MAILROOM_CLIENTS_JS": "/srv/clients/js",
            "MAILROOM_S3_PUBLIC_ENDPOINT": ADDRESSES.s3_public_url,
        },
        "depends_on": _after(("email", "events", "files")),
        "healthcheck": _health(["CMD", "wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:{GATEWAY_PORT}/healthz"]),
        "ports": [f"127.0.0.1:${{MAILROOM_GATEWAY_PORT:-{GATEWAY_PORT}}}:{GATEWAY_PORT}"],
        "volumes": ["./deploy/gateway/Caddyfile:/etc/caddy/Caddyfile:ro", "./clients/js:/srv/clients/js:ro"],
        "tmpfs": ["/tmp", "/data:uid=1000,gid=1000", "/config:uid=1000,gid=1000"],  # noqa: S108
        # The image's program carries this file capability and cannot be started without it.
        **_hardened("256m", "1.0", keep=("NET_BIND_SERVICE",)),
    }


class _NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.compose", description=__doc__)
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--check", action="store_true", help="write nothing; fail if the file is not up to date")
    group.add_argument("--env", action="store_true", help="print new secrets for a .env file")
    args = parser.parse_args()
    if args.env:
        for name in ("FILE_ENCRYPTION_KEY", "WEBHOOK_SECRET", "MAILROOM_JWT_SECRET"):
            print(f"{name}={secrets.token_urlsafe(48)}")
    elif args.check:
        if not FILE.exists() or FILE.read_text() != text():
            print("docker-compose.yml is not what deploy/processes.py says: run `make compose`.", file=sys.stderr)
            return 1
    else:
        FILE.write_text(text())
    return 0


if __name__ == "__main__":
    with until_nobody_reads():
        sys.exit(main())
