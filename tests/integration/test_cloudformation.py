"""The CloudFormation templates: valid for AWS, and what the emulator makes of them when they are really deployed."""

import json
from typing import Any

import pytest

from deploy.aws.templates import PARTS, source
from deploy.local.endpoints import AwsEndpoints
from deploy.local.simulator.behaviours import EVENT_TYPES

pytestmark = pytest.mark.usefixtures("no_services")

FORTNIGHT = str(14 * 24 * 3600)


@pytest.fixture(scope="module")
def resources() -> dict[str, Any]:
    return {name: each for part in PARTS for name, each in source(part)["Resources"].items()}


def queue_attributes(aws: AwsEndpoints, url: str) -> dict[str, str]:
    found: dict[str, str] = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return found


def test_nothing_is_lost_for_two_weeks(aws: AwsEndpoints) -> None:
    queue, dead = queue_attributes(aws, aws.queue_url), queue_attributes(aws, aws.dead_letter_queue_url)
    assert json.loads(queue["RedrivePolicy"]) == {"deadLetterTargetArn": dead["QueueArn"], "maxReceiveCount": 100}
    assert (queue["MessageRetentionPeriod"], dead["MessageRetentionPeriod"]) == (FORTNIGHT, FORTNIGHT)
    assert json.loads(dead["RedriveAllowPolicy"])["sourceQueueArns"] == [queue["QueueArn"]]


def test_only_our_topic_may_send_to_the_queue(aws: AwsEndpoints) -> None:
    (statement,) = json.loads(queue_attributes(aws, aws.queue_url)["Policy"])["Statement"]
    assert statement["Principal"] == {"Service": "sns.amazonaws.com"}
    assert statement["Action"] == "sqs:SendMessage"
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": aws.topic_arn}}


def test_another_topic_is_not_heard(aws: AwsEndpoints) -> None:
    sns, sqs = aws.client("sns"), aws.client("sqs")
    topic = sns.create_topic(Name="stranger")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=queue_attributes(aws, aws.queue_url)["QueueArn"])
    sns.publish(TopicArn=topic, Message="from a stranger")
    sns.publish(TopicArn=aws.topic_arn, Message="from our topic")
    bodies: list[str] = []
    while not any("from our topic" in body for body in bodies):
        answer = sqs.receive_message(QueueUrl=aws.queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=2)
        for message in answer.get("Messages", ()):
            bodies.append(message["Body"])
            sqs.delete_message(QueueUrl=aws.queue_url, ReceiptHandle=message["ReceiptHandle"])
    assert not any("from a stranger" in body for body in bodies)
    sns.delete_topic(TopicArn=topic)


def test_only_our_configuration_set_and_receipt_rule_may_publish(aws: AwsEndpoints) -> None:
    policy = aws.client("sns").get_topic_attributes(TopicArn=aws.topic_arn)["Attributes"]["Policy"]
    (statement,) = json.loads(policy)["Statement"]
    account = aws.topic_arn.split(":")[4]
    assert statement["Principal"] == {"Service": "ses.amazonaws.com"}
    assert statement["Condition"] == {
        "StringEquals": {"AWS:SourceAccount": account},
        "ArnLike": {
            "AWS:SourceArn": [
                f"arn:*:ses:*:*:configuration-set/{aws.configuration_set}",
                f"arn:*:ses:*:*:receipt-rule-set/*:receipt-rule/{aws.configuration_set}",
            ]
        },
    }


def test_the_subscription_keeps_the_envelope(aws: AwsEndpoints) -> None:
    sns = aws.client("sns")
    (subscription,) = sns.list_subscriptions_by_topic(TopicArn=aws.topic_arn)["Subscriptions"]
    assert subscription["Protocol"] == "sqs"
    assert subscription["Endpoint"] == queue_attributes(aws, aws.queue_url)["QueueArn"]
    attributes = sns.get_subscription_attributes(SubscriptionArn=subscription["SubscriptionArn"])["Attributes"]
    assert attributes.get("RawMessageDelivery", "false") == "false"


def test_all_ten_event_types_go_to_the_topic(aws: AwsEndpoints) -> None:
    ses = aws.client("sesv2")
    (destination,) = ses.get_configuration_set_event_destinations(ConfigurationSetName=aws.configuration_set)[
        "EventDestinations"
    ]
    assert destination["Enabled"] is True
    assert set(destination["MatchingEventTypes"]) == set(EVENT_TYPES)
    assert destination["SnsDestination"]["TopicArn"] == aws.topic_arn
    found = ses.get_configuration_set(ConfigurationSetName=aws.configuration_set)
    assert found["ReputationOptions"]["ReputationMetricsEnabled"] is True
    assert set(found["SuppressionOptions"]["SuppressedReasons"]) == {"BOUNCE", "COMPLAINT"}


def test_the_alarms(aws: AwsEndpoints) -> None:
    found = aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert {alarm["ComparisonOperator"] for alarm in found} == {"GreaterThanThreshold"}
    assert sorted((alarm["Namespace"], alarm["MetricName"], alarm["Threshold"]) for alarm in found) == [
        ("AWS/SES", "Reputation.BounceRate", 0.05),
        ("AWS/SES", "Reputation.ComplaintRate", 0.001),
        *[("AWS/SQS", "ApproximateAgeOfOldestMessage", 300)] * 2,
        *[("AWS/SQS", "ApproximateNumberOfMessagesVisible", 0)] * 2,
    ]


def test_the_bucket_is_private_and_encrypted(aws: AwsEndpoints) -> None:
    s3 = aws.client("s3")
    assert all(s3.get_public_access_block(Bucket=aws.bucket)["PublicAccessBlockConfiguration"].values())
    (rule,) = s3.get_bucket_encryption(Bucket=aws.bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    assert "Status" not in s3.get_bucket_versioning(Bucket=aws.bucket)


# The emulator leaves out alarms' dimensions and a bucket's lifecycle, and TLS cannot be required of it: these are read
# from the templates.


def test_the_queue_alarms_are_about_our_queues(resources: dict[str, Any]) -> None:
    names = {
        "DeadLettersAlarm": "DeadLetterQueue",
        "WebhookDeadLettersAlarm": "WebhookDeadLetterQueue",
        "OldestNotificationAlarm": "NotificationsQueue",
        "FilesDeadLettersAlarm": "FilesDeadLetterQueue",
        "OldestFileNotificationAlarm": "FilesQueue",
    }
    for alarm, queue in names.items():
        (dimension,) = resources[alarm]["Properties"]["Dimensions"]
        assert dimension == {"Name": "QueueName", "Value": {"Fn::GetAtt": [queue, "QueueName"]}}


def test_content_expires_and_unfinished_uploads_are_dropped(resources: dict[str, Any]) -> None:
    expire, abort = resources["ContentBucket"]["Properties"]["LifecycleConfiguration"]["Rules"]
    assert (expire["Prefix"], expire["ExpirationInDays"]) == ("content/", {"Ref": "ContentRetentionDays"})
    assert abort["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] == 1
    assert {expire["Status"], abort["Status"]} == {"Enabled"}


def test_plain_http_is_denied_everywhere(resources: dict[str, Any]) -> None:
    denied = [
        statement["Action"]
        for resource in resources.values()
        for each in resource["Properties"].get("PolicyDocument", {}).get("Statement", ())
        for statement in ([each["Fn::If"][1]] if "Fn::If" in each else [each])
        if statement["Effect"] == "Deny"
        and statement["Principal"] == "*"
        and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    ]
    assert sorted(denied) == ["s3:*"] * 2 + ["sqs:*"] * 5


def test_the_service_may_do_what_it_does_and_nothing_else(aws: AwsEndpoints) -> None:
    iam = aws.client("iam")
    (policy,) = [each for each in iam.list_policies(Scope="Local")["Policies"] if "ServicePolicy" in each["PolicyName"]]
    version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
    statements = {each["Sid"]: each for each in version["PolicyVersion"]["Document"]["Statement"]}
    sending = statements.pop("SendFromOurDomainThroughOurConfigurationSet")
    assert sorted(sending["Action"]) == ["ses:SendEmail", "ses:SendRawEmail"]
    assert [arn.rpartition(":")[2] for arn in sending["Resource"]] == [
        "identity/mailroom.example",
        f"configuration-set/{aws.configuration_set}",
    ]
    assert sending["Condition"] == {"StringLike": {"ses:FromAddress": "*@mailroom.example"}}
    assert {sid: each["Resource"] for sid, each in statements.items()} == {
        "QuotaAndSuppressionList": "*",
        "TakeNotifications": queue_attributes(aws, aws.queue_url)["QueueArn"],
        "KeepContent": f"arn:aws:s3:::{aws.bucket}/content/*",
        "FindContent": [f"arn:aws:s3:::{aws.bucket}", f"arn:aws:s3:::{aws.files_bucket}"],
        "ReadAttachments": f"arn:aws:s3:::{aws.files_bucket}/*",
    }
    actions = [action for each in statements.values() for action in [each["Action"]] for action in _listed(action)]
    assert not any("*" in action for action in actions)


def _listed(actions: str | list[str]) -> list[str]:
    return [actions] if isinstance(actions, str) else actions
