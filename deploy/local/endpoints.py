"""What a test or tool needs to talk to the AWS side of a stack."""

from dataclasses import dataclass
from typing import Any

import boto3

from deploy.local.stack import Stack
from deploy.processes import REGION, aws_environment


@dataclass(frozen=True, slots=True)
class AwsEndpoints:
    """The emulator with the template deployed, and the simulator that stands where SES stands."""

    endpoint_url: str
    ses_endpoint_url: str
    queue_url: str
    dead_letter_queue_url: str
    topic_arn: str
    bucket: str
    files_bucket: str
    files_queue_url: str
    files_dead_letter_queue_url: str
    region: str
    configuration_set: str
    access_key_id: str
    secret_access_key: str

    def client(self, service: str, endpoint_url: str | None = None) -> Any:
        """boto3's client of a service, by default of the emulator's."""
        return boto3.client(
            service,
            endpoint_url=endpoint_url or self.endpoint_url,
            region_name=self.region,
            aws_access_key_id=self.access_key_id,
            aws_secret_access_key=self.secret_access_key,
        )

    @property
    def account(self) -> str:
        """The number of the account that the template was deployed in."""
        return self.topic_arn.split(":")[4]


def aws_endpoints(stack: Stack) -> AwsEndpoints:
    """The endpoints of a stack whose `resources` were deployed; raises StackError before that."""
    made, aws_url = stack.resources(), stack.site.url("aws")
    credentials = aws_environment(aws_url, stack.site.aws_access_key)
    return AwsEndpoints(
        endpoint_url=aws_url,
        ses_endpoint_url=stack.site.url("simulator"),
        queue_url=made.queue_url,
        dead_letter_queue_url=made.dead_letter_queue_url,
        topic_arn=made.topic_arn,
        bucket=made.bucket,
        files_bucket=made.files_bucket,
        files_queue_url=made.files_queue_url,
        files_dead_letter_queue_url=made.files_dead_letter_queue_url,
        region=REGION,
        configuration_set=made.configuration_set,
        access_key_id=credentials["AWS_ACCESS_KEY_ID"],
        secret_access_key=credentials["AWS_SECRET_ACCESS_KEY"],
    )
