"""The judge: what the whole system says it did, held against the provider's own log of acceptances.

Pure: it takes evidence (see `evidence.py` for how it is gathered) and returns every contradiction as a sentence. It
reads decisions by itself and not through the service's domain, so that a bug there cannot excuse itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import bson
from bson.codec_options import CodecOptions

from contracts.errors import ContractError
from contracts.registry import read_json
from services.email.domain.correlation import ATTEMPT_TAG, MESSAGE_TAG
from services.events.adapters.mongo_documents import BOOKKEEPING, from_document, from_row
from services.events.projections.known import Known, add, effective, spill, tally
from services.events.projections.projection import EMAIL_LOG, Projection
from services.events.reader import read_event

Json = dict[str, Any]
End = Literal["accepted", "failed", "unknown", "open", "queued"]

LIMIT_OPEN = 32
"""Attempts that one process may have open; so many may be without answer after one kill."""

SILENT = ("blackhole", "noevents")
"""Behaviours of the simulator that send no notification: an unknown attempt stays so."""

FACTS_OF = {
    "Send": ("email.sendConfirmed",),
    "Delivery": ("email.delivered",),
    "Bounce": ("email.bounced",),
    "Complaint": ("email.complained", "email.complaintWithdrawn"),
    "Reject": ("email.rejected",),
    "Rendering Failure": ("email.rejected",),
    "DeliveryDelay": ("email.deliveryDelayed",),
    "Open": ("email.opened",),
    "Click": ("email.clicked",),
}
"""What SES calls an event → the facts that it must have become."""

_NEEDED = {"id", "type", "subject"}
_EXACT_DATES: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of a log."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known after any run, of whatever it was about and of the system as a whole.

    Attributes:
        log: the events of its topic.
        documents: the active read model's documents as stored, by id. `rows`: those of busy ones.
        streams: stream documents, by id.
        parked: open parked records as `service topic reason`.
        lag: records behind by consumer, only those that are.
        queues: messages left by queue, only those that have some.
    """

    log: Sequence[Entry] = ()
    documents: Mapping[str, Json] = field(default_factory=dict)
    rows: Sequence[Json] = ()
    streams: Mapping[str, Json] = field(default_factory=dict)
    parked: Sequence[str] = ()
    lag: Mapping[str, int] = field(default_factory=dict)
    queues: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence(Observed):
    """Of messages: their events on `email.events`, and the streams of recipients, too.

    Attributes:
        acceptances, notifications: the simulator's journals.
        recipients: `recipients.events`.
    """

    acceptances: Sequence[Json] = ()
    notifications: Sequence[Json] = ()
    recipients: Sequence[Entry] = ()


@dataclass(frozen=True, slots=True)
class Expected:
    """What was asked of the system, and what may be wrong with it.

    Attributes:
        requested: message id → its recipients, for everything whose taking on was acknowledged.
        kills: how often the email service was killed.
        may_be_unknown: attempts that may be without answer for another reason: a fault that swallowed it.
        parked: records that must be parked, as in `Evidence.parked`, in any order.
        several: whether there are several providers: then each attempt says why it is that one's.
        unreported: whether providers tell nothing of some mail: then what got no answer, and of which nothing was told,
            may stay unknown.
        resends: whether the operators let mail of category `auth` be sent once more after silence.
    """

    requested: Mapping[str, frozenset[str]]
    kills: int = 0
    may_be_unknown: int = 0
    parked: Sequence[str] = ()
    several: bool = False
    unreported: bool = False
    resends: bool = False


@dataclass(slots=True)
class Attempt:
    """What the log's decisions say about one call. `chosen`: whom its `considered` names as chosen; `resend`: it says
    that it is made although another's outcome is unknown; `hasty`: an earlier call for the same recipient did not allow
    it yet.
    """

    message_id: str
    recipient: str
    provider: str = "ses"
    chosen: list[str] = field(default_factory=list)
    resend: bool = False
    hasty: bool = False
    sent: set[str] = field(default_factory=set)
    refused: bool = False
    unknown: bool = False
    settled: set[str] = field(default_factory=set)

    @property
    def accepted(self) -> bool:
        return bool(self.sent) or "accepted" in self.settled

    @property
    def closed(self) -> bool:
        return self.accepted or self.refused or "notAccepted" in self.settled


class Decisions:
    """The decisions on the log, one per id, by message and attempt."""

    def __init__(self, log: Iterable[Entry]) -> None:
        self.requested: dict[str, list[str]] = {}
        self.tags: dict[str, Json] = {}
        self.categories: dict[str, str] = {}
        self.attempts: dict[str, Attempt] = {}
        self._tried: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
        self.failed: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.facts: dict[str, set[str]] = defaultdict(set)
        seen: set[str] = set()
        for event in events_of(log):
            if event["id"] not in seen:
                seen.add(event["id"])
                self._take(event["type"], event["subject"], event["data"])

    def _take(self, kind: str, message_id: str, data: Json) -> None:
        attempt = self.attempts.get(data.get("attemptId", ""))
        if kind == "email.requested":
            self.requested[message_id] = [*data["to"], *data.get("cc", ()), *data.get("bcc", ())]
            self.tags[message_id] = data.get("tags", {})
            self.categories[message_id] = data["category"]
        elif kind == "email.sendAttempted":
            self._begin(message_id, data)
        elif kind == "email.failed":
            self.failed[message_id, data["recipient"]].add(data["reason"])
        elif attempt is not None and kind == "email.sent":
            attempt.sent.add(data["providerMessageId"])
        elif attempt is not None and kind == "email.sendRejected":
            attempt.refused = True
        elif attempt is not None and kind == "email.sendOutcomeUnknown":
            attempt.unknown = True
        elif attempt is not None and kind == "email.attemptSettled":
            attempt.settled.add(data["outcome"])
        else:
            for name in ("providerMessageId", "attemptId"):
                if data.get(name) is not None:
                    self.facts[data[name]].add(kind)

    def _begin(self, message_id: str, data: Json) -> None:
        earlier = self._tried[message_id, data["recipient"]]
        chosen = [each["provider"] for each in data.get("considered") or () if each["why"].startswith("chosen")]
        resend = data["reason"] == "resend"
        silent = [each for each in earlier if not each.closed]
        hasty = bool(silent)
        if resend:  # after silence alone, once, and through a provider that cannot have it
            hasty = not silent or any(
                not each.unknown or each.resend or each.provider == data["provider"] for each in silent
            )
        hasty = hasty or any(each.accepted for each in earlier)
        attempt = Attempt(message_id, data["recipient"], data["provider"], chosen, resend, hasty)
        self.attempts[data["attemptId"]] = attempt
        earlier.append(attempt)

    def ends(self) -> dict[tuple[str, str], End]:
        """(message id, recipient) of every requested delivery → how it ended."""
        return {
            (message_id, recipient): self._end(self._tried[message_id, recipient], self.failed[message_id, recipient])
            for message_id, recipients in self.requested.items()
            for recipient in recipients
        }

    @staticmethod
    def _end(attempts: Sequence[Attempt], failed: set[str]) -> End:
        if any(attempt.accepted for attempt in attempts):
            return "accepted"
        if failed:
            return "failed"
        waiting = [attempt for attempt in attempts if not attempt.closed]
        if not waiting:
            return "queued"
        return "unknown" if all(attempt.unknown for attempt in waiting) else "open"


def events_of(log: Iterable[Entry]) -> Iterable[Json]:
    """The CloudEvents of a log, in its order; what is none is left out."""
    for entry in log:
        try:
            event = read_json(entry.value)
        except ContractError:
            continue
        if isinstance(event.get("data"), dict) and event.keys() >= _NEEDED:
            yield event


def problems(evidence: Evidence, expected: Expected) -> list[str]:
    """Every contradiction, [] if there is none. Messages of nobody's asking on the log are judged as the others."""
    decisions = Decisions(evidence.log)
    return [
        *_accepted_once(evidence, decisions),
        *_everything_ends(decisions, expected),
        *_unknowns(decisions, expected),
        *_attempts_are_allowed(decisions, expected),
        *_acceptances_are_known(evidence, decisions, expected),
        *_notifications_became_facts(evidence, decisions),
        *read_model_is_the_fold(EMAIL_LOG, evidence.log, evidence.documents, evidence.rows),
        *streams_are_published((*evidence.log, *evidence.recipients), evidence.streams),
        *nothing_is_left(evidence, expected.parked),
    ]


def _accepted_once(evidence: Evidence, decisions: Decisions) -> Iterable[str]:
    """And once more where an attempt on the log says `resend`; whether it might is `_attempts_are_allowed`'s."""
    resends = {attempt_id for attempt_id, attempt in decisions.attempts.items() if attempt.resend}
    counted = Counter(
        (entry["tags"].get(MESSAGE_TAG), recipient, entry["tags"].get(ATTEMPT_TAG) in resends)
        for entry in evidence.acceptances
        for recipient in entry["destination"]
    )
    for (message_id, recipient, _), times in counted.items():
        if times > 1:
            yield f"{message_id}: {recipient} was accepted {times} times"


def _everything_ends(decisions: Decisions, expected: Expected) -> Iterable[str]:
    for message_id, recipients in expected.requested.items():
        if message_id not in decisions.requested:
            yield f"{message_id}: was acknowledged and is not on the log"
        elif frozenset(decisions.requested[message_id]) != recipients:
            yield f"{message_id}: has other recipients on the log than were asked for"
    for (message_id, recipient), end in decisions.ends().items():
        if end in ("open", "queued"):
            yield f"{message_id}: {recipient} ends {end}"
    made = Counter(tags["n"] for tags in decisions.tags.values() if "n" in tags)
    yield from (f"request {number} made {times} messages" for number, times in made.items() if times > 1)


def unknowns(decisions: Decisions) -> int:
    """Attempts that were without an answer at any time."""
    return sum(attempt.unknown for attempt in decisions.attempts.values())


def _unknowns(decisions: Decisions, expected: Expected) -> Iterable[str]:
    found, most = unknowns(decisions), expected.kills * LIMIT_OPEN + expected.may_be_unknown
    if found > most:
        yield f"{found} attempts had no answer; after {expected.kills} kills at most {most} may"


def _attempts_are_allowed(decisions: Decisions, expected: Expected) -> Iterable[str]:
    for attempt_id, attempt in decisions.attempts.items():
        if attempt.hasty and attempt.resend:
            yield f"{attempt.message_id}: {attempt_id} is a resend that earlier attempts did not allow"
        elif attempt.hasty:
            yield f"{attempt.message_id}: {attempt_id} began though an earlier attempt for it had no no"
        if attempt.resend and not (expected.resends and decisions.categories.get(attempt.message_id) == "auth"):
            yield f"{attempt.message_id}: {attempt_id} is a resend that nobody asked for"
        if expected.several and attempt.chosen != [attempt.provider]:
            yield f"{attempt.message_id}: nothing says why {attempt_id} went to {attempt.provider}"


def _acceptances_are_known(evidence: Evidence, decisions: Decisions, expected: Expected) -> Iterable[str]:
    ends = decisions.ends()
    told = {each["providerMessageId"] for each in evidence.notifications}
    accepted: set[str] = set()
    for entry in evidence.acceptances:
        accepted.add(entry["providerMessageId"])
        message_id, attempt_id = entry["tags"].get(MESSAGE_TAG), entry["tags"].get(ATTEMPT_TAG)
        attempt = decisions.attempts.get(attempt_id)
        if attempt is None or [attempt.recipient] != entry["destination"] or attempt.message_id != message_id:
            yield f"{message_id}: accepted for an attempt that is not on the log ({attempt_id})"
            continue
        if attempt.provider != entry.get("provider", "ses"):
            yield f"{message_id}: {entry['provider']} accepted {attempt_id}, which is {attempt.provider}'s"
        end = ends.get((attempt.message_id, attempt.recipient), "queued")
        silent = attempt.recipient.partition("+")[0].partition("@")[0] in SILENT
        silent = silent or (expected.unreported and entry["providerMessageId"] not in told)
        if end == "accepted":
            document = evidence.documents.get(attempt.message_id, {})
            status = next(
                (r["status"] for r in document.get("recipients", ()) if r["address"] == attempt.recipient), ""
            )
            if status == "queued":
                yield f"{message_id}: {attempt.recipient} was accepted and is shown as queued"
        elif not (silent and end in ("unknown", "failed")):
            yield f"{message_id}: {attempt.recipient} was accepted and ends {end}"
    for attempt_id, attempt in decisions.attempts.items():
        for provider_message_id in attempt.sent - accepted:
            yield f"{attempt.message_id}: {attempt_id} says sent as {provider_message_id}, which nobody accepted"


def _status(document: Json, recipient: str) -> str | None:
    return next((each["status"] for each in document.get("recipients", ()) if each["address"] == recipient), None)


def _notifications_became_facts(evidence: Evidence, decisions: Decisions) -> Iterable[str]:
    attempts = {each["providerMessageId"]: each["tags"].get(ATTEMPT_TAG, "") for each in evidence.acceptances}
    for entry in evidence.notifications:
        wanted = FACTS_OF.get(entry["eventType"], ())
        # Reports by SMTP name the attempt alone.
        known = (
            decisions.facts[entry["providerMessageId"]] | decisions.facts[attempts.get(entry["providerMessageId"], "")]
        )
        if wanted and "malformed" not in entry["faults"] and not known.intersection(wanted):
            yield f"{entry['providerMessageId']}: its {entry['eventType']} became no fact"


def read_model_is_the_fold(
    projection: Projection, log: Iterable[Entry], documents: Mapping[str, Json], stored_rows: Iterable[Json]
) -> Iterable[str]:
    """Each document, by what is on the log of its aggregate."""
    known: dict[str, Known] = defaultdict(dict)
    for entry in log:
        subject = (entry.key or b"").decode("utf-8", "replace")
        try:
            add(known[subject], read_event(entry.value, entry.partition, entry.offset, subject))
        except ContractError:
            continue  # parked, if anybody asked for it
    rows: dict[str, list[Json]] = defaultdict(list)
    for row in stored_rows:
        rows[row["aggregate"]].append(row)
    for subject, events in known.items():
        if events:
            yield from _one_document(projection, subject, events, documents.get(subject), rows[subject])


def _one_document(
    projection: Projection, subject: str, events: Known, document: Json | None, rows: Sequence[Json]
) -> Iterable[str]:
    if document is None:
        yield f"{subject}: has {len(events)} events on the log and no document"
        return
    stored = from_document(document)
    inline = dict(events)
    outside = spill(inline, projection.engagement)
    if stored.known.keys() != inline.keys():
        yield f"{subject}: its document knows {len(stored.known)} events, the log has {len(inline)} for it"
    elif stored.known != inline:
        wrong = [name for name in inline if stored.known[name] != inline[name]]
        yield f"{subject}: other content or origin of {', '.join(wrong)} than on the log"
    in_rows = {row["event"]: from_row(row).event for row in rows if row["event"] not in inline}
    if in_rows != {event.id: event for event in outside}:
        yield f"{subject}: {len(in_rows)} rows beside its document, the log has {len(outside)} for them"
    withdrawn = {event.id for event in events.values()} - {event.id for event in effective(events.values())}
    counted = [event for event in outside if event.id not in withdrawn]
    folded = projection.fold(inline.values(), tally(counted, projection.engagement))
    shown = {name: value for name, value in document.items() if name not in (*BOOKKEEPING, "_id")}
    if folded is not None:
        folded = bson.decode(bson.encode(folded), _EXACT_DATES)
        folded = {name: value for name, value in folded.items() if name not in BOOKKEEPING}
    if shown != (folded or {}):
        differing = sorted(k for k in {*shown, *(folded or {})} if shown.get(k) != (folded or {}).get(k))
        yield f"{subject}: its document is not the fold of the log in {', '.join(differing)}"


def streams_are_published(log: Iterable[Entry], streams: Mapping[str, Json]) -> Iterable[str]:
    """Each stream's decisions, all of them and in their order, on the log."""
    on_log: dict[str, dict[int, tuple[int, str]]] = defaultdict(dict)
    for entry in log:
        for event in events_of([entry]):
            if event.get("streamversion") is not None:
                subject, text = event["subject"], (entry.value or b"").decode()
                first = on_log[subject].setdefault(event["streamversion"], (entry.offset, text))
                if first[1] != text:
                    yield f"{subject}: two different decisions of version {event['streamversion']} are on the log"
    for subject, found in on_log.items():
        stream = streams.get(subject)
        if stream is None:
            yield f"{subject}: has decisions on the log and no stream"
            continue
        published = [found[version] for version in sorted(found)]
        if [text for _, text in published] != stream["events"]:
            yield f"{subject}: {len(published)} decisions on the log are not the {len(stream['events'])} of its stream"
        if published != sorted(published, key=lambda each: each[0]):
            yield f"{subject}: its decisions are not on the log in their order"
    for subject, stream in streams.items():
        if subject not in on_log:
            yield f"{subject}: nothing of its stream is on the log"
        if stream["published"] != stream["version"] or stream.get("pending") or "pendingSince" in stream:
            yield f"{subject}: its stream counts {stream['published']} of {stream['version']} as published"


class Leftovers(Protocol):
    """Of a system at rest: as in `Evidence`."""

    @property
    def parked(self) -> Sequence[str]: ...
    @property
    def lag(self) -> Mapping[str, int]: ...
    @property
    def queues(self) -> Mapping[str, int]: ...


def nothing_is_left(evidence: Leftovers, parked: Sequence[str]) -> Iterable[str]:
    """Nobody is behind, no queue holds anything, and just this is parked."""
    unasked, missing = Counter(evidence.parked), Counter(parked)
    yield from (f"parked, and should not be: {what} ({n}×)" for what, n in (unasked - missing).items())
    yield from (f"should be parked, and is not: {what} ({n}×)" for what, n in (missing - unasked).items())
    yield from (f"{who} is {count} records behind" for who, count in evidence.lag.items())
    yield from (f"{count} messages are left in {queue}" for queue, count in evidence.queues.items())


def assert_fair(evidence: Evidence, expected: Expected) -> None:
    """AssertionError with all that is wrong, the first of each kind first."""
    assert_none(problems(evidence, expected))


def assert_none(found: Sequence[str]) -> None:
    """AssertionError with the first of these contradictions."""
    shown = "\n".join(found[:30])
    assert not found, f"{len(found)} contradictions:\n{shown}"
