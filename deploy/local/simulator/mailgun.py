"""Mailgun's `POST /v3/{domain}/messages.mime`, with its limits and errors.

Sources: mailgun/documentation `api-sending.rst`, "Error codes"; mailgun-mcp-server `openapi.yaml`. A domain under
`.invalid` is one that the account does not have. Not simulated: `messages`, planned sending, test mode.
"""

import re
import time
from base64 import b64decode
from email.utils import formatdate
from uuid import uuid4

from deploy.local.simulator import mime
from deploy.local.simulator.faults import Fault
from deploy.local.simulator.http_api import Answered
from deploy.local.simulator.submission import Submission, read_address
from deploy.local.simulator.wire import Request, Response, json_response

MAX_MESSAGE = 25_000_000
MAX_OPTIONS = 16 * 1024
MAX_TAGS = 3

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)
_NAME = re.compile(rb'\bname="([^"]*)"')
_OPTION = re.compile(r"[ohvt]:")
_TRY_AGAIN_SECONDS = 120

Fields = list[tuple[str, str]]


class Mailgun:
    """See `http_api.Dialect`."""

    name = "mailgun"
    operation = "MailgunSend"

    def read(self, request: Request) -> Submission:
        segments = request.segments()
        if len(segments) != 3 or segments[2] != "messages.mime" or request.method != "POST":
            raise Answered(Response(200, b"Mailgun Magnificent API", b"text/plain; charset=utf-8"))
        domain = segments[1]
        if not is_authorized(request.headers.get("authorization", "")):
            raise Answered(Response(401, b"Forbidden", b"text/plain; charset=utf-8"))
        if domain.endswith(".invalid"):
            raise Answered(self.failed(404, f"Domain not found: {domain}"))
        fields, files = _read_form(request)
        to = [each.strip() for name, value in fields if name == "to" for each in mime.split_addresses(value)]
        addresses = [mime.bare_address(each) for each in to]
        if not to:
            raise _wrong("to parameter is missing")
        if any(read_address(each) is None for each in addresses):
            raise _wrong("to parameter is not a valid address. please check documentation")
        if "message" not in files:
            named = any(name == "message" for name, _ in fields)
            raise _wrong("'message' parameter is not a file" if named else "message parameter is missing")
        options = [(name, value) for name, value in fields if _OPTION.match(name)]
        _check_options(options)
        raw = files["message"]
        if len(raw) > MAX_MESSAGE:
            raise Answered(self.failed(413, "request size exceeds 52.4MiB limit"))
        parsed = mime.parse(raw)
        tags = {name[2:].replace("_", "-"): value for name, value in options if name.startswith("v:")}
        categories = [value for name, value in options if name == "o:tag"]
        if categories:
            tags["category"] = categories[0]
        # A recipient that is named twice gets one copy.
        destination = tuple(dict.fromkeys(addresses))
        return Submission(parsed.first("from") or f"postmaster@{domain}", destination, None, tags, raw, parsed)

    def new_id(self, submission: Submission) -> str:
        domain = mime.bare_address(submission.source).rpartition("@")[2]
        return f"{time.strftime('%Y%m%d%H%M%S', time.gmtime())}.{uuid4().hex[:16]}@{domain}"

    def accepted(self, provider_message_id: str) -> Response:
        return json_response({"id": f"<{provider_message_id}>", "message": "Queued. Thank you."})

    def refused(self, fault: Fault) -> Response:
        refused = "Domain mg.mailroom.example is not allowed to send: "
        if fault.kind == "throttle":
            until = formatdate(time.time() + _TRY_AGAIN_SECONDS).replace("-0000", "UTC")
            return self.failed(429, f"{refused}request limit exceeded, try again after {until}")
        if fault.kind == "accountSuspended":
            return self.failed(403, f"{refused}Account is disabled. Please contact support.")
        if fault.kind == "sendingPaused":
            return self.failed(400, f"{refused}recipient limit exceeded")
        return self.failed(fault.status or 400, fault.message)

    def failed(self, status: int, message: str) -> Response:
        return json_response({"message": message}, status)


def is_authorized(header: str) -> bool:
    """Whether an Authorization header names the user `api` and any key."""
    try:
        user, _, key = b64decode(header.removeprefix("Basic "), validate=True).partition(b":")
    except ValueError:
        return False
    return header.startswith("Basic ") and user == b"api" and bool(key)


def _read_form(request: Request) -> tuple[Fields, dict[str, bytes]]:
    """The fields in their order, and the files."""
    content_type = request.headers.get("content-type", "")
    boundary = _BOUNDARY.search(content_type)
    if not content_type.startswith("multipart/form-data") or boundary is None:
        raise _wrong(f"Invalid request content type. Expecting 'multipart/form-data' but got '{content_type}'")
    fields: Fields = []
    files: dict[str, bytes] = {}
    parts = (b"\r\n" + request.body).split(b"\r\n--" + boundary[1].encode())
    if len(parts) < 2 or not parts[-1].startswith(b"--"):
        raise _wrong("malformed multipart/form-data request")
    for part in parts[1:-1]:
        head, separator, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if not separator or name is None:
            raise _wrong("malformed multipart/form-data request")
        if b"filename=" in head:
            files[name[1].decode()] = content
        else:
            fields.append((name[1].decode(), content.decode()))
    return fields, files


def _check_options(options: Fields) -> None:
    if sum(len(name) + len(value.encode()) for name, value in options) > MAX_OPTIONS:
        raise _wrong("Send options (parameters starting with o:, h:, or v:) are limited to 16 kB total")
    if sum(name == "o:tag" for name, _ in options) > MAX_TAGS:
        raise _wrong("o:tag: at most 3 tags are allowed")
    for name, value in options:
        if name.startswith("o:tracking") and value not in ("yes", "no", "true", "false", "htmlonly"):
            raise _wrong(f"{name} must be yes, no, true, false or htmlonly")


def _wrong(message: str) -> Answered:
    return Answered(json_response({"message": message}, 400))
