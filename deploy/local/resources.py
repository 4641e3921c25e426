"""Deploy the CloudFormation templates, to the emulator locally and in Compose, and read what they made.

As a command (`python -m deploy.local.resources`) it takes the address and credentials from the usual AWS
variables, deploys, prints the outputs as JSON, and can be run again at any time. Pages of MAILROOM_PUBLIC_URL, and of
MAILROOM_CORS_ORIGINS where that is set, may upload to the bucket for files.
"""

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deploy.aws.move import move
from deploy.aws.stacks import BROKEN, DeployError, Stacks
from deploy.aws.templates import PARTS
from deploy.local.site import StackError
from deploy.processes import REGION, STACK_NAME, AwsResources, aws_environment

NOT_IMPORTED = ("AWS::IAM::ManagedPolicy", "AWS::IAM::Role")
"""What the emulator's CloudFormation cannot import, or replaces at the next update though nothing asks for it."""


def origins(environ: Mapping[str, str]) -> list[str]:
    """Whose pages upload: the public URL's, by either name of this machine, and others that may call the API."""
    public = environ.get("MAILROOM_PUBLIC_URL", "")
    others = environ.get("MAILROOM_CORS_ORIGINS", "").split(",")
    found = [each.strip().rstrip("/") for each in (public, public.replace("//127.0.0.1:", "//localhost:"), *others)]
    return [each for each in dict.fromkeys(found) if each]


def deploy(
    aws_url: str,
    upload_origins: Sequence[str] = (),
    seconds: float = 60,
    access_key: str = "test",
    record: Path | None = None,
) -> AwsResources:
    """Create the stacks or bring them up to date; returns what the services need of them.

    Pages of `upload_origins` may upload to the bucket for files. Parts of the templates behind a condition, such as the
    distribution, are not made: the emulator does not know all of them. A stack whose creation failed is made anew, and
    the one stack of earlier versions is made into two (`record`: where that is written down on the way).

    Raises StackError with CloudFormation's own reasons when a resource cannot be made.
    """
    credentials = aws_environment(aws_url, access_key)
    client = boto3.client(
        "cloudformation",
        endpoint_url=aws_url,
        region_name=REGION,
        aws_access_key_id=credentials["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
        config=Config(connect_timeout=2, read_timeout=20, retries={"total_max_attempts": 3}),
    )
    stacks = Stacks(client, STACK_NAME, seconds=seconds, poll=0.1)
    # The emulator speaks plain HTTP, which the templates refuse elsewhere.
    given = {"RequireTls": "false", "FilesOrigins": ",".join(upload_origins)}
    record = record or Path(tempfile.gettempdir()) / "mailroom.move.json"
    try:
        for part in PARTS:
            if str((stacks.describe(part) or {}).get("StackStatus")) in BROKEN:
                stacks.delete(part)
        if record.exists() or stacks.is_one():
            return _outputs(move(stacks, given, record, not_imported=NOT_IMPORTED))
        return _outputs(stacks.deploy(given))
    except DeployError as error:
        raise StackError(str(error)) from error
    except (BotoCoreError, ClientError) as error:
        raise StackError(f"The templates could not be deployed to {aws_url}: {error}") from error


def _outputs(outputs: Mapping[str, str]) -> AwsResources:
    try:
        return AwsResources(
            queue_url=outputs["NotificationsQueueUrl"],
            dead_letter_queue_url=outputs["DeadLetterQueueUrl"],
            topic_arn=outputs["NotificationsTopicArn"],
            bucket=outputs["ContentBucketName"],
            configuration_set=outputs["ConfigurationSetName"],
            files_bucket=outputs["FilesBucketName"],
            files_queue_url=outputs["FilesQueueUrl"],
            files_dead_letter_queue_url=outputs["FilesDeadLetterQueueUrl"],
            distribution_domain=outputs.get("FilesDistributionDomain", ""),
        )
    except KeyError as missing:
        raise StackError(f"The templates have no output named {missing}.") from None


def main() -> int:
    aws_url = os.environ.get("AWS_ENDPOINT_URL")
    if not aws_url:
        print("AWS_ENDPOINT_URL is not set: this command deploys to an emulator only.", file=sys.stderr)
        return 2
    try:
        made = deploy(aws_url, origins(os.environ))
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({name: getattr(made, name) for name in AwsResources.__slots__}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
