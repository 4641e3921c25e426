"""What the template makes where SES's notifications come by HTTPS, and what it leaves as it is where they do not."""

from __future__ import annotations

from tests.unit.policies.template import Rendered, source

URL = "https://mail.example.com/api/webhooks/ses"
ON, OFF = Rendered(WebhookUrl=URL), Rendered()
AN_HOUR = 3600
"""How long SNS repeats at most (Amazon SNS Developer Guide, "Amazon SNS message delivery retries")."""


def test_the_topic_sends_there_signed_and_in_its_envelope() -> None:
    subscription = ON.properties("WebhookSubscription")
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("https", URL)
    assert subscription["TopicArn"] == ON.properties("NotificationsSubscription")["TopicArn"]
    assert subscription["RawMessageDelivery"] is False, "a raw delivery has no signature"
    assert ON.properties("NotificationsTopic")["SignatureVersion"] == "2"


def test_what_sns_gives_up_is_kept_for_two_weeks_and_told_of() -> None:
    redrive = ON.properties("WebhookSubscription")["RedrivePolicy"]
    assert redrive == {"deadLetterTargetArn": ON.arn("WebhookDeadLetterQueue")}
    assert ON.properties("WebhookDeadLetterQueue")["MessageRetentionPeriod"] == 14 * 86_400
    alarm = ON.properties("WebhookDeadLettersAlarm")
    assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": "mailroom-local-webhook-dead"}]
    assert "WebhookDeadLetterQueueUrl" in ON.outputs()


def test_an_outage_of_minutes_is_repeated_through_and_never_longer_than_sns_allows() -> None:
    policy = ON.properties("WebhookSubscription")["DeliveryPolicy"]["healthyRetryPolicy"]
    assert policy["backoffFunction"] == "linear"
    mean = (policy["minDelayTarget"] + policy["maxDelayTarget"]) / 2
    assert AN_HOUR / 2 < mean * policy["numRetries"] < AN_HOUR


def test_the_queue_and_the_right_to_confirm_are_there_before_the_topic_asks() -> None:
    before = source()["Resources"]["WebhookSubscription"]["DependsOn"]
    assert set(before) == {"WebhookDeadLetterQueuePolicy", "ServicePolicy"}


def test_without_it_the_topic_is_as_it_always_was() -> None:
    assert set(OFF.properties("NotificationsTopic")) == {"TopicName"}
    assert not OFF.has("WebhookSubscription")
    assert "WebhookDeadLetterQueueUrl" not in OFF.outputs()
