"""Who sends in `bench.sends`: a bare loop, Celery, Mailroom. Each sends the same mails and is measured the same way."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from pymongo import MongoClient

from bench import mails
from bench.acceptances import Acceptances, Accepted
from bench.ground import Program, roots, running, start, start_service, wait_ready, wait_until
from bench.measure import Meter, Usage
from bench.redis_server import redis
from bench.results import BenchFailed
from contracts.ids import uuid7
from contracts.topics import LANES
from deploy.local import provision
from deploy.local.site import HOST
from deploy.local.stack import Stack
from deploy.processes import FROM_ADDRESS, aws_environment

BESIDE = ("simulator", "kafka", "mongo", "aws")
CONCURRENCY = 32


@dataclass(frozen=True, slots=True)
class Round:
    """One contender's turn.

    Attributes:
        per_second: mails a second; of Mailroom from the first command's time on Kafka to the last acceptance, of the
            others from the first acceptance to the last.
        metered: how many of the mails fell into the time when CPU was watched.
        ours: CPU and memory of the contender's own processes, by name.
        beside: those of what stands beside it.
        elsewhere: CPU seconds of everything else on the machine.
        settled: seconds after the last acceptance until nothing was left to do, where there was something.
    """

    contender: str
    accepted: Accepted
    per_second: float
    metered: int
    wall: float
    ours: Mapping[str, Usage]
    beside: Mapping[str, Usage]
    elsewhere: float
    settled: float = 0.0

    def cpu_ms(self, name: str) -> float:
        """CPU milliseconds of a process per mail."""
        usage = {**self.ours, **self.beside}.get(name)
        return 0.0 if usage is None else usage.cpu_seconds * 1000 / self.metered

    @property
    def own_cpu_ms(self) -> float:
        """CPU milliseconds of the contender's own processes per mail."""
        return sum(self.cpu_ms(name) for name in self.ours)


@dataclass(frozen=True, slots=True)
class Field:
    """What all contenders share: the stack, how many mails, and files with the mail that all send."""

    stack: Stack
    mails: int
    raw_file: Path
    body_file: Path
    extra: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def prepare(cls, stack: Stack, count: int) -> "Field":
        """Write the files."""
        raw_file, body_file = stack.site.state_dir / "raw.eml", stack.site.state_dir / "body.json"
        raw_file.write_bytes(mails.raw())
        body = {"subject": mails.SUBJECT, "html": mails.HTML, "text": mails.TEXT}
        body_file.write_text(json.dumps(body))
        return cls(stack, count, raw_file, body_file)

    @property
    def environment(self) -> dict[str, str]:
        """Where SES is, for what is not ours."""
        simulator = self.stack.site.url("simulator")
        return {
            **aws_environment(self.stack.site.url("aws")),
            "AWS_ENDPOINT_URL_SESV2": simulator,
            "SES_CONFIGURATION_SET": self.stack.resources().configuration_set,
        }


def bare_loop(field_: Field, kind: str = "plain") -> Round:
    """The bare loop of the same calls, `plain` or `tuned`."""
    taken = Acceptances(field_.stack)
    command = [sys.executable, "-m", "bench.baselines.bare_loop", kind, str(field_.mails), str(CONCURRENCY)]
    command += [str(field_.raw_file), field_.environment["SES_CONFIGURATION_SET"]]
    with running(field_.stack, "bare-loop", command, field_.environment) as program:
        name = f"bare loop, {kind}"
        return _measured(name, field_, taken, {name: program}, ended=lambda: program.wait(30))


def celery(field_: Field, pool: str = "prefork", workers: int = 8, prefetch: int = 4) -> Round:
    """Celery and Redis: all tasks lie in the queue before the worker starts."""
    stack = field_.stack
    venv = provision.environment(stack.site.cache_dir, "bench", lambda line: print(f"  {line}", flush=True))
    python = str(venv / "bin/python")
    with ExitStack() as cleanup:
        server = cleanup.enter_context(redis(stack))
        env = {
            **field_.environment,
            "BENCH_BROKER": f"redis://{HOST}:{server.port}/0",
            "BENCH_RAW_FILE": str(field_.raw_file),
            "BENCH_FROM": FROM_ADDRESS,
            "BENCH_PREFETCH": str(prefetch),
        }
        enqueue = [python, "-m", "bench.baselines.celery_app", str(field_.mails), str(field_.body_file)]
        start(stack, "celery-enqueue", enqueue, env).wait(600)
        taken = Acceptances(stack)
        command = [python, "-m", "celery", "--quiet", "-A", "bench.baselines.celery_app", "worker"]
        command += [f"--pool={pool}", f"--concurrency={workers}", "--loglevel=warning"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        worker = cleanup.enter_context(running(stack, "celery", command, env))
        return _measured("Celery", field_, taken, {"Celery": worker}, beside={"redis": [server.pid]})


def _measured(
    name: str,
    field_: Field,
    taken: Acceptances,
    programs: Mapping[str, Program],
    *,
    beside: Mapping[str, Sequence[int]] | None = None,
    ended: Callable[[], None] = lambda: None,
) -> Round:
    """A contender whose work lies ready: CPU is watched from its first acceptance on, so that no start-up counts."""

    def alive() -> None:
        for each in programs.values():
            if each.process.poll() not in (None, 0):
                each.check()

    taken.wait(1, alive)
    before = taken.count()
    stand_by = {**roots(field_.stack, *BESIDE), **(beside or {})}
    with Meter({**{label: [each.pid] for label, each in programs.items()}, **stand_by}) as meter:
        taken.wait(field_.mails, alive)
    ended()
    accepted = taken.judge(field_.mails)
    return Round(
        name,
        accepted,
        accepted.per_second,
        field_.mails - before,
        meter.wall_seconds,
        {label: meter.usage[label] for label in programs},
        {label: meter.usage[label] for label in stand_by},
        meter.elsewhere_seconds,
    )


def mailroom(field_: Field, roles: Sequence[str]) -> Round:
    """Mailroom as these processes, ready and idle; then the commands are published at full rate by this process."""
    stack = field_.stack
    ids = [uuid7() for _ in range(field_.mails)]
    commands = [(each.encode(), mails.command(number, each)) for number, each in enumerate(ids)]
    with ExitStack() as cleanup:
        programs: dict[str, Program] = {}
        for role in roles:
            programs[role] = start_service(stack, sys.executable, ("services.email", role), "MAILROOM_EMAIL_PORT")
            cleanup.callback(programs[role].stop)
        for program in programs.values():
            wait_ready(program)
        taken = Acceptances(stack)

        def alive() -> None:
            for program in programs.values():
                program.check()

        beside = roots(stack, *BESIDE)
        with Meter({**{role: [each.pid] for role, each in programs.items()}, **beside}) as meter:
            began = time.time()
            asyncio.run(publish(stack, commands))
            taken.wait(field_.mails, alive)
            last = time.time()
            wait_until(lambda: _settled(stack, ids), "all events to be published", 120)
            settled = time.time() - last
        accepted = taken.judge(field_.mails)
    return Round(
        "Mailroom",
        accepted,
        accepted.since(began),
        field_.mails,
        meter.wall_seconds,
        {role: meter.usage[role] for role in programs},
        {label: meter.usage[label] for label in beside},
        meter.elsewhere_seconds,
        settled,
    )


async def publish(stack: Stack, commands: Sequence[tuple[bytes, bytes]]) -> None:
    """Put commands (key, value) on the lane `normal`, as fast as Kafka takes them."""
    producer = AIOKafkaProducer(bootstrap_servers=stack.site.addresses().kafka_bootstrap, acks="all", linger_ms=5)
    await producer.start()
    try:
        topic = LANES["normal"].name
        await asyncio.gather(*[await producer.send(topic, value, key=key) for key, value in commands])
    finally:
        await producer.stop()


def _settled(stack: Stack, ids: Sequence[str]) -> bool:
    """Whether every stream says that its mail was sent, and all its events are published."""
    client: MongoClient[dict[str, Any]] = MongoClient(stack.site.addresses().mongo_url)
    with client:
        messages = client[stack.env()["MAILROOM_EMAIL_DATABASE"]]["messages"]
        if messages.count_documents({"pending": True}, limit=1):
            return False
        sent = messages.count_documents({"_id": {"$in": list(ids)}, "events": {"$regex": '"type":"email\\.sent"'}})
        if sent != len(ids):
            raise BenchFailed(f"all is published, but only {sent} of {len(ids)} messages are recorded as sent")
        return True
