"""Deploy the CloudFormation template, to the emulator locally and in Compose, and read what it made.

As a command (`python -m deploy.local.resources`) it takes the address and credentials from the usual AWS
variables, deploys, prints the outputs as JSON, and can be run again at any time. Pages of MAILROOM_PUBLIC_URL, and of
MAILROOM_CORS_ORIGINS where that is set, may upload to the bucket for files.
"""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deploy.local.site import ROOT, StackError
from deploy.processes import REGION, STACK_NAME, TEMPLATE, AwsResources, aws_environment

_PENDING = "_IN_PROGRESS"
_BROKEN = ("ROLLBACK_COMPLETE", "CREATE_FAILED", "DELETE_FAILED", "ROLLBACK_FAILED")


def origins(environ: Mapping[str, str]) -> list[str]:
    """Whose pages upload: the public URL's, by either name of this machine, and others that may call the API."""
    public = environ.get("MAILROOM_PUBLIC_URL", "")
    others = environ.get("MAILROOM_CORS_ORIGINS", "").split(",")
    found = [each.strip().rstrip("/") for each in (public, public.replace("//127.0.0.1:", "//localhost:"), *others)]
    return [each for each in dict.fromkeys(found) if each]


def deploy(
    aws_url: str, upload_origins: Sequence[str] = (), seconds: float = 60, access_key: str = "test"
) -> AwsResources:
    """Create the stack or bring it up to date; returns what the services need of it.

    Pages of `upload_origins` may upload to the bucket for files. Parts of the template behind a condition, such as the
    distribution, are not made: the emulator does not know all of them.

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
    try:
        return _outputs(_settled(client, upload_origins, seconds))
    except (BotoCoreError, ClientError) as error:
        raise StackError(f"{TEMPLATE} could not be deployed to {aws_url}: {error}") from error


def _settled(client: Any, upload_origins: Sequence[str], seconds: float) -> Mapping[str, Any]:
    stack = _describe(client)
    if stack and str(stack["StackStatus"]) in _BROKEN:
        client.delete_stack(StackName=STACK_NAME)
        _wait(client, seconds)
        stack = None
    arguments = {
        "StackName": STACK_NAME,
        "TemplateBody": (ROOT / TEMPLATE).read_text(),
        "Capabilities": ["CAPABILITY_NAMED_IAM"],
        # The emulator speaks plain HTTP, which the template refuses elsewhere.
        "Parameters": [
            {"ParameterKey": "RequireTls", "ParameterValue": "false"},
            {"ParameterKey": "FilesOrigins", "ParameterValue": ",".join(upload_origins)},
        ],
    }
    if stack is None:
        try:
            client.create_stack(**arguments)
        except client.exceptions.AlreadyExistsException:
            pass  # a first call went through, and its answer came too late
    else:
        try:
            client.update_stack(**arguments)
        except ClientError as error:
            if "No updates" not in str(error):
                raise
    settled = _wait(client, seconds)
    if settled is None or settled["StackStatus"] not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        raise StackError(f"{TEMPLATE} could not be deployed: {_reasons(client, settled)}")
    return settled


def _describe(client: Any) -> Mapping[str, Any] | None:
    try:
        stacks: list[Mapping[str, Any]] = client.describe_stacks(StackName=STACK_NAME)["Stacks"]
    except ClientError as error:
        if "does not exist" in str(error):
            return None
        raise
    return next((each for each in stacks if each["StackStatus"] != "DELETE_COMPLETE"), None)


def _wait(client: Any, seconds: float) -> Mapping[str, Any] | None:
    deadline = time.monotonic() + seconds
    while True:
        stack = _describe(client)
        if stack is None or not str(stack["StackStatus"]).endswith(_PENDING):
            return stack
        if time.monotonic() > deadline:
            raise StackError(f"{TEMPLATE}: CloudFormation is still at {stack['StackStatus']} after {seconds:.0f} s.")
        time.sleep(0.1)


def _reasons(client: Any, stack: Mapping[str, Any] | None) -> str:
    if stack is None:
        return "the stack is gone"
    events = client.describe_stack_events(StackName=STACK_NAME)["StackEvents"]
    failed = [event for event in events if str(event.get("ResourceStatus", "")).endswith("_FAILED")]
    lines = [f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason', '')}" for event in failed]
    return "; ".join(lines) or f"{stack['StackStatus']} {stack.get('StackStatusReason', '')}"


def _outputs(stack: Mapping[str, Any]) -> AwsResources:
    outputs = {str(each["OutputKey"]): str(each["OutputValue"]) for each in stack.get("Outputs", [])}
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
        raise StackError(f"{TEMPLATE} has no output named {missing}.") from None


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
