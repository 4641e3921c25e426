"""SES notifications as SES writes them, for tests; made by us after the shapes in the SES Developer Guide."""

from __future__ import annotations

import json
from typing import Any

MESSAGE_ID = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b"
ATTEMPT_ID = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0c"
PROVIDER_ID = "0100018f0a0b0c0d-aaaa-bbbb-cccc-000000000000"
RECIPIENT = "jane@example.com"

TAGS = {
    "mailroom-message-id": [MESSAGE_ID],
    "mailroom-attempt-id": [ATTEMPT_ID],
    "ses:configuration-set": ["mailroom"],
}


def mail(**changes: Any) -> dict[str, Any]:
    """The `mail` object, with our tags unless told otherwise."""
    base: dict[str, Any] = {
        "timestamp": "2026-11-24T10:00:00.000Z",
        "source": "Mailroom <noreply@example.org>",
        "messageId": PROVIDER_ID,
        "destination": [RECIPIENT],
        "headersTruncated": False,
        "tags": TAGS,
    }
    return {key: value for key, value in {**base, **changes}.items() if value is not None}


def notification(
    kind: str, part: str, body: dict[str, Any], *, form: str = "eventType", **mail_changes: Any
) -> dict[str, Any]:
    """A notification of `kind` with the object `part`."""
    return {form: kind, "mail": mail(**mail_changes), part: body}


PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "Send": ("send", {}),
    "Delivery": (
        "delivery",
        {
            "timestamp": "2026-11-24T10:00:01.500Z",
            "processingTimeMillis": 1500,
            "recipients": [RECIPIENT],
            "smtpResponse": "250 ok",
            "reportingMTA": "a1-1.smtp-out.amazonses.com",
        },
    ),
    "Bounce": (
        "bounce",
        {
            "bounceType": "Permanent",
            "bounceSubType": "General",
            "bouncedRecipients": [
                {
                    "emailAddress": RECIPIENT,
                    "action": "failed",
                    "status": "5.1.1",
                    "diagnosticCode": "smtp; 550 5.1.1 user unknown",
                }
            ],
            "timestamp": "2026-11-24T10:00:02.000Z",
            "feedbackId": "feedback-1",
            "reportingMTA": "dsn; a1-1.smtp-out.amazonses.com",
        },
    ),
    "Complaint": (
        "complaint",
        {
            "complainedRecipients": [{"emailAddress": RECIPIENT}],
            "timestamp": "2026-11-24T10:05:00.000Z",
            "feedbackId": "feedback-2",
            "complaintFeedbackType": "abuse",
            "complaintSubType": None,
            "arrivalDate": "2026-11-24T10:05:00.000Z",
        },
    ),
    "Reject": ("reject", {"reason": "Bad content"}),
    "Rendering Failure": ("failure", {"errorMessage": "Attribute 'x' is not present.", "templateName": "t"}),
    "Open": (
        "open",
        {
            "ipAddress": "192.0.2.1",
            "timestamp": "2026-11-24T10:10:00.000Z",
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0",
        },
    ),
    "Click": (
        "click",
        {
            "ipAddress": "192.0.2.1",
            "timestamp": "2026-11-24T10:11:00.000Z",
            "userAgent": "Mozilla/5.0 (X11; Linux x86_64) Firefox/130.0",
            "link": "https://example.com/",
            "linkTags": None,
        },
    ),
    "DeliveryDelay": (
        "deliveryDelay",
        {
            "timestamp": "2026-11-24T10:00:30.000Z",
            "delayType": "MailboxFull",
            "expirationTime": "2026-11-25T00:00:30.000Z",
            "delayedRecipients": [{"emailAddress": RECIPIENT, "status": "4.2.2", "diagnosticCode": "smtp; 452"}],
        },
    ),
    "Subscription": (
        "subscription",
        {
            "contactList": "customers",
            "timestamp": "2026-11-24T10:12:00.000Z",
            "source": "UnsubscribeHeader",
            "newTopicPreferences": {
                "unsubscribeAll": False,
                "topicSubscriptionStatus": [{"topicName": "news", "subscriptionStatus": "OptOut"}],
            },
            "oldTopicPreferences": {
                "unsubscribeAll": False,
                "topicSubscriptionStatus": [{"topicName": "news", "subscriptionStatus": "OptIn"}],
            },
        },
    ),
}


def example(
    kind: str, *, form: str = "eventType", changes: dict[str, Any] | None = None, **mail_changes: Any
) -> dict[str, Any]:
    """One of the ten types, its object changed by `changes`."""
    part, body = PARTS[kind]
    return notification(kind, part, {**body, **(changes or {})}, form=form, **mail_changes)


def sns(value: dict[str, Any] | str, **changes: Any) -> dict[str, Any]:
    """The SNS envelope as it lies on SQS."""
    message = value if isinstance(value, str) else json.dumps(value) + "\n"
    return {
        "Type": "Notification",
        "MessageId": "sns-1",
        "TopicArn": "arn:aws:sns:us-east-1:000000000000:mailroom",
        "Subject": "Amazon SES Email Event Notification",
        "Message": message,
        "Timestamp": "2026-11-24T10:00:03.250Z",
        **changes,
    }
