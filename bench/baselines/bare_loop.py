"""Nothing but the calls: a process that sends N mails with aioboto3, 32 at a time. What no sender in Python can beat.

No Kafka, no store, no licence, no outcome: whatever Mailroom does beyond this is what the ratio shows. The client is
made exactly as Mailroom's own, the MIME is the same size, the tags are the same three.

    python -m bench.baselines.bare_loop COUNT CONCURRENCY RAW_FILE CONFIGURATION_SET
"""

import asyncio
import os
import sys
from itertools import count
from pathlib import Path
from typing import Any

from bench.mails import CATEGORY, recipient
from contracts.ids import uuid7
from deploy.processes import FROM_ADDRESS
from services.email.domain.correlation import ATTEMPT_TAG, MESSAGE_TAG
from services.kit.aws import AwsAccount, ses_client


async def send_all(total: int, concurrency: int, raw: bytes, configuration_set: str) -> None:
    """Returns when all are accepted; raises on the first that is not."""
    account = AwsAccount(
        os.environ["AWS_REGION"],
        os.environ["AWS_ACCESS_KEY_ID"],
        os.environ["AWS_SECRET_ACCESS_KEY"],
        ses_endpoint_url=os.environ["AWS_ENDPOINT_URL_SESV2"],
    )
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

    async with ses_client(account) as client:
        await asyncio.gather(*(work(client) for _ in range(concurrency)))


if __name__ == "__main__":
    total_, concurrency_, raw_file, configuration_set_ = sys.argv[1:]
    asyncio.run(send_all(int(total_), int(concurrency_), Path(raw_file).read_bytes(), configuration_set_))
