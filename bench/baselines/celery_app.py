"""The usual way in Python: Celery on Redis, acknowledged late and without retries, each task one boto3 call.

It runs in the environment of `requirements/bench.txt`. A task carries the mail (recipient, subject, html, text), as an
application's would; the MIME is made beforehand, so that writing it costs Celery nothing. No results are kept. What it
does not do: after a crash it sends again what it had sent, and nobody knows what became of a call without an answer.

    celery -A bench.baselines.celery_app worker …
    python -m bench.baselines.celery_app COUNT BODY_FILE     (puts COUNT tasks into the queue)
"""

import json
import os
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
from botocore.config import Config
from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "4")),
    worker_hijack_root_logger=False,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    broker_connection_retry_on_startup=True,
)
_clients: dict[int, Any] = {}


def client() -> Any:
    """One client per process: boto3's are safe for threads, and not to be taken through a fork."""
    if os.getpid() not in _clients:
        _clients[os.getpid()] = (
            boto3.client("sesv2", config=Config(retries={"total_max_attempts": 1}, max_pool_connections=64)),
            Path(os.environ["BENCH_RAW_FILE"]).read_bytes(),
        )
    return _clients[os.getpid()]


@app.task(name="bench.send", max_retries=0)  # type: ignore[untyped-decorator, unused-ignore]
def send(message_id: str, mail: dict[str, str]) -> None:
    """Send one mail."""
    ses, raw = client()
    ses.send_email(
        FromEmailAddress=os.environ["BENCH_FROM"],
        Destination={"ToAddresses": [mail["to"]]},
        Content={"Raw": {"Data": raw}},
        ConfigurationSetName=os.environ["SES_CONFIGURATION_SET"],
        EmailTags=[
            {"Name": "mailroom-message-id", "Value": message_id},
            {"Name": "mailroom-attempt-id", "Value": str(uuid4())},
            {"Name": "category", "Value": "notification"},
        ],
    )


def enqueue(total: int, body: dict[str, str]) -> None:
    """Put `total` tasks into the queue."""
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(total):
            mail = {**body, "to": f"person{number}@bench.example"}
            send.apply_async((str(uuid4()), mail), producer=producer)


if __name__ == "__main__":
    enqueue(int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
