"""Every rule of `POST /api/email`, by the field that broke it, all in one answer, and never with the value sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from contracts.email.values import MAX_FREE_DATA_BYTES
from tests.unit.email_service.door import Door, attached

CODE = {"name": "Ada", "token": "482913", "expiresInMinutes": 10}


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    door = Door(max_attachment_bytes=1000)
    async with door.client:
        yield door


def addresses(count: int, name: str = "a") -> list[str]:
    return [f"{name}{n}@inbox.example" for n in range(count)]


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"in": value}
    return value


async def refused(door: Door, **body: Any) -> dict[str, str]:
    """The wrong fields, each with its message; nothing was stored or published."""
    answer = await door.send(**body)
    assert answer.status_code == 400, answer.text
    assert (door.publisher.published, door.post.contents.kept) == ([], {})
    return {detail["field"]: detail["message"] for detail in answer.json()["details"]}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"to": None}, {"to"}),
        ({"to": []}, {"to"}),
        ({"to": "nobody"}, {"to[0]"}),
        ({"to": ["ann@inbox.example", "Ann <ann@inbox.example>", "ann@localhost"]}, {"to[1]", "to[2]"}),
        ({"to": addresses(51)}, {"to"}),
        ({"to": addresses(30), "cc": addresses(21, "c")}, {"cc"}),
        ({"to": addresses(30), "cc": addresses(10, "c"), "bcc": addresses(11, "b")}, {"bcc"}),
        ({"cc": "x"}, {"cc[0]"}),
        ({"bcc": [1]}, {"bcc[0]"}),
        ({"replyTo": "x"}, {"replyTo"}),
        ({"subject": None}, {"subject"}),
        ({"subject": ""}, {"subject"}),
        ({"subject": "x" * 201}, {"subject"}),
        ({"subject": "a\r\nBcc: eve@evil.example"}, {"subject"}),
        ({"textContent": None}, {"htmlContent"}),
        ({"textContent": ""}, {"htmlContent"}),
        ({"category": None}, {"category"}),
        ({"category": "spam"}, {"category"}),
        ({"category": "marketing"}, {"listId"}),
        ({"listId": "two words"}, {"listId"}),
        ({"priority": "asap"}, {"priority"}),
        ({"clientId": "a\nb"}, {"clientId"}),
        ({"tags": {"n": 1}}, {"tags.n"}),
        ({"tags": {"t": "x" * MAX_FREE_DATA_BYTES}}, {"tags"}),
        ({"customData": {"t": "x" * MAX_FREE_DATA_BYTES}}, {"customData"}),
        ({"tags": {"t": "x" * 40_000}, "customData": {"t": "x" * 40_000}}, {"customData"}),
        ({"customData": nested(33)}, {"customData"}),
        ({"customData": nested(900)}, {"customData"}),
        ({"customData": {"n": 2**63}}, {"customData"}),
        ({"customData": []}, {"customData"}),
        ({"sendAt": "2026-11-24T10:25:00"}, {"sendAt"}),
        ({"sendAt": "tomorrow"}, {"sendAt"}),
        ({"sendAt": "9999-12-31T23:59:59-14:00"}, {"sendAt"}),
        ({"expiresAt": "0001-01-01T00:00:00+14:00"}, {"expiresAt"}),
        ({"sendAt": "2030-01-02T00:00:00Z", "expiresAt": "2030-01-02T01:00:00+01:00"}, {"expiresAt"}),
        ({"templateId": "nothing-like-it"}, {"templateId"}),
        ({"templateId": "2fa-code", "category": "auth"}, {"templateData.token", "templateData.expiresInMinutes"}),
        (
            {"templateId": "2fa-code", "category": "auth", "templateData": {**CODE, "expiresInMinutes": "10"}},
            {"templateData.expiresInMinutes"},
        ),
        ({"templateId": "2fa-code", "templateData": CODE}, {"category"}),
        ({"templateData": CODE}, {"templateData"}),
        ({"templateId": "2fa-code", "category": "auth", "templateData": "x"}, {"templateData"}),
        ({"from": "boss@crm.example"}, {"from"}),
        ({"html_content": "<p>not a name of ours</p>"}, {"html_content"}),
        ({"attachments": [{}]}, {f"attachments[0].{name}" for name in ("filename", "contentType", "content")}),
        ({"attachments": [attached(), {"fileId": "x"}]}, {"attachments[1].fileId"}),
        ({"attachments": ["x"]}, {"attachments[0]"}),
        ({"attachments": [attached()] * 51}, {"attachments"}),
        ({"attachments": [attached("not base64!")]}, {"attachments[0].content"}),
        ({"attachments": [attached("YQ")]}, {"attachments[0].content"}),
    ],
)
async def test_the_field_that_breaks_a_rule_is_named(door: Door, body: dict[str, Any], fields: set[str]) -> None:
    assert set(await refused(door, **body)) == fields


HARMFUL_NAMES = ["", "a/b.txt", "..\\up.txt", "..", " . ", "a\nb.txt", "C:evil.txt", "inv\u202efdp.txt", "x" * 256]
HARMFUL_FILES = [
    "run.exe", "RUN.EXE", "run.exe.", "run.exe ", ".bat", "x.js", "run.exe\u200b", "run.\uff45xe", "run.e\ufe0fxe",
    "run.exe\u3164", "run.e\u034fx\u17b5e.",
]  # fmt: skip
HARMFUL_TYPES = ["application/x-msdownload", "Text/JavaScript", "multipart/mixed", "message/rfc822"]


@pytest.mark.parametrize("name", HARMFUL_NAMES + HARMFUL_FILES)
async def test_names_that_do_harm_are_refused(door: Door, name: str) -> None:
    assert set(await refused(door, attachments=[attached(filename=name)])) == {"attachments[0].filename"}


WRONG_PARAMETERS = [
    "text/plain; charset",
    "text/plain; charset=",
    "text/plain; a=b c=d",
    'text/plain; name="open',
    "text/plain; charset=a; Charset=b",
    "text/plain; boundary=x",
    "text/plain; x=a\r\nBcc: eve@evil.example",
    "text/plain; x=a\x85",
    "text/plain; x=" + "y" * 256,
    "text/plain" + "".join(f"; p{n}=1" for n in range(11)),
    "application/x-msdownload; name=a.txt",
    'application/pdf; name="run.exe"',
    'application/pdf; name="../up.pdf"',
]


@pytest.mark.parametrize("kind", ["", "text", "; charset=utf-8", "a/b\n", *HARMFUL_TYPES, *WRONG_PARAMETERS])
async def test_types_that_are_none_or_do_harm_are_refused(door: Door, kind: str) -> None:
    assert set(await refused(door, attachments=[attached(contentType=kind)])) == {"attachments[0].contentType"}


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("text/calendar; charset=utf-8; method=REQUEST", "text/calendar; charset=utf-8; method=REQUEST"),
        ('Text/Calendar;METHOD=REQUEST ; name="invite.ics";', "text/calendar; method=REQUEST; name=invite.ics"),
        ("text/csv; header=present", "text/csv; header=present"),
        ('application/pdf; name="Rechnung März.pdf"', 'application/pdf; name="Rechnung März.pdf"'),
        ("text/plain; format=flowed; delsp=yes", "text/plain; format=flowed; delsp=yes"),
    ],
)
async def test_a_type_keeps_its_parameters_in_one_spelling(door: Door, given: str, taken: str) -> None:
    assert (await door.send(attachments=[attached(contentType=given)])).status_code == 202
    ((stored,),) = [send.attachments or [] for send in door.sends()]
    assert stored.content_type == taken  # type: ignore[union-attr]


C1 = [chr(code) for code in (0x7F, 0x80, 0x85, 0x90, 0x9F)]


@pytest.mark.parametrize("control", [*C1, "\u2028"], ids=ascii)
async def test_what_no_header_can_hold_is_refused_in_every_field(door: Door, control: str) -> None:
    hostile = f"Kim{control}s order"
    found = await refused(
        door,
        subject=hostile,
        to=f"kim{control}x@inbox.example",
        replyTo=f"a{control}b@inbox.example",
        templateId=hostile,
        clientId=hostile,
        attachments=[attached(filename=hostile), attached(contentType=f"text/plain; name={hostile}")],
    )
    assert set(found) == {
        "subject", "to[0]", "replyTo", "templateId", "clientId", "attachments[0].filename",
        "attachments[1].contentType",
    }  # fmt: skip


@pytest.mark.parametrize("blank", ["", " ", "\r\n", "\t\u00a0", "\ufeff", "\ufeff\r\n\u200b"], ids=ascii)
async def test_a_blank_body_counts_as_absent(door: Door, blank: str) -> None:
    assert set(await refused(door, textContent=blank, htmlContent=blank)) == {"htmlContent"}
    assert (await door.send(htmlContent=blank)).status_code == 202
    assert (await door.send(textContent=blank, htmlContent="<p>x</p>")).status_code == 202
    sealed = [json.loads(data) for stored, data, _ in door.post.contents.kept.values() if stored.kind == "sealed"]
    # Kept as given, since that is what a repetition is told by; whoever renders it leaves it out.
    assert sealed == [{"html": blank, "text": "How are you?"}, {"html": "<p>x</p>", "text": blank}]


@pytest.mark.parametrize("name", [None, "", "  ", "\u200b"], ids=ascii)
async def test_a_template_greets_without_a_name(door: Door, name: str | None) -> None:
    data = {key: value for key, value in CODE.items() if key != "name"} | ({} if name is None else {"name": name})
    answer = await door.send(templateId="2fa-code", category="auth", textContent=None, templateData=data)
    assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("name", ["Rechnung Nº 7 – März.pdf", "請求書.pdf", "notes", "exe", "a.exe.zip", "x" * 255])
async def test_honest_names_are_taken(door: Door, name: str) -> None:
    assert (await door.send(attachments=[attached(filename=name)])).status_code == 202


async def test_addresses_count_once_however_often_they_are_named(door: Door) -> None:
    fifty = addresses(50)
    assert (await door.send(to=fifty, cc=fifty, bcc=fifty[:1])).status_code == 202


async def test_one_answer_lists_everything_from_every_level(door: Door) -> None:
    found = await refused(
        door,
        to=["eve@", "ann@inbox.example"],
        subject="",
        templateId="2fa-code",
        templateData={"name": "Ada"},
        category="marketing",
        attachments=[attached(filename="x.exe")],
        sendAt="2030-01-02T00:00:00Z",
        expiresAt="2030-01-01T00:00:00Z",
        surprise=1,
    )
    assert set(found) == {
        "to[0]",
        "subject",
        "templateData.token",
        "templateData.expiresInMinutes",
        "category",
        "attachments[0].filename",
        "expiresAt",
        "surprise",
    }


async def test_no_answer_repeats_what_was_sent(door: Door) -> None:
    answer = await door.send(
        to="eve-4711",
        subject="x" * 200 + "eve-4711",
        templateId="eve-4711",
        templateData={"token": "eve-4711"},
        attachments=[attached("eve-4711!", filename="eve-4711/x")],
        tags={"t": 4711},
        customData="eve-4711",
    )
    assert answer.status_code == 400
    assert "4711" not in answer.text


async def test_a_body_of_too_many_values_is_refused_before_it_is_parsed(door: Door) -> None:
    flood = b"[" + b"[]," * 100_000 + b"[]]"
    answer = await door.client.post("/api/email", content=flood, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (400, "body: holds more than 100000 values.")


@pytest.mark.parametrize(
    "flood",
    [
        {f"k{n}": 1 for n in range(20_000)},
        {"to": [1] * 20_000},
        {"cc": ["no address"] * 20_000},
        {"attachments": [{}] * 20_000},
        {"tags": {f"k{n}": 1 for n in range(20_000)}},
        {"attachments": [{f"k{n}": 1 for n in range(20_000)}]},
    ],
    ids=["unknown", "to", "cc", "attachments", "tags", "of an attachment"],
)
async def test_a_flood_of_mistakes_is_one(door: Door, flood: dict[str, Any]) -> None:
    answer = await door.send(**flood)
    assert answer.status_code == 400
    assert (len(answer.json()["details"]), len(answer.content) < 1000) == (1, True), answer.text[:1000]


async def test_attachments_weigh_what_they_weigh_together(door: Door) -> None:
    half = attached(b"x" * 500)
    assert (await door.send(attachments=[half, half])).status_code == 202
    heavy = await door.send(attachments=[half, half, attached(b"y")])
    assert heavy.status_code == 413
    assert "1001 bytes" in heavy.json()["error"]
    assert len(door.publisher.published) == 1


async def test_a_body_beyond_the_limit_is_413_before_it_is_read(door: Door) -> None:
    assert (await door.send(textContent="x" * 12_100_000)).status_code == 413


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "ümlaut"])
async def test_a_key_is_printable_ascii_without_spaces(door: Door, key: str) -> None:
    answer = await door.client.post(
        "/api/email", json={}, headers=[(b"Idempotency-Key", key.encode()), (b"content-type", b"application/json")]
    )
    assert answer.status_code == 400
    assert "Idempotency-Key" in {detail["field"] for detail in answer.json()["details"]}


@pytest.mark.parametrize("message_id", ["1", "not-a-uuid", "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b0"])
async def test_an_id_is_a_uuid(door: Door, message_id: str) -> None:
    for call in (door.cancel(message_id), door.client.get(f"/api/email/{message_id}/content")):
        answer = await call
        assert answer.status_code == 400
        assert [(d["field"], d["in"]) for d in answer.json()["details"]] == [("message_id", "path")]
