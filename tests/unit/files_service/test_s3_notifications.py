"""Every event of S3 and GuardDuty, every wrapper and every trap: what a notification becomes, and what it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.base import format_time
from contracts.envelope import Envelope
from contracts.registry import event_from_wire, read_json
from services.files.adapters.s3_notifications import S3Notifications
from services.files.domain.notifications import Translation
from services.files.entrypoints.ingest import split
from services.files.explain import explain_s3
from services.kit.errors import PermanentError
from tests.unit.files_service.s3_examples import (
    BUCKET,
    CLASSIC,
    EVENTS,
    FILE,
    KEY,
    NOTHING,
    SEQUENCED,
    SEQUENCER,
    STORAGE,
    TEST_EVENT,
    VERSION,
    event,
    message,
    record,
    scan,
    sns,
)

OURS = S3Notifications(BUCKET)
NAMES = st.sampled_from(sorted(CLASSIC))
versions = st.text("abcXYZ019._", min_size=1, max_size=12)
sequencers = st.integers(1, 1 << 72).map(lambda number: f"{number:018X}")
requests = st.text("0123456789ABCDEF", min_size=16, max_size=16)


def translate(value: Any) -> Translation:
    return OURS.translate(json.dumps(value).encode())


def only(value: Any) -> Envelope:
    (fact,) = translate(value).facts
    return fact


def reason(value: Any) -> str:
    with pytest.raises(PermanentError) as refused:
        translate(value)
    return refused.value.reason


def through(body: Any) -> Envelope:
    """The fact of a message's one record."""
    (item,) = split(message(body))
    (fact,) = OURS.translate(item.value).facts
    return fact


@pytest.mark.parametrize("name", CLASSIC)
@pytest.mark.parametrize("form", [record, event])
def test_each_event_becomes_its_fact(name: str, form: Any) -> None:
    fact = only(form(name))
    assert (fact.type, fact.subject, fact.correlationid, fact.source) == (CLASSIC[name], FILE, FILE, "/mailroom/files")
    assert (fact.revision, fact.streamversion) == (1, None)
    wire = fact.data.to_wire()
    assert (wire["bucket"], wire["key"], wire["versionId"], wire["eventName"]) == (BUCKET, KEY, VERSION, name)
    assert wire.get("storageClass") == STORAGE.get(name)
    assert wire.get("size") == (48213 if name.startswith("ObjectCreated") else None)
    assert ("etag" in wire) is name.startswith("ObjectCreated")
    assert ("sequencer" in wire) is name.startswith(SEQUENCED)
    assert event_from_wire(read_json(fact.to_bytes())) == fact


@pytest.mark.parametrize("name", CLASSIC)
def test_both_forms_say_the_same(name: str) -> None:
    """But for the time: EventBridge tells whole seconds."""
    classic, bridged = only(record(name)), only(event(name))
    assert (classic.id, classic.data) == (bridged.id, bridged.data)
    assert format_time(classic.time) == "2026-11-29T10:00:08.123000Z"
    assert format_time(bridged.time) == "2026-11-29T10:00:08.000000Z"


@pytest.mark.parametrize("value", [*map(record, NOTHING), *(event(name) for name in NOTHING if name in EVENTS)])
def test_what_happens_to_no_file_is_no_fact_and_said_so(value: dict[str, Any]) -> None:
    translation = translate(value)
    assert translation.facts == ()
    assert "kept raw" in (translation.why_none or "")


@pytest.mark.parametrize(
    "value",
    [
        {**event(), "detail-type": "Object Teleported"},
        {**event(), "source": "somebody.else"},
        {**scan(), "source": "somebody.else"},
        {**scan(), "detail-type": "GuardDuty Malware Protection Post Scan Action Failed"},
        {**scan(), "detail-type": "GuardDuty Malware Protection Resource Status Active", "detail": {}},
        {**event(), "source": "aws.s3", "detail-type": "Object Teleported", "detail": None},
    ],
)
def test_an_event_of_another_kind_is_no_fact(value: dict[str, Any]) -> None:
    assert translate(value).facts == ()


def test_a_call_that_aws_adds_still_creates() -> None:
    assert only(record("ObjectCreated:Beam")).type == "file.objectCreated"
    beamed = event()
    beamed["detail"]["reason"] = "BeamObject"
    assert only(beamed).data.to_wire()["eventName"] == "ObjectCreated:BeamObject"
    del beamed["detail"]["reason"]
    assert only(beamed).data.to_wire()["eventName"] == "ObjectCreated"


def test_event_names_come_with_and_without_a_prefix() -> None:
    assert only(record("ObjectCreated:Put")) == only(
        {**record("ObjectCreated:Put"), "eventName": "s3:ObjectCreated:Put"}
    )


@pytest.mark.parametrize("encoded", [KEY, KEY.replace("/", "%2F"), KEY.replace("/", "%2f"), KEY.replace("d", "%64", 1)])
def test_keys_are_url_encoded_in_the_classic_form_alone(encoded: str) -> None:
    value = record()
    value["s3"]["object"]["key"] = encoded
    assert only(value) == only(record())
    if encoded != KEY:
        assert reason(event(key=encoded)) == "orphan", "raw in EventBridge: another key"


@pytest.mark.parametrize("key", ["mail/abc", "a b/c+d.pdf", KEY + "/x", KEY.upper(), "%FF", "日本語", KEY + "\n"])
@pytest.mark.parametrize("form", [record, event])
def test_a_key_that_is_none_of_ours_is_an_orphan(key: str, form: Any) -> None:
    assert reason(form(key=key)) == "orphan"
    assert reason(scan(key=key)) == "orphan"


@pytest.mark.parametrize("form", [record, event, scan])
def test_what_guardduty_tries_the_bucket_with_is_no_orphan(form: Any) -> None:
    found = translate(form(key="malware-protection-resource-validation-object"))
    assert (found.facts, found.why_none) == ((), "GuardDuty tries whether it may write into the bucket")
    for other in ("malware-protection-resource-validation-object2", "x/malware-protection-resource-validation-object"):
        assert reason(form(key=other)) == "orphan"
    assert reason(form(bucket="other", key="malware-protection-resource-validation-object")) == "wrongBucket"


def test_an_orphans_key_is_not_told() -> None:
    """A key that somebody else made may name a person, and reasons are shown in lists and logs."""
    with pytest.raises(PermanentError) as refused:
        translate(record(key="payroll-jane-doe.pdf"))
    assert "jane" not in str(refused.value)


def test_another_bucket_is_refused_unless_any_will_do() -> None:
    for value in (record(bucket="other"), event(bucket="other"), scan(bucket="other")):
        assert reason(value) == "wrongBucket"
        assert S3Notifications(None).translate(json.dumps(value).encode()).facts[0].subject == FILE
    assert reason(record(bucket="other", key="not/ours")) == "wrongBucket"


def test_only_bucket_key_and_time_are_needed() -> None:
    for form in (record, event):
        fact = only(form(version=None, sequencer=None, request=None))
        assert fact.data.to_wire().keys() == {"bucket", "key", "size", "etag", "eventName"}
        assert fact.id != only(form(version=None, sequencer=None, request=None, time="2026-11-29T10:00:09Z")).id


@pytest.mark.parametrize("absent", [None, ""])
def test_null_and_empty_are_absent(absent: str | None) -> None:
    value = record("ObjectRemoved:Delete")
    value["s3"]["object"].update(size=None, eTag=absent, versionId=absent)
    wire = only(value).data.to_wire()
    assert wire.keys() == {"bucket", "key", "sequencer", "eventName"}


def test_sequencers_of_one_key_sort_as_text() -> None:
    numbers = ["9", "0A", "ff", "0055AED6DCD90281E5", "55aed6dcd90281e6"]
    found = [only(record(sequencer=each)).data.to_wire()["sequencer"] for each in numbers]
    assert found == sorted(found)
    assert "sequencer" not in only(record(sequencer="000")).data.to_wire(), "zero orders nothing"


@pytest.mark.parametrize(
    ("time", "told"),
    [
        ("2026-11-29T10:00:08.123Z", "2026-11-29T10:00:08.123000Z"),
        ("2026-11-29T10:00:08Z", "2026-11-29T10:00:08.000000Z"),
        ("2026-11-29T10:00:08", "2026-11-29T10:00:08.000000Z"),
        ("2026-11-29T10:00:08.123456+02:00", "2026-11-29T08:00:08.123456Z"),
    ],
)
def test_every_form_of_a_time(time: str, told: str) -> None:
    for form in (record, event, scan):
        assert format_time(only(form(time=time)).time) == told


@pytest.mark.parametrize("time", [None, "", "yesterday", "0001-01-01T00:00:00+14:00"])
def test_a_time_that_is_none(time: str | None) -> None:
    for form in (record, event, scan):
        assert reason(form(time=time)) == "badTime"


# --- scans ---


@pytest.mark.parametrize(
    ("status", "result"),
    [
        ("NO_THREATS_FOUND", "clean"),
        ("THREATS_FOUND", "infected"),
        ("UNSUPPORTED", "unsupported"),
        ("ACCESS_DENIED", "error"),
        ("FAILED", "error"),
    ],
)
def test_a_scan_says_what_it_found(status: str, result: str) -> None:
    fact = only(scan(status))
    assert (fact.type, fact.subject, format_time(fact.time)) == ("file.scanned", FILE, "2026-11-29T10:00:14.000000Z")
    assert fact.data.to_wire() == {
        "bucket": BUCKET,
        "key": KEY,
        "versionId": VERSION,
        "result": result,
        "detail": status,
    }


def test_a_scan_names_the_threats_or_its_reasons() -> None:
    assert (
        only(scan("THREATS_FOUND", threats=["EICAR", "Other"])).data.to_wire()["detail"]
        == "THREATS_FOUND: EICAR, Other"
    )
    assert only(scan("UNSUPPORTED", reasons=["TOO_LARGE"])).data.to_wire()["detail"] == "UNSUPPORTED: TOO_LARGE"
    assert len(only(scan("THREATS_FOUND", threats=["x" * 90] * 90)).data.to_wire()["detail"]) == 500


def test_a_scan_heard_twice_is_one_and_a_later_one_another() -> None:
    assert only(scan()) == only({**scan(), "id": "another"})
    assert len({only(scan(time=f"2026-11-29T10:00:{n}Z")).id for n in range(10, 20)}) == 10
    assert only(scan("THREATS_FOUND")).id != only(scan()).id
    assert only(scan(version="v2")).id != only(scan()).id


def test_a_scan_that_nobody_can_place_is_refused() -> None:
    assert reason(scan(version=None)) == "malformed"
    assert reason(scan("SPLENDID")) == "malformed"


def test_a_scan_that_shows_in_a_tag_is_a_tagging() -> None:
    assert only(record("ObjectTagging:Put")).type == "file.objectTagged"


# --- laws ---


@given(NAMES, versions | st.none(), sequencers, requests)
def test_one_happening_has_one_id(name: str, version: str | None, sequencer: str, request: str) -> None:
    """However it is wrapped, however often it comes, and in whatever case its sequencer is written."""
    said: dict[str, Any] = {"version": version, "sequencer": sequencer, "request": request}
    first = only(record(name, **said))
    one = {"Records": [record(name, **said)]}
    for body in (one, sns(one), sns(one, MessageId="sns-2", Timestamp="2026-11-30T00:00:00Z"), one["Records"][0]):
        assert through(body) == first
    for bridged in (event(name, **said), sns(event(name, **said))):
        assert through(bridged).id == first.id
    said["sequencer"] = sequencer.lower().lstrip("0")
    assert only(record(name, **said)) == first
    assert only(event(name, **said)).id == first.id


@given(
    st.lists(
        st.tuples(st.sampled_from(["p1", "p2"]), versions | st.none(), st.integers(1, 1 << 72), requests, NAMES),
        max_size=12,
        unique=True,
    )
)
def test_different_happenings_have_different_ids(
    happenings: list[tuple[str, str | None, int, str, str]],
) -> None:
    ids: dict[str, set[object]] = {}
    for nonce, version, number, request, name in happenings:
        key = KEY.rpartition("/")[0] + f"/Zm9vYm{nonce}"
        fact = only(record(name, key=key, version=version, sequencer=f"{number:x}", request=request))
        what = number if name.startswith(SEQUENCED) else request
        ids.setdefault(fact.id, set()).add((key, version, CLASSIC[name], what))
    assert all(len(meant) == 1 for meant in ids.values())
    assert len(ids) == len({each for meant in ids.values() for each in meant})


def test_a_fact_of_each_type_at_one_moment_has_an_id_of_its_own() -> None:
    assert len({only(record(name)).id for name in CLASSIC}) == len(set(CLASSIC.values())), "one for each type of fact"


# --- what is broken ---

BROKEN: list[tuple[tuple[str, ...], Any]] = [
    (("s3",), None),
    (("s3",), "x"),
    (("s3", "bucket"), []),
    (("s3", "bucket", "name"), 5),
    (("s3", "object"), None),
    (("s3", "object", "key"), None),
    (("s3", "object", "key"), ""),
    (("s3", "object", "size"), -1),
    (("s3", "object", "size"), 1.5),
    (("s3", "object", "size"), "12"),
    (("s3", "object", "size"), True),
    (("s3", "object", "size"), 1 << 63),
    (("s3", "object", "eTag"), 5),
    (("s3", "object", "versionId"), ["v"]),
    (("s3", "object", "sequencer"), "0x5"),
    (("s3", "object", "sequencer"), "1_0"),
    (("s3", "object", "sequencer"), "f" * 65),
    (("s3", "object", "sequencer"), 5),
    (("responseElements", "x-amz-request-id"), 5),
    (("eventName",), ""),
    (("eventName",), 5),
]


def put(value: Any, path: tuple[str, ...], new: Any) -> Any:
    if not path:
        return new
    return {**value, path[0]: put(value[path[0]], path[1:], new)}


@pytest.mark.parametrize(("path", "new"), BROKEN)
def test_what_contradicts_the_documentation_is_refused(path: tuple[str, ...], new: Any) -> None:
    assert reason(put(record(), path, new)) == "malformed"


@pytest.mark.parametrize(
    "value",
    [
        {},
        TEST_EVENT,
        {"Records": [record()]},
        sns("not JSON"),
        {**event(), "detail": None},
        {**event(), "detail-type": None},
        put(event("ObjectRemoved:Delete"), ("detail", "deletion-type"), "Vanished"),
        put(scan(), ("detail", "scanResultDetails"), None),
        put(scan(), ("detail", "s3ObjectDetails"), "x"),
    ],
)
def test_what_is_no_notification_is_refused(value: Any) -> None:
    assert reason(value) == "malformed"


def test_what_is_no_json_is_refused() -> None:
    for raw, why in ((b"", "notJson"), (b"\xff", "notJson"), (b"[1]", "notAnObject"), (b"[" * 999, "notJson")):
        with pytest.raises(PermanentError) as refused:
            OURS.translate(raw)
        assert refused.value.reason == why


def test_a_confirmation_of_sns_is_no_fact() -> None:
    assert translate(sns("confirm", Type="SubscriptionConfirmation")).facts == ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def paths(value: Any, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(value, dict):
        return [before]
    return [before, *(path for name in value for path in paths(value[name], (*before, name)))]


@given(st.data())
def test_garbage_is_translated_or_refused_and_breaks_nothing(data: st.DataObject) -> None:
    value = data.draw(st.sampled_from([*map(record, CLASSIC), *map(event, EVENTS), scan()]))
    for _ in range(data.draw(st.integers(1, 3))):
        value = put(value, data.draw(st.sampled_from(paths(value))), data.draw(json_values))
        if not isinstance(value, dict):
            break
    try:
        found, why = translate(value).facts, None
    except PermanentError as error:
        found, why = (), error.reason
    assert why in {None, "notAnObject", "notJson", "malformed", "badTime", "wrongBucket", "orphan"}
    for fact in found:
        assert event_from_wire(read_json(fact.to_bytes())) == fact
        assert fact.subject == FILE


@given(st.binary() | st.text().map(str.encode))
def test_noise_is_refused(raw: bytes) -> None:
    with pytest.raises(PermanentError):
        OURS.translate(raw)


# --- for people ---


@pytest.mark.parametrize(
    "value",
    [
        record(),
        {"Records": [record()]},
        sns({"Records": [record()]}),
        message({"Records": [record()]}),
        message(sns({"Records": [record()]})),
        event(),
        message(event()),
    ],
)
def test_explain_takes_every_wrapping(value: Any) -> None:
    explained = explain_s3(json.dumps(value).encode())
    (line,) = explained.lines
    assert (json.loads(line)["id"], explained.why_none, explained.refused) == (only(record()).id, None, False)


def test_explain_says_why_not() -> None:
    assert "TestEvent" in (explain_s3(json.dumps(TEST_EVENT).encode()).why_none or "")
    assert "kept raw" in (explain_s3(json.dumps(record("ObjectAcl:Put")).encode()).why_none or "")
    assert explain_s3(b"{").refused
    assert "wrongBucket" in (explain_s3(json.dumps(record()).encode(), "another").why_none or "")
    several = explain_s3(json.dumps({"Records": [record(), record(key="x"), record("ObjectAcl:Put"), 5]}).encode())
    assert (len(several.lines), several.refused) == (1, True)
    for part in (
        "record 2 of 4 would be parked: orphan",
        "record 3 of 4: ",
        "record 4 of 4 would be parked: notAnObject",
    ):
        assert part in (several.why_none or "")


def test_ids_are_frozen() -> None:
    """Another id would make every happening that is known already a second one."""
    assert only(record()).id == only(record(sequencer=SEQUENCER.lower())).id == "749ce39e-bd91-5235-9ff3-97082989194c"
    assert only(record("ObjectTagging:Put")).id == "0f9a8148-ec25-5ae5-9a1d-274bddf83f83"
    assert only(scan()).id == "0471c83b-5e81-5178-8d46-03e05aa83ff2"
