"""Asking for an upload, and saying that it is done: what is answered, what is refused, and what stands after it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest

from services.files.domain.quotas import Quota
from services.files.entrypoints.sweeper import Sweeper
from services.kit.health import Progress
from tests.unit.files_service.door import PDF, Door, as_
from tests.unit.files_service.samples import PDF_BODY, encrypted_office, iso_media

MIB = 1 << 20
BIG = 120 * MIB


@pytest.fixture
def door() -> Door:
    return Door()


async def test_a_form_upload_from_asking_to_the_file(door: Door) -> None:
    asked = await door.ask(fileName='見積書 "最終".pdf', metadata={"tags": ["a"], "projectId": "p-1"})
    assert asked.status_code == 201
    data = asked.json()["data"]
    assert set(data) == {"fileId", "fileKey", "expiresAt", "method", "uploadUrl", "fields"}
    assert data["fileKey"].startswith("document/")
    assert data["fields"]["range"] == f"1-{10 * MIB}"
    assert (await door.complete(data["fileId"])).status_code == 409  # nothing there yet
    door.objects.store(door.signer.puts[-1], PDF)
    done = await door.complete(data["fileId"])
    assert done.status_code == 200
    file = done.json()["data"]
    assert (file["status"], file["size"], file["originalName"]) == ("completed", len(PDF), '見積書 "最終".pdf')
    assert file["metadata"]["tags"] == ["a"]
    again = await door.complete(data["fileId"])
    assert again.json()["data"] == file
    assert await door.events(data["fileId"]) == ["uploadRequested", "uploaded"]


# --- quotas --------------------------------------------------------------------------------------------------------


async def test_a_user_has_only_so_many_uploads_open() -> None:
    door = Door(user_quota=Quota(open=2))
    first, second = [(await door.ask()).json()["data"]["fileId"] for _ in range(2)]
    refused = await door.ask("k")
    assert refused.status_code == 429
    assert refused.headers["retry-after"] == "900", "until the first of them expires"
    assert "one user may have 2. Complete or abort some" in refused.json()["error"]
    assert (await door.ask(headers=as_("bob"))).status_code == 201
    door.objects.store(door.signer.puts[0], PDF)
    assert (await door.complete(first)).status_code == 200
    assert (await door.ask("k")).status_code == 201, "the same key may begin now"
    assert (await door.ask("k")).status_code == 201, "and goes on with what it began"
    assert (await door.ask()).status_code == 429
    await door.client.delete(f"/api/files/{second}")
    assert (await door.ask()).status_code == 201


async def test_what_has_expired_is_open_no_more() -> None:
    door = Door(user_quota=Quota(open=1))
    file_id = (await door.ask()).json()["data"]["fileId"]
    door.clock.move(16 * 60)
    assert (await door.ask()).status_code == 201
    assert (await door.file(file_id)).phase == "uploading", "it may still be coming, and is looked at later"


async def test_bytes_asked_for_count_until_a_day_is_over_and_those_that_did_not_come_no_more() -> None:
    door = Door(user_quota=Quota(bytes=3 * MIB))
    file_id = await door.uploaded(maxSizeBytes=2 * MIB)
    (usage,) = door.quotas.usages.values()
    assert (usage.open, round(usage.used)) == ((), len(PDF))
    assert (await door.ask(maxSizeBytes=2 * MIB)).status_code == 201
    refused = await door.ask(maxSizeBytes=2 * MIB)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "3600")
    assert f"one user may ask for {3 * MIB} bytes in 24 hours" in refused.json()["error"]
    never = await door.ask(maxSizeBytes=4 * MIB)
    assert (never.status_code, never.json()["details"][0]["field"]) == (400, "maxSizeBytes")
    door.clock.move(24 * 3600)
    assert (await door.ask(maxSizeBytes=2 * MIB)).status_code == 201
    assert (await door.file(file_id)).phase == "completed"


async def test_a_client_has_a_quota_of_its_own_and_what_it_refuses_costs_the_user_nothing() -> None:
    door = Door(user_quota=Quota(open=2), client_quota=Quota(open=1))
    assert (await door.ask(clientId="c-1")).status_code == 201
    refused = await door.ask(clientId="c-1", headers=as_("bob"))
    assert (refused.status_code, "one client may have 1" in refused.json()["error"]) == (429, True)
    assert (await door.ask(clientId="c-2", headers=as_("bob"))).status_code == 201
    assert (await door.ask(headers=as_("bob"))).status_code == 201


async def test_a_service_may_more_since_it_uploads_for_many() -> None:
    door = Door(user_quota=Quota(open=1))
    crm = as_("crm", role="service")
    assert [(await door.ask(headers=crm)).status_code for _ in range(4)] == [201, 201, 201, 429]


async def test_an_upload_that_could_not_begin_is_not_open() -> None:
    door = Door(user_quota=Quota(open=1))
    door.objects.away = True
    big: dict[str, Any] = {"size": BIG, "maxSizeBytes": BIG}
    for key in (None, "k"):
        assert (await door.ask(key, **big)).status_code == 503
    door.objects.away = False
    assert (await door.ask("k", **big)).status_code == 201
    assert (await door.ask(**big)).status_code == 429


async def test_an_upload_ends_though_its_quota_cannot_be_reached() -> None:
    door = Door(user_quota=Quota(open=1))
    door.quotas.away = True
    await door.uploaded()
    assert (await door.ask()).status_code == 429, "it counts until it would have expired"
    door.clock.move(16 * 60)
    assert (await door.ask()).status_code == 201


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"contentType": "application/x-msdownload", "fileName": "a.exe"}, {"contentType"}),
        ({"fileName": "invoice.php.pdf"}, {"fileName"}),
        ({"fileName": "invoice.pdf.exe"}, {"fileName"}),
        ({"fileName": "a\x00.pdf"}, {"body"}),
        ({"fileName": "a\n.pdf"}, {"fileName"}),
        ({"fileName": "x" * 10_000}, {"fileName"}),
        ({"fileName": ""}, {"fileName"}),
        ({"category": "nothing"}, {"category"}),
        ({"category": "avatar", "contentType": "image/png", "fileName": "a.png", "maxSizeBytes": 10**9},
         {"maxSizeBytes", "method", "size"}),
        ({"maxSizeBytes": 0}, {"maxSizeBytes"}),
        ({"isPublic": True}, {"isPublic"}),
        ({"size": 20, "maxSizeBytes": 10}, {"size"}),
        ({"method": "multipart"}, {"size"}),
        ({"method": "post", "maxSizeBytes": BIG}, {"method"}),
        ({"metadata": {"checksum": "abc"}}, {"metadata.checksum"}),
        ({"metadata": {"tags": ["a", "a"]}}, {"metadata.tags"}),
        ({"metadata": {"a b": "c"}}, {"metadata"}),
        ({"contentType": "nonsense"}, {"contentType"}),
        ({"surprise": 1}, {"surprise"}),
    ],
)  # fmt: skip
async def test_what_the_rules_do_not_allow_is_refused_before_a_byte_moves(
    door: Door, body: dict[str, Any], fields: set[str]
) -> None:
    answer = await door.ask(**body)
    assert answer.status_code == 400, answer.text
    named = {detail["field"] for detail in answer.json()["details"]}
    assert named <= fields
    assert named
    assert door.signer.puts == []


async def test_a_browsers_type_with_parameters_is_taken(door: Door) -> None:
    answer = await door.ask(contentType="text/plain;charset=UTF-8", fileName="a.txt")
    assert answer.status_code == 201
    assert door.signer.puts[-1].content_type == "text/plain"


async def test_the_same_key_gives_the_same_file_and_another_body_a_conflict(door: Door) -> None:
    first = (await door.ask("k1")).json()["data"]
    again = await door.ask("k1")
    assert again.status_code == 201
    assert (again.json()["data"]["fileId"], again.json()["data"]["fileKey"]) == (first["fileId"], first["fileKey"])
    other = await door.ask("k1", fileName="b.pdf")
    assert (other.status_code, other.json()["details"]) == (409, [{"fileId": first["fileId"]}])
    door.objects.store(door.signer.puts[-1], PDF)
    await door.complete(first["fileId"])
    ended = await door.ask("k1")
    assert (ended.status_code, ended.json()["data"]["file"]["status"]) == (200, "completed")
    assert await door.events(first["fileId"]) == ["uploadRequested", "uploaded"]


async def test_a_503_names_the_file_that_may_have_begun(door: Door) -> None:
    door.objects.away = True
    answer = await door.ask("k1", size=BIG)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    (detail,) = answer.json()["details"]
    door.objects.away = False
    assert (await door.ask("k1", size=BIG)).json()["data"]["fileId"] == detail["fileId"]


async def test_a_repetition_after_the_time_is_over_says_so(door: Door) -> None:
    await door.ask("k1")
    door.clock.move(16 * 60)
    assert (await door.ask("k1")).status_code == 410


WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
HONEST: list[tuple[str, str, str, bytes]] = [
    ("IMG_0042.heic", "image/heic", "document", iso_media("mif1", "mif1", "heic")),
    ("call.mp4", "video/mp4", "general", iso_media("iso5", "avc1", "iso5", "dash")),
    ("cam.mp4", "video/mp4", "general", iso_media("avc1", "avc1", "isom")),
    ("report.pdf", "application/pdf", "contract", b"\n" + PDF_BODY),
    ("report.pdf", "application/pdf", "contract", b"\xef\xbb\xbf" + PDF_BODY),
    ("Vertrag.docx", WORD, "contract", encrypted_office()),
    ("kunden.csv", "application/vnd.ms-excel", "document", b"Name;Betrag\r\nKim;100\r\n"),
    ("brief.rtf", "application/msword", "document", b"{\\rtf1\\ansi Hello}"),
]
"""What phones, cameras, printers, Office and browsers make of files that are in order."""


@pytest.mark.parametrize(("name", "kind", "category", "data"), HONEST, ids=lambda value: str(value)[:20])
async def test_an_honest_file_of_whatever_program_completes(
    door: Door, name: str, kind: str, category: str, data: bytes
) -> None:
    asked = await door.ask(fileName=name, contentType=kind, category=category)
    assert asked.status_code == 201, asked.text
    door.objects.store(door.signer.puts[-1], data)
    answer = await door.complete(asked.json()["data"]["fileId"], len(data))
    assert answer.status_code == 200, answer.text
    assert len(door.objects.key(answer.json()["data"]["key"]).stack) == 1


@pytest.mark.parametrize(
    ("name", "said", "category", "kind"),
    [
        *(("a.csv", said, "document", "text/csv") for said in (
            "application/vnd.ms-excel", "text/plain", "application/csv", "text/x-csv", "text/comma-separated-values",
            "application/excel", "application/octet-stream", "Application/VND.MS-Excel; charset=x",
        )),
        ("A.CSV", "application/vnd.ms-excel", "document", "text/csv"),
        ("a.rtf", "text/rtf", "document", "application/rtf"),
        ("a.docx", "application/msword", "contract", WORD),
        ("a.heic", "", "document", "image/heic"),
        ("a.heic", "application/octet-stream", "document", "image/heic"),
        ("a.pdf", "application/octet-stream", "contract", "application/pdf"),
        ("a.pdf", "application/force-download", "contract", "application/pdf"),
        ("a.zip", "multipart/x-zip", "document", "application/zip"),
        ("a.md", "text/plain", "document", "text/plain"),
        ("dump.pdf", "application/octet-stream", "backup", "application/octet-stream"),
    ],
)  # fmt: skip
async def test_the_extension_decides_where_what_browsers_say_is_known_to_be_wrong(
    door: Door, name: str, said: str, category: str, kind: str
) -> None:
    asked = await door.ask(fileName=name, contentType=said, category=category)
    assert asked.status_code == 201, asked.text
    assert door.signer.puts[-1].content_type == kind


@pytest.mark.parametrize(
    ("body", "hashed"),
    [
        ({}, "ce2121675c40f79f"),
        ({"fileName": "a.csv", "contentType": "application/vnd.ms-excel"}, "a0cf6aa718d1d5e3"),
        ({"fileName": "a.rtf", "contentType": "application/msword"}, "dc3b1184d0b24853"),
        ({"fileName": "a.csv", "contentType": "text/csv; charset=utf-8"}, "8d281e90612f53e9"),
        ({"fileName": "a.md", "contentType": ""}, "fe13b70feb3c8c8d"),
        ({"fileName": "a.docx", "contentType": "application/msword"}, "b5689ce1d015c7ee"),
        ({"fileName": "a.bin", "contentType": "application/octet-stream", "category": "backup"}, "9e1a4301868f9027"),
        ({"fileName": "a.heic", "contentType": ""}, "66c1e29293f893a8"),
        (
            {"size": 7, "isPublic": True, "category": "general", "metadata": {"tags": ["a"], "projectId": "p"}},
            "9d80e65a62aa43d0",
        ),
    ],
)
async def test_a_repetition_is_told_as_the_versions_before_this_one_tell_it(
    door: Door, body: dict[str, Any], hashed: str
) -> None:
    """By what was said, whatever type this version makes of it: else a key that was used before an upgrade would be
    answered with 409 after it, and while it is going on.
    """
    file_id = (await door.ask("k", **body)).json()["data"]["fileId"]
    assert (await door.file(file_id)).request.request_hash.startswith(hashed)
    assert (await door.ask("k", **body)).json()["data"]["fileId"] == file_id


async def test_a_type_that_no_browser_says_of_such_a_name_is_refused(door: Door) -> None:
    for name, said in (("a.pdf", "image/png"), ("a.png", "application/pdf"), ("a.docx", "image/png")):
        assert (await door.ask(fileName=name, contentType=said)).status_code == 400


@pytest.mark.parametrize(
    ("data", "claimed", "reason"),
    [
        (b"", 0, "empty"),
        (PDF, 7, "sizeMismatch"),
        (b"MZ" + b"\0" * 100, 102, "typeMismatch"),
        (b"x" * (10 * MIB + 1), 10 * MIB + 1, "tooLarge"),
    ],
)
async def test_a_lie_fails_the_file_and_deletes_the_object(door: Door, data: bytes, claimed: int, reason: str) -> None:
    asked = (await door.ask()).json()["data"]
    door.objects.store(door.signer.puts[-1], data)
    answer = await door.complete(asked["fileId"], claimed)
    assert answer.status_code == 409
    assert answer.json()["details"] == [{"fileId": asked["fileId"], "reason": reason}]
    assert door.objects.key(asked["fileKey"]).stack == []
    assert (await door.file(asked["fileId"])).failure == reason


async def test_a_checksum_is_held_to(door: Door) -> None:
    right = base64.b64encode(hashlib.sha256(PDF).digest()).decode()
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    await door.uploaded(metadata={"checksum": right})
    asked = (await door.ask(metadata={"checksum": wrong})).json()["data"]
    assert door.signer.puts[-1].checksum == wrong
    door.objects.store(door.signer.puts[-1], PDF)
    assert (await door.complete(asked["fileId"])).status_code == 409
    assert (await door.file(asked["fileId"])).failure == "checksumMismatch"


async def test_a_wrong_size_said_of_a_complete_file_changes_nothing(door: Door) -> None:
    file_id = await door.uploaded()
    answer = await door.complete(file_id, 3)
    assert answer.status_code == 409
    assert (await door.file(file_id)).phase == "completed"


async def test_another_owners_file_does_not_exist(door: Door) -> None:
    asked = (await door.ask()).json()["data"]
    body = {"fileId": asked["fileId"], "actualSize": 1}
    for headers, status in ((as_("bob"), 404), (as_("root", role="admin"), 409)):
        answer = await door.client.post("/api/files/upload-complete", json=body, headers=headers)
        assert answer.status_code == status


async def test_an_upload_in_parts(door: Door) -> None:
    asked = (await door.ask(size=BIG)).json()["data"]
    assert (asked["method"], asked["partSize"], asked["partCount"], len(asked["parts"])) == (
        "multipart", 8 * MIB, 15, 10,
    )  # fmt: skip
    token, upload = asked["uploadToken"], asked["uploadId"]
    more = await door.client.post("/api/files/parts", json={"uploadToken": token, "partNumbers": [11, 15]})
    assert [(each["partNumber"], each["size"]) for each in more.json()["data"]["parts"]] == [
        (11, 8 * MIB), (15, BIG - 14 * 8 * MIB),
    ]  # fmt: skip
    for bad in ([0], [16], []):
        refused = await door.client.post("/api/files/parts", json={"uploadToken": token, "partNumbers": bad})
        assert refused.status_code == 400
    whole = PDF + b"\0" * (BIG - len(PDF))
    cut = [whole[at : at + 8 * MIB] for at in range(0, BIG, 8 * MIB)]
    etags = [door.objects.put_part(upload, n, data) for n, data in enumerate(cut[:-1], 1)]
    early = await door.complete(asked["fileId"], BIG, uploadToken=token)
    assert (early.status_code, early.json()["details"]) == (409, [{"partNumber": 15, "message": "is missing"}])
    door.objects.put_part(upload, 15, cut[-1] + b"x")
    wrong = await door.complete(asked["fileId"], BIG, uploadToken=token)
    assert (wrong.status_code, wrong.json()["details"][0]["partNumber"]) == (409, 15)
    etags.append(door.objects.put_part(upload, 15, cut[-1]))
    listed = await door.client.post("/api/files/parts/list", json={"uploadToken": token})
    assert [each["etag"] for each in listed.json()["data"]["parts"]] == etags
    named = [{"partNumber": n, "etag": etag} for n, etag in enumerate(etags, 1)]
    other = [*named[:-1], {"partNumber": 15, "etag": '"other"'}]
    assert (await door.complete(asked["fileId"], BIG, uploadToken=token, parts=other)).status_code == 409
    assert (await door.complete(asked["fileId"], BIG)).status_code == 400  # without its token
    done = await door.complete(asked["fileId"], BIG, uploadToken=token, parts=named)
    assert (done.status_code, done.json()["data"]["size"]) == (200, BIG)
    assert (await door.complete(asked["fileId"], BIG, uploadToken=token, parts=named)).status_code == 200
    over = await door.client.post("/api/files/parts", json={"uploadToken": token, "partNumbers": [1]})
    assert over.status_code == 409


def of_parts(*pieces: bytes) -> tuple[list[str], str]:
    """The parts' checksums, and the one of them."""
    digests = [hashlib.sha256(each).digest() for each in pieces]
    told = [base64.b64encode(each).decode() for each in (*digests, hashlib.sha256(b"".join(digests)).digest())]
    return told[:-1], f"{told[-1]}-{len(pieces)}"


@pytest.mark.parametrize("lies", [False, True])
async def test_an_upload_in_parts_with_a_checksum_of_them(door: Door, lies: bool) -> None:
    first, second = PDF + b"x" * (8 * MIB - len(PDF)), b"y" * 5
    checksums, whole = of_parts(first, second)
    body: dict[str, Any] = {"method": "multipart", "size": 8 * MIB + 5, "metadata": {"checksum": whole}}
    asked = (await door.ask(**body)).json()["data"]
    assert asked["parts"] == [], "none can be signed before its checksum is known"
    token = asked["uploadToken"]
    for wrong in ({}, {"checksums": checksums[:1]}, {"checksums": ["no"] * 2}):
        refused = await door.client.post(
            "/api/files/parts", json={"uploadToken": token, "partNumbers": [1, 2], **wrong}
        )
        assert refused.status_code == 400, wrong
    signed = await door.client.post(
        "/api/files/parts", json={"uploadToken": token, "partNumbers": [2, 1], "checksums": checksums[::-1]}
    )
    told = {each["partNumber"]: each["headers"] for each in signed.json()["data"]["parts"]}
    assert told == {n: {"x-amz-checksum-sha256": each} for n, each in enumerate(checksums, 1)}
    for number, data in enumerate((first, b"z" * 5 if lies else second), 1):
        door.objects.put_part(asked["uploadId"], number, data)
    done = await door.complete(asked["fileId"], 8 * MIB + 5, uploadToken=token)
    if lies:
        assert (done.status_code, (await door.file(asked["fileId"])).failure) == (409, "checksumMismatch")
    else:
        assert done.json()["data"]["metadata"]["checksum"] == whole


@pytest.mark.parametrize(
    "body",
    [
        {"size": 1000, "metadata": {"checksum": of_parts(b"a")[1]}},
        {"method": "multipart", "size": BIG, "metadata": {"checksum": of_parts(b"a", b"b")[1]}},
        {"size": BIG, "metadata": {"checksum": of_parts(b"a")[0][0]}},
    ],
)
async def test_a_checksum_must_be_one_that_can_be_held_to(door: Door, body: dict[str, Any]) -> None:
    refused = await door.ask(**body)
    assert refused.status_code == 400
    assert [each["field"] for each in refused.json()["details"]] == ["metadata.checksum"]


async def test_checksums_that_nobody_asked_for_are_refused(door: Door) -> None:
    asked = (await door.ask(size=BIG)).json()["data"]
    body = {"uploadToken": asked["uploadToken"], "partNumbers": [1], "checksums": of_parts(b"a")[0]}
    assert (await door.client.post("/api/files/parts", json=body)).status_code == 400


async def test_an_upload_in_parts_is_given_up(door: Door) -> None:
    asked = (await door.ask(size=BIG)).json()["data"]
    for _ in range(2):
        answer = await door.client.post("/api/files/abort", json={"uploadToken": asked["uploadToken"]})
        assert (answer.status_code, answer.json()["data"]["status"]) == (200, "failed")
    assert door.objects.uploads == {}


WORDS = PDF + b"x" * (8 * MIB + 5 - len(PDF))


async def sweep(door: Door) -> None:
    await Sweeper(door.files, "w", door.clock, Progress(door.clock)).sweep()


async def end_by(door: Door, way: str, asked: dict[str, Any]) -> None:
    file_id, token = asked["fileId"], asked["uploadToken"]
    if way == "completed":
        for number, at in enumerate((0, 8 * MIB), 1):
            door.objects.put_part(asked["uploadId"], number, WORDS[at : at + 8 * MIB])
        assert (await door.complete(file_id, len(WORDS), uploadToken=token)).status_code == 200
    elif way == "aborted":
        assert (await door.client.post("/api/files/abort", json={"uploadToken": token})).status_code == 200
    else:
        door.clock.move(26 * 3600)
        await sweep(door)
    assert (await door.file(file_id)).phase == ("completed" if way == "completed" else "failed")


@pytest.mark.parametrize("way", ["completed", "aborted", "expired"])
@pytest.mark.parametrize("retries", [0, 2])
async def test_an_upload_whose_creation_got_no_answer_does_not_outlive_the_file(
    door: Door, retries: int, way: str
) -> None:
    """The AWS client begins another one under the same key; a caller who repeats the request, under another one."""
    body: dict[str, Any] = {"method": "multipart", "size": len(WORDS)}
    other = (await door.ask(**body)).json()["data"]
    door.objects.retries, door.objects.unanswered = retries, 2
    answer = await door.ask("k1", **body)
    if retries == 0:
        for _ in range(2):
            assert answer.status_code == 503
            door.clock.move(1)
            answer = await door.ask("k1", **body)
    assert answer.status_code == 201
    assert len(door.objects.uploads) == 4
    await end_by(door, way, answer.json()["data"])
    assert set(door.objects.uploads) == ({other["uploadId"]} if way != "expired" else set()), "and of no other file"


async def test_an_upload_begun_too_late_is_aborted_when_the_file_is_closed(door: Door) -> None:
    asked = (await door.ask(method="multipart", size=len(WORDS))).json()["data"]
    put, _ = door.objects.uploads[asked["uploadId"]]
    await end_by(door, "completed", asked)
    await door.objects.begin_multipart(put)
    door.clock.move(26 * 3600)
    await sweep(door)
    assert (await door.events(asked["fileId"]))[-1] == "uploadClosed"
    assert door.objects.uploads == {}
    assert door.objects.listings == [f"{asked['fileKey'].rpartition('/')[0]}/"] * 2, "one listing for each end"


async def test_for_a_form_no_uploads_are_listed(door: Door) -> None:
    await door.uploaded()
    door.clock.move(26 * 3600)
    await sweep(door)
    assert door.objects.listings == []


async def test_a_repetition_in_the_next_month_has_its_key_in_the_same_folder(door: Door) -> None:
    body: dict[str, Any] = {"method": "multipart", "size": len(WORDS)}
    door.clock.move(31 * 24 * 3600 - 1)
    door.objects.unanswered = 1
    assert (await door.ask("k1", **body)).status_code == 503
    door.clock.move(2)
    asked = (await door.ask("k1", **body)).json()["data"]
    await end_by(door, "completed", asked)
    assert door.objects.uploads == {}


async def test_tokens_are_held_to_their_owner_time_and_signature(door: Door) -> None:
    asked = (await door.ask(size=BIG)).json()["data"]
    token = asked["uploadToken"]
    body = {"uploadToken": token, "partNumbers": [1]}
    assert (await door.client.post("/api/files/parts", json=body, headers=as_("bob"))).status_code == 404
    forged = {"uploadToken": token[:-3] + "AAA", "partNumbers": [1]}
    assert (await door.client.post("/api/files/parts", json=forged)).status_code == 400
    door.clock.move(25 * 3600)
    assert (await door.client.post("/api/files/parts", json=body)).status_code == 410


async def test_a_token_is_of_one_file_alone(door: Door) -> None:
    mine, other = (await door.ask(size=BIG)).json()["data"], (await door.ask(size=BIG)).json()["data"]
    for number, size in ((n, 8 * MIB if n < 15 else BIG - 14 * 8 * MIB) for n in range(1, 16)):
        door.objects.put_part(other["uploadId"], number, (PDF if number == 1 else b"").ljust(size, b"\0"))
    answer = await door.complete(mine["fileId"], BIG, uploadToken=other["uploadToken"])
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (400, "uploadToken")
    assert door.objects.keys.get(other["fileKey"]) is None, "a token that is refused has done nothing"
    assert (await door.file(other["fileId"])).phase == "uploading"


async def test_scopes(door: Door) -> None:
    assert (await door.ask(headers=as_("ann", "files:read"))).status_code == 403
    assert (await door.ask(headers={"authorization": ""})).status_code == 401


async def test_with_s3_away_nothing_is_decided(door: Door) -> None:
    asked = (await door.ask()).json()["data"]
    door.objects.away = True
    answer = await door.complete(asked["fileId"])
    assert answer.status_code == 503
    door.objects.away = False
    door.objects.store(door.signer.puts[-1], PDF)
    assert (await door.complete(asked["fileId"])).status_code == 200


async def test_the_upload_ends_when_it_says(door: Door) -> None:
    asked = (await door.ask()).json()["data"]
    request = (await door.file(asked["fileId"])).request
    assert request.expires_at - door.clock.now() <= timedelta(minutes=15)
    index = (await door.store.load(asked["fileId"])).index
    assert index.due_at == request.expires_at + timedelta(minutes=60)


async def test_who_uploads_is_found_out_and_not_told(door: Door) -> None:
    notes = {"uploadedBy": "bob", "uploaded_by": "bob", "ipAddress": "1.2.3.4", "user_agent": "x", "project": "p"}
    asked = await door.ask(metadata=notes)
    assert asked.status_code == 201
    metadata = (await door.file(asked.json()["data"]["fileId"])).request.metadata
    assert (metadata.uploaded_by, metadata.ip_address) == ("ann", "127.0.0.1")
    assert metadata.to_wire()["project"] == "p"


@pytest.mark.parametrize(
    ("said", "name", "taken"),
    [
        ("", "a.pdf", "application/pdf"),
        ("", "a.JPEG", "image/jpeg"),
        ("application/x-zip-compressed", "a.zip", "application/zip"),
        ("image/jpg", "a.jpg", "image/jpeg"),
    ],
)
async def test_what_browsers_say_of_a_type_is_understood(door: Door, said: str, name: str, taken: str) -> None:
    answer = await door.ask(contentType=said, fileName=name)
    assert answer.status_code == 201, answer.text
    assert door.signer.puts[-1].content_type == taken


async def test_a_backup_may_be_anything_under_any_name(door: Door) -> None:
    archive = b"PK\x03\x04" + b"\0" * 100
    await door.uploaded(archive, category="backup", contentType="application/octet-stream", fileName="site.php.bak")


CSV = b"name;amount\r\n" + b"Ann;100\r\n" * 400
PACKED = gzip.compress(CSV, mtime=0)
PACKED_PAGE = gzip.compress(b"<html>".ljust(len(CSV)), mtime=0)
AS_GZIP: dict[str, Any] = {
    "fileName": "a.csv", "contentType": "text/csv", "contentEncoding": "gzip", "size": len(PACKED),
    "originalSize": len(CSV), "metadata": {"checksum": base64.b64encode(hashlib.sha256(PACKED).digest()).decode()},
}  # fmt: skip


async def test_a_file_may_come_and_lie_compressed(door: Door) -> None:
    file_id = await door.uploaded(PACKED, **AS_GZIP)
    assert door.signer.puts[-1].content_encoding == "gzip"
    file = (await door.complete(file_id, len(PACKED))).json()["data"]
    assert (file["contentType"], file["contentEncoding"]) == ("text/csv", "gzip")
    assert (file["size"], file["originalSize"]) == (len(PACKED), len(CSV))
    assert file["metadata"]["checksum"] == AS_GZIP["metadata"]["checksum"]


@pytest.mark.parametrize(
    ("changes", "data", "why"),
    [
        ({"originalSize": len(CSV) + 1}, PACKED, "sizeMismatch"),
        ({"metadata": {}}, CSV[: len(PACKED)], "typeMismatch"),
        ({"metadata": {}, "size": len(PACKED) - 1}, PACKED[:-1], "sizeMismatch"),
        ({"metadata": {}, "size": len(PACKED_PAGE)}, PACKED_PAGE, "typeMismatch"),
    ],
)
async def test_what_lies_there_compressed_is_what_was_declared(
    door: Door, changes: dict[str, Any], data: bytes, why: str
) -> None:
    asked = (await door.ask(**{**AS_GZIP, **changes})).json()["data"]
    door.objects.store(door.signer.puts[-1], data)
    assert (await door.complete(asked["fileId"], len(data))).json()["details"][0]["reason"] == why


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"fileName": "a.pdf", "contentType": "application/pdf"}, "contentEncoding"),
        ({"category": "invoice", "fileName": "a.xml", "contentType": "application/xml"}, "contentEncoding"),
        ({"contentEncoding": "br"}, "contentEncoding"),
        ({"originalSize": None}, "originalSize"),
        ({"originalSize": 0}, "originalSize"),
        ({"originalSize": 2 << 30}, "originalSize"),
        ({"contentEncoding": None}, "originalSize"),
    ],
)
async def test_what_is_not_taken_compressed_is_refused(door: Door, changes: dict[str, Any], field: str) -> None:
    answer = await door.ask(**{**AS_GZIP, **changes})
    assert answer.status_code == 400
    assert [detail["field"] for detail in answer.json()["details"]] == [field]


async def test_an_upload_in_parts_may_be_compressed_too(door: Door) -> None:
    asked = await door.ask(**{**AS_GZIP, "method": "multipart"})
    assert asked.status_code == 201
    ((put, _),) = door.objects.uploads.values()
    assert put.content_encoding == "gzip"


async def test_what_categories_allow_can_be_asked() -> None:
    door = Door({"invoice": {"lifetimeDays": 3650, "compress": True}, "backup": {"compress": False}})
    answer = await door.client.get("/api/files/categories")
    told = {each["name"]: each for each in answer.json()["data"]["categories"]}
    assert set(told) == {"email", "document", "avatar", "contract", "invoice", "backup", "general"}
    assert told["backup"] == {
        "name": "backup", "types": ["*/*"], "maxBytes": 50 << 30, "mayBePublic": False, "scanned": False,
        "compressibleTypes": [],
    }  # fmt: skip
    assert told["invoice"]["lifetimeDays"] == 3650
    assert "application/xml" in told["invoice"]["compressibleTypes"]
    assert (await door.client.get("/api/files/categories", headers=as_("ann", "files:read"))).status_code == 403


async def test_a_files_lifetime_is_that_of_its_category_when_it_was_asked_for() -> None:
    door = Door({"document": {"lifetimeDays": 30}})
    file_id = await door.uploaded()
    ends = door.clock.now() + timedelta(days=30)
    assert (await door.complete(file_id)).json()["data"]["keptUntil"] == f"{ends:%Y-%m-%dT%H:%M:%SZ}"
    lasting = await door.uploaded(category="general")
    assert "keptUntil" not in (await door.complete(lasting)).json()["data"]


LONGEST = "💌" * 1000
LARGEST: dict[str, Any] = {
    "fileName": "💌" * 250 + ".pdf",
    "metadata": {"tags": [f"{n:02}" + "💌" * 126 for n in range(50)]} | {f"{n:064}": LONGEST for n in range(20)},
}


async def test_the_largest_requests_that_the_rules_allow_are_taken(door: Door) -> None:
    assert (await door.ask(**LARGEST)).status_code == 201  # every character of it as 12 bytes
    parts = [{"partNumber": n, "etag": f'"{n:032x}"'} for n in range(1, 10_001)]
    assert (await door.complete("0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b", parts=parts)).status_code == 404
    ids = json.dumps(
        {"action": "delete", "fileIds": [f"0192f0c1-2b7a-7d3e-9c1a-{n:012x}" for n in range(1000)]}, indent=4
    )
    headers = as_("ann") | {"content-type": "application/json"}
    assert (await door.client.post("/api/files/batch", content=ids, headers=headers)).status_code == 200


async def test_a_flood_of_mistakes_is_one(door: Door) -> None:
    for answer in (
        await door.complete("0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b", parts=[{"etag": "e"}] * 10_000),
        await door.complete("0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b", parts=[{"partNumber": 1, "etag": "e"}] * 10_001),
        await door.ask(metadata={f"k{n}": n for n in range(20_000)}),
    ):
        assert answer.status_code == 400
        assert len(answer.json()["details"]) == 1, answer.text[:1000]
