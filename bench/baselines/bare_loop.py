"""Nothing but the calls: a process that sends N mails with aioboto3, 32 at a time. What no sender in Python can beat.

No Kafka, no store, no licence, no outcome: whatever Mailroom does beyond this is what the ratio shows. The MIME is the
same size, the tags are the same three. `plain` is the client as anybody makes it, on asyncio's own loop, with retries
off and connections enough; `tuned` is Mailroom's client on Mailroom's event loop.

    python -m bench.baselines.bare_loop plain|tuned COUNT CONCURRENCY RAW_FILE CONFIGURATION_SET
"""

import asyncio
import os
import sys
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path
from typing import Any

import aioboto3
import uvloop
from aiobotocore.config import AioConfig

from bench.mails import CATEGORY, recipient
from contracts.ids import uuid7
from deploy.processes import FROM_ADDRESS
from services.email.domain.correlation import ATTEMPT_TAG, MESSAGE_TAG
from services.kit.aws import AwsAccount, ses_client


def plain_client() -> AbstractAsyncContextManager[Any]:
    """The client as anybody makes it; credentials and addresses come from the environment."""
    config = AioConfig(retries={"total_max_attempts": 1}, max_pool_connections=64)
    client: AbstractAsyncContextManager[Any] = aioboto3.Session().client("sesv2", config=config)
    return client


def tuned_client() -> AbstractAsyncContextManager[Any]:
    """Mailroom's."""
    region, key, secret = (os.environ[f"AWS_{name}"] for name in ("REGION", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
    return ses_client(AwsAccount(region, key, secret, ses_endpoint_url=os.environ["AWS_ENDPOINT_URL_SESV2"]))


async def send_all(
    clients: AbstractAsyncContextManager[Any], total: int, concurrency: int, raw: bytes, configuration_set: str
) -> None:
    """Returns when all are accepted; raises on the first that is not."""
    numbers = count()

    async def work(client: Any) -> None:
        while (number := next(numbers)) < total:
            await client.send_email(
                FromEmailAddress=FROM_ADDRESS,
                Destination={"ToAddresses": [recipient(number)]},
                Content={"Raw": {"Data": raw}},
                ConfigurationSetName=configuration_set,
                EmailTags=[
                    {"Name": MESSAGE_TAG, "Value": uuid7()},
                    {"Name": ATTEMPT_TAG, "Value": uuid7()},
                    {"Name": "category", "Value": CATEGORY},
                ],
            )

    async with clients as client:
        await asyncio.gather(*(work(client) for _ in range(concurrency)))


if __name__ == "__main__":
    kind, total_, concurrency_, raw_file, configuration_set_ = sys.argv[1:]
    made = tuned_client() if kind == "tuned" else plain_client()
    work_ = send_all(made, int(total_), int(concurrency_), Path(raw_file).read_bytes(), configuration_set_)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if kind == "tuned" else None) as runner:
        runner.run(work_)
