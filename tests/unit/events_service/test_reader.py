"""The fast way of reading is held to the judge: whatever bytes come, same verdict, same event."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.base import EventData, Money, format_time
from contracts.email import events as mail
from contracts.email.values import AttachmentInfo, ContentRef
from contracts.errors import ContractError
from contracts.files import events as files
from contracts.recipients import events as recipients
from contracts.registry import EVENTS, event_from_wire, read_json
from services.events import reader
from services.events.reader import read_event
from tests.unit.events_service.events import (
    ANN,
    BOB,
    MESSAGE,
    START,
    USD,
    Log,
    attempted,
    bounced,
    fact,
    failed,
    refused,
    requested,
    retracted,
    sent,
    settled,
    unknown,
)  # fmt: skip
from tests.unit.events_service.file_events import (
    deleted,
    download,
    object_fact,
    restored,
    scan_settled,
    scanned,
    upload_failed,
    upload_requested,
    uploaded,
)

OBJECT_FACTS = (
    files.FileObjectCreated, files.FileObjectRemoved, files.FileDeleteMarkerCreated, files.FileObjectExpired,
    files.FileObjectTagged, files.FileObjectMoved,
)  # fmt: skip
EVERYTHING: list[EventData] = [
    requested(),
    requested(
        ANN, cc=[BOB], bcc=["c@example.com"], reply_to=ANN, template_id="welcome", client_id="c", tags={"a": "b"},
        custom_data={"deep": {"er": [1, 2.5, None, True]}, "no": None}, send_at=START, list_id="news",
        content=ContentRef(ref="mongo:1", sha256="0" * 64, size=5),
        attachments=[AttachmentInfo(filename="a.pdf", content_type="application/pdf", size=3)],
    ),
    mail.EmailCancelled(reason="no more"), mail.EmailCancelled(),
    attempted(), sent(), refused(), unknown(), settled("accepted", size=3, cost=USD), settled("notAccepted"),
    failed(), fact(mail.EmailSendConfirmed), fact(mail.EmailDelivered, processing_time_ms=5, smtp_response="250"),
    fact(mail.EmailDeliveryDelayed, delay_type="x", expires_at=START), bounced(), fact(mail.EmailRejected, reason="x"),
    fact(mail.EmailComplained, feedback_type="abuse"), fact(mail.EmailComplaintWithdrawn),
    fact(mail.EmailOpened, machine=True), fact(mail.EmailOpened), fact(mail.EmailClicked, link="https://x.example"),
    mail.EmailUnsubscribed(recipient=ANN, source="page"), retracted("x"),
    recipients.RecipientSuppressed(address=ANN, scope="all", reason="manual", cause="c", until=START),
    recipients.RecipientUnsuppressed(address=ANN, scope="list:a", reason="r"),
    upload_requested(), upload_requested(client_id="c", tags=["a"], upload_id="u"), uploaded(checksum="c"), uploaded(),
    upload_failed(), upload_failed("expired", None), deleted(), restored(), scan_settled(), scanned(), download(),
    files.FileUpdated(is_public=True, tags=["b"], file_name="f", original_name="o"), files.FileUpdated(),
    files.FileUploadClosed(),
    *(object_fact(model, size=3, storage_class="STANDARD", sequencer="00A") for model in OBJECT_FACTS),
    *(object_fact(model, None) for model in OBJECT_FACTS),
]  # fmt: skip

Read = tuple[str, str, str, int, dict[str, Any]] | str


def judged(raw: bytes) -> Read:
    """What `event_from_wire` says: an event's fields in the reader's normal form, or the reason against it."""
    try:
        event = event_from_wire(read_json(raw))
    except ContractError as error:
        return error.reason
    return (event.id, event.type, format_time(event.time), event.revision or 0, event.data.to_wire())


def read(raw: bytes) -> Read:
    try:
        event = read_event(raw, 1, 2)
    except ContractError as error:
        return error.reason
    return (event.id, event.type, event.time, event.revision, event.data)


def test_every_type_is_among_the_samples() -> None:
    assert {name for name in EVENTS if any(type(data) is EVENTS[name].model for data in EVERYTHING)} == set(EVENTS)


@pytest.mark.parametrize("data", EVERYTHING, ids=lambda data: type(data).__name__)
def test_what_our_writers_publish_is_read_the_fast_way(data: EventData) -> None:
    raw = Log().raw(data)
    assert reader._fast(raw) is not None
    assert read(raw) == judged(raw)


STRANGE = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.just(2**70), st.floats(), st.text(max_size=3),
    st.sampled_from([[], {}, {"a": None}, ["x"], 1.0, 123456789, {"a": [123456789]}]),
    st.sampled_from([
        "1", "true", 1700000000, "email.sent", "ses", "accepted", "permanent",
        "2026-11-24T10:00:00Z", "2026-11-24T10:00:00.123456Z", "2026-11-24T11:00:00.123456+01:00",
        "2026-11-24T10:00:00", "2026-13-24T10:00:00.000000Z", "2026-11-24T24:00:00.000000Z",
        "2026-02-29T10:00:00.000000Z", "2028-02-29T10:00:00.000000Z",
        "0000-11-24T10:00:00.000000Z", "2026-11-24 10:00:00.000000Z",
        "٢٠٢٦-11-24T10:00:00.000000Z",
    ]),
)  # fmt: skip
ATTRIBUTES = (
    "specversion", "id", "source", "type", "subject", "datacontenttype", "dataversion", "causationid", "traceparent",
    "actor", "time", "correlationid", "streamversion", "revision", "data", "extension",
)  # fmt: skip


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A good record with none to four of its fields changed, left out, nulled or added, in any JSON layout."""
    wire: dict[str, Any] = json.loads(Log().raw(draw(st.sampled_from(EVERYTHING))))
    for _ in range(draw(st.integers(0, 4))):
        inner = isinstance(wire.get("data"), dict) and draw(st.booleans())
        target = wire["data"] if inner else wire
        name = draw(st.sampled_from([*target, "extension"] if inner else ATTRIBUTES))
        if draw(st.booleans()):
            target.pop(name, None)
        else:
            target[name] = copy.deepcopy(draw(STRANGE))
    keys = draw(st.permutations(list(wire)))
    dump: Callable[..., str] = json.dumps
    separators = draw(st.sampled_from([(",", ":"), (", ", ": ")]))
    text = dump({key: wire[key] for key in keys}, separators=separators, ensure_ascii=draw(st.booleans()))
    text = text.replace("123456789", "1e999")
    return text.encode(errors="surrogatepass")


def _same(one: Any, other: Any) -> bool:
    """Equality that also tells 1 from True and 1.0, and takes NaN for itself."""
    return repr(_sorted(one)) == repr(_sorted(other))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list | tuple) else value


@settings(max_examples=1000, deadline=None)
@given(records())
def test_whatever_is_written_the_fast_way_and_the_judge_agree(raw: bytes) -> None:
    assert _same(read(raw), judged(raw))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80) | st.sampled_from([b"", b"null", b"[]", b'{"type":"email.sent"', b'{"a":"\\ud800"}']))
def test_bytes_that_are_no_record_are_refused_alike(raw: bytes) -> None:
    assert read(raw) == judged(raw)


def test_a_null_value_and_deep_nesting_are_refused() -> None:
    with pytest.raises(ContractError) as refused_null:
        read_event(None, 0, 0)
    assert refused_null.value.reason == "nullValue"
    assert read(b'{"type":"email.sent","data":' + b"[" * 5000 + b"]" * 5000 + b"}") == "notJson"


def test_a_record_of_another_aggregate_is_refused() -> None:
    raw = Log().raw(sent())
    assert read_event(raw, 0, 0, MESSAGE).type == "email.sent"
    with pytest.raises(ContractError) as mismatch:
        read_event(raw, 0, 0, "somebody-else")
    assert mismatch.value.reason == "keyMismatch"


def test_an_unknown_type_is_kept_with_its_data() -> None:
    wire = json.loads(Log().raw(sent())) | {"type": "email.teleported", "dataversion": 7}
    event = read_event(json.dumps(wire).encode(), 0, 9)
    assert (event.type, event.rank, event.data) == ("email.teleported", 1000, wire["data"])


@pytest.mark.parametrize("version", [2, 0, True, 1.0, "1", None])
def test_an_unknown_version_is_refused(version: Any) -> None:
    wire = json.loads(Log().raw(sent())) | {"dataversion": version}
    assert read(json.dumps(wire, separators=(",", ":")).encode()) == "unknownVersion"


def test_money_is_read_as_it_was_written() -> None:
    event = read_event(Log().raw(sent(cost=Money(amount=2**40, currency="EUR"))), 0, 0)
    assert event.data["cost"] == {"amount": 2**40, "currency": "EUR"}
