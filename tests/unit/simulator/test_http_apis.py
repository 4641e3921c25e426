"""What the simulator takes and what it refuses as SendGrid and as Mailgun."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from email import message_from_bytes
from email.policy import default
from typing import Any

import orjson
import pytest

from deploy.local.simulator.faults import Fault
from deploy.local.simulator.http_api import Answered
from deploy.local.simulator.mailgun import Mailgun
from deploy.local.simulator.sendgrid import SendGrid
from deploy.local.simulator.wire import Request, Response

Change = Callable[[dict[str, Any]], None]

RAW = b"From: A <a@mailroom.example>\r\nTo: b@example.com\r\nSubject: hello\r\n\r\nbody\r\n"


def sendgrid_request(change: Change = lambda body: None, key: str = "Bearer SG.x") -> Request:
    body: dict[str, Any] = {
        "personalizations": [
            {"to": [{"email": "b@example.com", "name": "B"}], "custom_args": {"mailroom_message_id": "m-1"}}
        ],
        "from": {"email": "a@mailroom.example", "name": "Ä"},
        "subject": "Grüße",
        "content": [{"type": "text/plain", "value": "Hällo"}, {"type": "text/html", "value": "<p>Hällo</p>"}],
        "attachments": [{"content": "YQ==", "type": "text/csv", "filename": "a.csv"}],
        "categories": ["notification"],
    }
    change(body)
    return Request("POST", "/v3/mail/send", "", {"authorization": key}, orjson.dumps(body), "127.0.0.1")


def mailgun_request(
    *fields: tuple[str, str],
    path: str = "/v3/mg.mailroom.example/messages.mime",
    key: str = "api:k",
    raw: bytes | None = RAW,
) -> Request:
    parts = [f'--B\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields]
    body = "".join(parts).encode()
    if raw is not None:
        body += b'--B\r\nContent-Disposition: form-data; name="message"; filename="m"\r\n\r\n' + raw + b"\r\n"
    headers = {
        "authorization": "Basic " + b64encode(key.encode()).decode(),
        "content-type": "multipart/form-data; boundary=B",
    }
    return Request("POST", path, "", headers, body + b"--B--\r\n", "127.0.0.1")


def answered(api: SendGrid | Mailgun, request: Request) -> Response:
    with pytest.raises(Answered) as caught:
        api.read(request)
    return caught.value.response


def test_sendgrid_makes_a_message_of_the_parts() -> None:
    submission = SendGrid().read(sendgrid_request())
    assert submission.destination == ("b@example.com",)
    assert submission.tags == {"mailroom-message-id": "m-1", "category": "notification"}
    parsed = message_from_bytes(submission.raw, policy=default)
    assert (parsed["subject"], parsed["from"], parsed["to"]) == (
        "Grüße",
        "Ä <a@mailroom.example>",
        "B <b@example.com>",
    )
    leaves = [part for part in parsed.walk() if not part.is_multipart()]
    assert [part.get_content_type() for part in leaves] == ["text/plain", "text/html", "text/csv"]
    assert submission.raw.isascii()


def _set(path: str, value: Any) -> Change:
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]

    def change(body: Any) -> None:
        for step in way:
            body = body[step]
        body[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_set("personalizations", []), "personalizations"),
        (_set("personalizations.0.to", []), "personalizations.0.to"),
        (_set("personalizations.0.to", [{"email": "b@example.com"}] * 2), "personalizations.0.to"),
        (_set("personalizations.0.to.0.name", "B; C"), "personalizations.0.to"),
        (_set("personalizations.0.custom_args.mailroom_message_id", 1), None),
        (_set("personalizations.0.custom_args.x", "x" * 10_000), "custom_args"),
        (_set("personalizations.0.headers", {"Reply-To": "x"}), "headers"),
        (_set("from.email", "ä@mailroom.example"), "from.email"),
        (_set("from.name", "A, B"), "from.email"),
        (_set("subject", ""), "subject"),
        (_set("content", []), "content"),
        (_set("content.0.value", ""), "content.value"),
        (_set("content.0.type", "text/html"), "content"),
        (_set("attachments.0.content", ""), "attachments.content"),
        (_set("attachments.0.content", "?"), "attachments.content"),
        (_set("attachments.0.type", "text/csv; charset=utf-8"), "attachments.type"),
        (_set("attachments.0.filename", "a;b"), "attachments.filename"),
        (_set("categories", ["a"] * 11), "categories"),
        (_set("categories", ["ä"]), "categories"),
        (_set("mail_settings", {"sandbox_mode": {"enable": "true"}}), "mail_settings.sandbox_mode.enable"),
    ],
)
def test_what_sendgrid_refuses(change: Change, field: str | None) -> None:
    response = answered(SendGrid(), sendgrid_request(change))
    assert response.status == 400
    (error,) = orjson.loads(response.body)["errors"]
    assert error["field"] == field


def test_sendgrid_sends_nothing_from_its_sandbox_and_to_nobody_without_a_key() -> None:
    sandbox = _set("mail_settings", {"sandbox_mode": {"enable": True}})
    assert answered(SendGrid(), sendgrid_request(sandbox)) == Response(200)
    assert answered(SendGrid(), sendgrid_request(key="Bearer ")).status == 401


def test_mailgun_keeps_our_bytes_and_takes_the_envelope_from_to() -> None:
    submission = Mailgun().read(
        mailgun_request(
            ("to", "c@example.org"),
            ("to", "c@example.org"),
            ("v:mailroom_message_id", "m-1"),
            ("o:tag", "notification"),
        )
    )
    assert submission.raw == RAW
    assert submission.destination == ("c@example.org",)
    assert submission.tags == {"mailroom-message-id": "m-1", "category": "notification"}


TO = ("to", "b@example.com")


@pytest.mark.parametrize(
    ("request_", "status", "said"),
    [
        (mailgun_request(), 400, "to parameter is missing"),
        (mailgun_request(("to", "nobody")), 400, "not a valid address"),
        (mailgun_request(TO, raw=None), 400, "message parameter is missing"),
        (mailgun_request(TO, ("message", "x"), raw=None), 400, "is not a file"),
        (mailgun_request(TO, ("v:x", "x" * 16_400)), 400, "limited to 16 kB"),
        (mailgun_request(TO, *[("o:tag", str(n)) for n in range(4)]), 400, "at most 3 tags"),
        (mailgun_request(TO, ("o:tracking", "perhaps")), 400, "o:tracking"),
        (mailgun_request(TO, raw=RAW + b"x" * 25_000_000), 413, "exceeds"),
        (mailgun_request(TO, key="someone:k"), 401, "Forbidden"),
        (mailgun_request(TO, path="/v3/nowhere.invalid/messages.mime"), 404, "Domain not found"),
        (mailgun_request(TO, path="/v3/messages.mime"), 200, "Mailgun Magnificent API"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_mailgun_refuses(request_: Request, status: int, said: str) -> None:
    response = answered(Mailgun(), request_)
    assert response.status == status
    assert said in response.body.decode()


@pytest.mark.parametrize(
    ("kind", "sendgrid", "mailgun"),
    [("throttle", 429, 429), ("accountSuspended", 403, 403), ("sendingPaused", 401, 400), ("refuse", 400, 400)],
)
def test_faults_that_refuse_have_each_providers_words(kind: Any, sendgrid: int, mailgun: int) -> None:
    fault = Fault(kind=kind)
    assert SendGrid().refused(fault).status == sendgrid
    assert Mailgun().refused(fault).status == mailgun
