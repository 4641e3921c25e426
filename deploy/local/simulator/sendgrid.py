"""SendGrid's `POST /v3/mail/send`, with its limits and errors.

Sources: twilio/sendgrid-oai `tsg_mail_v3.yaml` and the list of errors in SendGrid's documentation. Not simulated: more
than one personalization, Cc, Bcc, templates, planned sending.
"""

import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any
from uuid import uuid4

import orjson

from deploy.local.simulator import mime
from deploy.local.simulator.faults import Fault
from deploy.local.simulator.http_api import Answered
from deploy.local.simulator.submission import Submission, read_address
from deploy.local.simulator.wire import Request, Response, json_response

PATH = "/v3/mail/send"
MAX_REQUEST = 30_000_000
MAX_CUSTOM_ARGS = 10_000
MAX_CATEGORIES = 10

_RESERVED = frozenset(
    (
        "x-sg-id",
        "x-sg-eid",
        "received",
        "dkim-signature",
        "content-type",
        "content-transfer-encoding",
        "to",
        "from",
        "subject",
        "reply-to",
        "cc",
        "bcc",
    )
)
_RATE_WINDOW = 60
_POLICY = SMTP.clone(max_line_length=100_000, cte_type="7bit")
"""Wide lines: the library would write a long URL in a header as encoded words."""

Json = Mapping[str, Any]


class SendGrid:
    """See `http_api.Dialect`."""

    name = "sendgrid"
    operation = "SendGridSend"

    def read(self, request: Request) -> Submission:
        if request.path != PATH:
            raise Answered(_errors(404, "not found"))
        if request.method != "POST":
            raise Answered(_errors(405, "method not allowed"))
        if not request.headers.get("authorization", "").removeprefix("Bearer ").strip():
            raise Answered(_errors(401, "The provided authorization grant is invalid, expired, or revoked"))
        if len(request.body) >= MAX_REQUEST:
            raise Answered(_errors(413, "The JSON payload you have included in your request is too large."))
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            raise Answered(_errors(400, "Bad Request")) from None
        return _read(_object(body))

    def new_id(self, submission: Submission) -> str:
        return urlsafe_b64encode(uuid4().bytes).decode().rstrip("=")

    def accepted(self, provider_message_id: str) -> Response:
        return Response(202, headers=((b"x-message-id", provider_message_id.encode()),))

    def refused(self, fault: Fault) -> Response:
        if fault.kind == "throttle":
            reset = str(int(time.time()) + _RATE_WINDOW).encode()
            limits = ((b"x-ratelimit-limit", b"600"), (b"x-ratelimit-remaining", b"0"), (b"x-ratelimit-reset", reset))
            return Response(429, _body("too many requests", None), headers=limits)
        if fault.kind == "accountSuspended":
            return _errors(403, "access forbidden")
        if fault.kind == "sendingPaused":
            return _errors(401, "Maximum credits exceeded")
        return _errors(fault.status or 400, fault.message, fault.code)

    def failed(self, status: int, message: str) -> Response:
        return _errors(status, message)


def _read(body: Json) -> Submission:
    _check_settings(body)
    personalizations = body.get("personalizations")
    if not isinstance(personalizations, list) or len(personalizations) != 1:
        raise _wrong("personalizations", "The simulator takes one personalization.")
    own = _object(personalizations[0])
    to = [_person(each, "personalizations.0.to") for each in _list(own.get("to"), "personalizations.0.to")]
    addresses = [address.addr_spec.lower() for address in to]
    if not to:
        raise _wrong("personalizations.0.to", "The to array is required.")
    if len(set(addresses)) != len(addresses):
        raise _wrong("personalizations.0.to", "Each email address in the personalization block should be unique.")
    arguments = _strings({**_object(body.get("custom_args") or {}), **_object(own.get("custom_args") or {})})
    if sum(len(name) + len(value.encode()) for name, value in arguments.items()) >= MAX_CUSTOM_ARGS:
        raise _wrong("custom_args", "The custom arguments are limited to 10,000 bytes.")
    headers = _strings({**_object(body.get("headers") or {}), **_object(own.get("headers") or {})})
    if reserved := [name for name in headers if name.lower() in _RESERVED]:
        raise _wrong("headers", f"The header {reserved[0]} is reserved.")
    sender = _person(body.get("from"), "from.email")
    if not sender.addr_spec.isascii():
        raise _wrong("from.email", "The from address must be ASCII.")
    message = _compose(body, own, sender, to, headers)
    raw = message.as_bytes()
    tags = {name.replace("_", "-"): value for name, value in arguments.items()}
    for category in _categories(body.get("categories")):
        tags.setdefault("category", category)
    return Submission(str(sender), tuple(each.addr_spec for each in to), None, tags, raw, mime.parse(raw))


def _check_settings(body: Json) -> None:
    sandbox = _object(_object(body.get("mail_settings") or {}).get("sandbox_mode") or {}).get("enable", False)
    if not isinstance(sandbox, bool):
        raise _wrong("mail_settings.sandbox_mode.enable", "The enable parameter must be a boolean.")
    if sandbox:
        raise Answered(Response(200))


def _compose(body: Json, own: Json, sender: Address, to: list[Address], headers: Mapping[str, str]) -> EmailMessage:
    subject = own.get("subject") or body.get("subject")
    if not isinstance(subject, str) or not subject:
        raise _wrong("subject", "The subject is required.")
    message = EmailMessage(policy=_POLICY)
    try:
        message["From"], message["To"], message["Subject"] = sender, to, subject
        if body.get("reply_to"):
            message["Reply-To"] = _person(body["reply_to"], "reply_to")
        for name, value in headers.items():
            message[name] = value
    except ValueError:
        raise _wrong("headers", "A header's value is not allowed.") from None
    _add_content(message, _list(body.get("content"), "content"))
    for attachment in _list(body.get("attachments") or [], "attachments"):
        _attach(message, _object(attachment))
    return message


def _add_content(message: EmailMessage, content: list[Any]) -> None:
    kinds = [_object(part).get("type") for part in content]
    if not content or not set(kinds) <= {"text/plain", "text/html"}:
        raise _wrong("content", "There must be at least one defined content block of text/plain or text/html.")
    if kinds not in (["text/plain"], ["text/html"], ["text/plain", "text/html"]):
        raise _wrong("content", "text/plain needs to be first, followed by text/html.")
    for part in content:
        value = part.get("value")
        if not isinstance(value, str) or not value:
            raise _wrong("content.value", "The content value must be a string at least one character in length.")
        subtype = part["type"].removeprefix("text/")
        if message.get_content_type() == "text/plain" and "content-type" in message:
            message.add_alternative(value, subtype=subtype)
        else:
            message.set_content(value, subtype=subtype)


def _attach(message: EmailMessage, attachment: Json) -> None:
    content, filename = attachment.get("content"), attachment.get("filename")
    kind = attachment.get("type", "application/octet-stream")
    if not isinstance(content, str) or not content:
        raise _wrong("attachments.content", "The attachment content must be a string at least one character in length.")
    try:
        data = b64decode(content, validate=True)
    except ValueError:
        raise _wrong("attachments.content", "The attachment content must be base64 encoded.") from None
    if not isinstance(filename, str) or not filename or set(filename) & set(";,\r\n"):
        raise _wrong("attachments.filename", "The filename of your attachment can't contain CRLF characters.")
    if not isinstance(kind, str) or "/" not in kind or set(kind) & set(";,\r\n"):
        raise _wrong("attachments.type", "The attachment type cannot contain ';', or CRLF characters.")
    main, _, sub = kind.partition("/")
    message.add_attachment(data, maintype=main, subtype=sub, filename=filename)


def _categories(value: object) -> list[str]:
    categories = _list(value or [], "categories")
    if len(categories) > MAX_CATEGORIES:
        raise _wrong("categories", "There is a limit of 10 categories for each email that is sent.")
    if not all(isinstance(each, str) and each.isascii() and len(each) <= 255 for each in categories):
        raise _wrong("categories", "A category is a string of at most 255 ASCII characters.")
    if len(set(categories)) != len(categories):
        raise _wrong("categories", "The categories must be a unique list.")
    return categories


def _person(value: object, field: str) -> Address:
    person = _object(value) if isinstance(value, dict) else {}
    email, name = person.get("email"), person.get("name", "")
    if not isinstance(email, str) or read_address(email) is None:
        raise _wrong(field, "Does not contain a valid address.")
    if not isinstance(name, str) or set(name) & set(";,\r\n"):
        raise _wrong(field, "The name cannot contain ';' or ','.")
    return Address(name, addr_spec=email)


def _strings(value: Json) -> dict[str, str]:
    """SendGrid's least helpful error: it tells neither the field nor what is wrong."""
    if not all(isinstance(each, str) for each in value.values()):
        raise Answered(_errors(400, "Bad Request"))
    return dict(value)


def _object(value: object) -> Json:
    if not isinstance(value, dict):
        raise Answered(_errors(400, "Bad Request"))
    return value


def _list(value: object, field: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(field, f"{field} must be an array.")
    return value


def _wrong(field: str, message: str) -> Answered:
    return Answered(_errors(400, message, field))


def _errors(status: int, message: str, field: str | None = None) -> Response:
    return Response(status, _body(message, field))


def _body(message: str, field: str | None) -> bytes:
    return json_response({"errors": [{"message": message, "field": field, "help": None}]}).body
