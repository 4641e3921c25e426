"""SES's event JSON, all ten types, and what it tells of a mail that it receives.

Shapes: Amazon SES Developer Guide, "Contents of event data that Amazon SES publishes to Amazon SNS" and its
examples. A message ends in a newline, as SES's do. The `mail` object is encoded once for a mail, not once an event.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import orjson

from deploy.local.simulator.behaviours import Step
from deploy.local.simulator.mime import Headers, bare_address, first_link, parse
from deploy.local.simulator.submission import Submission

ACCOUNT = "000000000000"
_HEADERS_LIMIT = 10 * 1024

_MTA = "dsn; mx.mailroom-simulator.example"
PERSON = (
    "198.51.100.7",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
)
PROXY = ("66.249.84.1", "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)")
"""Who reads a mail: address and program."""

_READERS = {"person": PERSON, "proxy": PROXY}

_BOUNCES = {
    "permanent": ("Permanent", "General", "5.1.1", "smtp; 550 5.1.1 user unknown"),
    "transient": ("Transient", "MailboxFull", "4.2.2", "smtp; 452 4.2.2 mailbox full"),
    "undetermined": ("Undetermined", "Undetermined", "5.0.0", "smtp; 550 5.0.0 something went wrong"),
}
_SUPPRESSED_TEXT = (
    "Amazon SES did not send the message to this address because it is on the suppression list for your account."
)


def timestamp(at: datetime) -> str:
    """SES's usual form: milliseconds and Z."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Mail:
    """What all events of one accepted mail share. `prefix` is the encoded `mail` object up to its tags."""

    provider_message_id: str
    at: datetime
    destination: tuple[str, ...]
    raw: bytes
    prefix: bytes
    tags: dict[str, list[str]]

    def encoded(self, **more: str) -> orjson.Fragment:
        tags = {**self.tags, **{f"ses:{name.replace('_', '-')}": [value] for name, value in more.items()}}
        return orjson.Fragment(self.prefix[:-1] + b',"tags":' + orjson.dumps(tags) + b"}")


def mail_of(submission: Submission, provider_message_id: str, at: datetime, region: str, source_ip: str) -> Mail:
    """The `mail` object of an accepted submission."""
    address = bare_address(submission.source)
    domain = address.rpartition("@")[2]
    headers, truncated = _reported(submission.parsed.headers)
    common = submission.parsed.common_headers(provider_message_id)
    mail = {
        "timestamp": timestamp(at),
        "source": submission.source,
        "sourceArn": f"arn:aws:ses:{region}:{ACCOUNT}:identity/{domain}",
        "sendingAccountId": ACCOUNT,
        "messageId": provider_message_id,
        "destination": submission.destination,
        "headersTruncated": truncated,
        "headers": headers,
        "commonHeaders": {"returnPath": address, **common},
    }
    tags = {
        "ses:source-tls-version": ["TLSv1.3"],
        "ses:operation": ["SendEmail"],
        "ses:configuration-set": [submission.configuration_set or ""],
        "ses:source-ip": [source_ip],
        "ses:from-domain": [domain],
        "ses:caller-identity": ["mailroom"],
        **{name: [value] for name, value in submission.tags.items()},
    }
    return Mail(provider_message_id, at, submission.destination, submission.raw, orjson.dumps(mail), tags)


def render(step: Step, mail: Mail, recipient: str | None, now: datetime) -> bytes:
    """The message that SES gives to SNS for one step of a mail's way. Its own time, where it has one, is `now`."""
    name, build = _PARTS[step.kind]
    part = build(step, mail, recipient or mail.destination[0], now)
    extra = {"outgoing_ip": "192.0.2.10"} if step.kind == "Delivery" else {}
    return orjson.dumps({"eventType": step.kind, "mail": mail.encoded(**extra), name: part}) + b"\n"


def received(raw: bytes, source: str, recipients: Sequence[str], now: datetime) -> bytes:
    """The message that SES gives to SNS for a mail to us, where the action of its receipt rule is to stop. With an SNS
    action it would hold the mail as `content` too. Raises SesError where the mail has no readable headers.
    """
    parsed = parse(raw)
    listed, truncated = _reported(parsed.headers)
    verdict = {"status": "PASS"}
    verdicts = {f"{name}Verdict": verdict for name in ("spam", "virus", "spf", "dkim", "dmarc")}
    message_id = uuid4().hex
    mail = {
        "timestamp": timestamp(now),
        "source": source,
        "messageId": message_id,
        "destination": list(recipients),
        "headersTruncated": truncated,
        "headers": listed,
        "commonHeaders": {"returnPath": source, **parsed.common_headers(message_id)},
    }
    receipt = {
        "timestamp": timestamp(now),
        "processingTimeMillis": 20,
        "recipients": list(recipients),
        **verdicts,
        "action": {"type": "Stop"},
    }
    return orjson.dumps({"notificationType": "Received", "mail": mail, "receipt": receipt})


def _reported(headers: Headers) -> tuple[list[dict[str, str]], bool]:
    """The headers that an event holds, and whether some are left out."""
    size = 0
    listed: list[dict[str, str]] = []
    for name, value in headers:
        size += len(name) + len(value) + 4
        if size > _HEADERS_LIMIT:
            return listed, True
        listed.append({"name": name, "value": value})
    return listed, False


def _feedback_id(mail: Mail) -> str:
    return f"{mail.provider_message_id[:16]}-{uuid4()}-000000"


def _send(_: Step, __: Mail, ___: str, ____: datetime) -> dict[str, Any]:
    return {}


def _delivery(_: Step, mail: Mail, recipient: str, now: datetime) -> dict[str, Any]:
    return {
        "timestamp": timestamp(now),
        "processingTimeMillis": max(0, int((now - mail.at).total_seconds() * 1000)),
        "recipients": [recipient],
        "smtpResponse": "250 2.0.0 OK accepted by the simulator",
        "remoteMtaIp": "192.0.2.25",
        "reportingMTA": "a0-1.smtp-out.mailroom-simulator.example",
    }


def _bounce(step: Step, mail: Mail, recipient: str, now: datetime) -> dict[str, Any]:
    common = {"timestamp": timestamp(now), "feedbackId": _feedback_id(mail)}
    if step.variant == "outOfOffice":
        return {
            "bounceType": "Transient",
            "bounceSubType": "General",
            "bouncedRecipients": [{"emailAddress": recipient}],
            **common,
        }
    if step.variant == "suppressed":
        entry = {"emailAddress": recipient, "action": "failed", "status": "5.1.1", "diagnosticCode": _SUPPRESSED_TEXT}
        return {
            "bounceType": "Permanent",
            "bounceSubType": "OnAccountSuppressionList",
            "bouncedRecipients": [entry],
            **common,
            "reportingMTA": "dns; amazonses.com",
        }
    kind, sub_type, status, code = _BOUNCES[step.variant]
    entry = {"emailAddress": recipient, "action": "failed", "status": status, "diagnosticCode": code}
    return {
        "bounceType": kind,
        "bounceSubType": sub_type,
        "bouncedRecipients": [entry],
        **common,
        "reportingMTA": _MTA,
    }


def _complaint(step: Step, mail: Mail, recipient: str, now: datetime) -> dict[str, Any]:
    return {
        "complainedRecipients": [{"emailAddress": recipient}],
        "timestamp": timestamp(now),
        "feedbackId": _feedback_id(mail),
        "complaintSubType": None,
        "userAgent": "Amazon SES Mailbox Simulator",
        "complaintFeedbackType": step.variant,
        "arrivalDate": timestamp(mail.at),
    }


def _reject(_: Step, __: Mail, ___: str, ____: datetime) -> dict[str, Any]:
    return {"reason": "Bad content"}


def _open(step: Step, _: Mail, __: str, now: datetime) -> dict[str, Any]:
    ip, agent = _READERS[step.variant]
    return {"timestamp": timestamp(now), "userAgent": agent, "ipAddress": ip}


def _click(step: Step, mail: Mail, _: str, now: datetime) -> dict[str, Any]:
    ip, agent = _READERS[step.variant]
    link = first_link(mail.raw)
    return {"timestamp": timestamp(now), "ipAddress": ip, "userAgent": agent, "link": link, "linkTags": None}


def _rendering_failure(_: Step, __: Mail, ___: str, ____: datetime) -> dict[str, Any]:
    return {"templateName": "simulated", "errorMessage": "Attribute 'name' is not present in the rendering data."}


def _delay(_: Step, mail: Mail, recipient: str, now: datetime) -> dict[str, Any]:
    entry = {"emailAddress": recipient, "status": "4.4.1", "diagnosticCode": "smtp; 421 4.4.1 unable to connect"}
    return {
        "timestamp": timestamp(now),
        "delayType": "TransientCommunicationFailure",
        "expirationTime": timestamp(mail.at + timedelta(hours=14)),
        "delayedRecipients": [entry],
    }


def _subscription(_: Step, __: Mail, ___: str, now: datetime) -> dict[str, Any]:
    def preferences(left: bool) -> dict[str, Any]:
        status = "OptOut" if left else "OptIn"
        topics = [{"topicName": "news", "subscriptionStatus": status}]
        return {"unsubscribeAll": left, "topicSubscriptionStatus": topics, "topicDefaultSubscriptionStatus": topics}

    return {
        "contactList": "mailroom",
        "timestamp": timestamp(now),
        "source": "UnsubscribeHeader",
        "newTopicPreferences": preferences(left=True),
        "oldTopicPreferences": preferences(left=False),
    }


_Builder = Callable[[Step, Mail, str, datetime], dict[str, Any]]
_PARTS: dict[str, tuple[str, _Builder]] = {
    "Send": ("send", _send),
    "Delivery": ("delivery", _delivery),
    "Bounce": ("bounce", _bounce),
    "Complaint": ("complaint", _complaint),
    "Reject": ("reject", _reject),
    "Open": ("open", _open),
    "Click": ("click", _click),
    "Rendering Failure": ("failure", _rendering_failure),
    "DeliveryDelay": ("deliveryDelay", _delay),
    "Subscription": ("subscription", _subscription),
}
