"""What the simulator takes and what it refuses, as SES does."""

from base64 import b64encode
from email import message_from_bytes
from email.policy import default
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.local.simulator import mime
from deploy.local.simulator.errors import SesError
from deploy.local.simulator.submission import Submission, read_send_email

RAW = b"From: A <a@mailroom.example>\r\nTo: b@example.com\r\nSubject: hello\r\n\r\nbody\r\n"


def raw_request(raw: bytes = RAW, **more: Any) -> bytes:
    request = {
        "FromEmailAddress": "a@mailroom.example",
        "Destination": {"ToAddresses": ["b@example.com"]},
        "Content": {"Raw": {"Data": b64encode(raw).decode()}},
        "ConfigurationSetName": "set",
        "EmailTags": [{"Name": "messageId", "Value": "m-1"}],
    }
    return orjson.dumps({**request, **more})


def refusal(body: bytes) -> SesError:
    with pytest.raises(SesError) as caught:
        read_send_email(body)
    return caught.value


def test_raw_mail_keeps_its_bytes_and_its_envelope() -> None:
    submission = read_send_email(raw_request(Destination={"ToAddresses": ["c@example.org"]}))
    assert submission.raw == RAW
    assert submission.destination == ("c@example.org",)
    assert submission.tags == {"messageId": "m-1"}
    assert submission.configuration_set == "set"


def test_without_a_destination_the_headers_name_the_envelope() -> None:
    raw = b'From: a@x.example\r\nTo: B <b@x.example>, c@x.example\r\nCc: "D, E" <d@x.example>\r\n\r\n'
    assert read_send_email(raw_request(raw, Destination={})).destination == (
        "b@x.example",
        "c@x.example",
        "d@x.example",
    )


def test_simple_mail_becomes_mime() -> None:
    simple = {
        "Subject": {"Data": "Grüße"},
        "Body": {"Text": {"Data": "text"}, "Html": {"Data": "<p>html</p>"}},
        "Headers": [{"Name": "X-One", "Value": "1"}],
    }
    submission = read_send_email(
        raw_request(Content={"Simple": simple}, ReplyToAddresses=["r@mailroom.example"], EmailTags=[])
    )
    message = message_from_bytes(submission.raw, policy=default)
    assert message["Subject"] == "Grüße"
    assert message["Reply-To"] == "r@mailroom.example"
    assert message["X-One"] == "1"
    assert [part.get_content_type() for part in message.walk()] == ["multipart/alternative", "text/plain", "text/html"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"To: b@example.com\r\n\r\nno sender",
        b"From: a@x.example\r\nFrom: b@x.example\r\n\r\ntwo senders",
        b"From: a@x.example\r\nthis is no header\r\n\r\nbody",
        b"From: a@x.example\r\nSubject: \xc3\xa4\r\n\r\nraw UTF-8 in a header",
        b"From: a@x.example\r\nContent-Type: multipart/mixed\r\n\r\nno boundary",
        b"From: a@x.example\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n\r\nnever ends",
    ],
)
def test_broken_mime_is_a_bad_request(raw: bytes) -> None:
    error = refusal(raw_request(raw))
    assert (error.code, error.status) == ("BadRequestException", 400)


@pytest.mark.parametrize(
    "change",
    [
        {"EmailTags": [{"Name": "has space", "Value": "v"}]},
        {"EmailTags": [{"Name": "n", "Value": "a.b"}]},
        {"EmailTags": [{"Name": "n", "Value": ""}]},
        {"EmailTags": [{"Name": "n", "Value": "v" * 257}]},
        {"EmailTags": [{"Name": "n", "Value": "1"}, {"Name": "n", "Value": "2"}]},
        {"Destination": {"ToAddresses": [f"r{number}@example.com" for number in range(51)]}},
        {"Destination": {"ToAddresses": ["not an address"]}},
        {"Destination": {"ToAddresses": ["ä@example.com"]}},
        {"Content": {"Raw": {"Data": "%%%"}}},
        {"Content": {"Template": {"TemplateName": "t"}}},
        {"Content": {"Simple": {"Subject": {"Data": "s"}, "Body": {}}}},
        {"Content": None},
    ],
)
def test_what_ses_refuses(change: dict[str, Any]) -> None:
    assert refusal(raw_request(**change)).code == "BadRequestException"


def test_limits_are_inclusive() -> None:
    fifty = [f"r{number}@example.com" for number in range(50)]
    tag = {"Name": "n" * 256, "Value": "v" * 256}
    assert len(read_send_email(raw_request(Destination={"ToAddresses": fifty}, EmailTags=[tag])).destination) == 50


def test_forty_megabytes_and_a_byte_are_too_much() -> None:
    padding = 40 * 1024 * 1024 - len(RAW)
    assert isinstance(read_send_email(raw_request(RAW + b"x" * padding)), Submission)
    assert "Message length" in refusal(raw_request(RAW + b"x" * (padding + 1))).message


def test_a_refusal_is_in_the_form_that_botocore_models() -> None:
    response = refusal(b"not json").response()
    assert response.status == 400
    assert dict(response.headers)[b"x-amzn-errortype"] == b"BadRequestException"
    assert orjson.loads(response.body)["message"]


header_text = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='",<>():;'), min_size=1)


@given(st.lists(header_text, min_size=1, max_size=6), st.booleans())
def test_headers_read_as_the_standard_library_reads_them(words: list[str], fold: bool) -> None:
    value = ("\r\n " if fold else " ").join(words)
    raw = f"From: a@x.example\r\nX-Words: {value}\r\n\r\n".encode()
    assert mime.parse(raw).first("x-words") == " ".join(words)
    assert " ".join(str(message_from_bytes(raw)["X-Words"]).split()) == " ".join(words)


def test_common_headers_are_decoded_and_split() -> None:
    raw = b'From: =?utf-8?q?J=C3=BCrgen?= <a@x.example>\r\nTo: "B, C" <b@x.example>, d@x.example\r\n\r\n'
    common = mime.parse(raw).common_headers("id-1")
    assert common["from"] == ["Jürgen <a@x.example>"]
    assert common["to"] == ['"B, C" <b@x.example>', "d@x.example"]
    assert common["messageId"] == "id-1"
    assert "subject" not in common


def test_a_click_follows_the_first_link() -> None:
    raw = b'From: a@x.example\r\nContent-Type: text/html\r\n\r\n<a href="https://x.example/y?z=1">here</a>'
    assert mime.first_link(raw) == "https://x.example/y?z=1"
