"""The deciding service hears facts like anyone else, and draws its decisions: attempts settled, recipients suppressed.

A batch is read cheaply first: most records of `email.events` are our own decisions, of which none is decided upon, and
most facts are about attempts whose answer went by on the same partition before. What is left is decided on the streams,
in bulk. Settling something settled does nothing, so a batch may come again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from contracts.email.events import DeliveryFact, EmailUnsubscribed
from contracts.envelope import Envelope
from contracts.errors import ContractError
from contracts.registry import EVENTS, read_json
from services.email.domain.commands import SettleByFact
from services.email.domain.decisions import Drafts
from services.email.domain.message import Message
from services.email.domain.outcomes import Cost
from services.email.domain.recipient import Command, from_fact
from services.email.handlers import RecipientStreams
from services.email.ports import Checkpoints, PriceTable
from services.email.streams import Held, MessageStreams, StepResult
from services.kit import metrics as m
from services.kit.clock import Clock
from services.kit.errors import MailroomError, PermanentError, TransientError
from services.kit.kafka.codec import decode
from services.kit.kafka.records import DONE, Outcome, Park, Record, Retry
from services.kit.metrics import Metrics

ANSWERED_KEPT = 50_000
"""Attempts remembered as accepted; a fact about one of them settles nothing and needs no look at its stream."""

_FACTS = frozenset(name for name, event in EVENTS.items() if event.kind == "fact" and name.startswith("email."))
_SUPPRESSING = frozenset(
    {"email.bounced", "email.complained", "email.complaintWithdrawn", "email.rejected", "email.unsubscribed"}
)


class Settler:
    """Batch handler of the group that reads `email.events`."""

    def __init__(
        self,
        streams: MessageStreams,
        recipients: RecipientStreams,
        prices: PriceTable,
        clock: Clock,
        metrics: Metrics,
        checkpoints: Checkpoints,
    ) -> None:
        self._streams, self._recipients, self._prices = streams, recipients, prices
        self._clock, self._metrics, self._checkpoints = clock, metrics, checkpoints
        self._accepted: OrderedDict[str, None] = OrderedDict()

    async def __call__(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """One outcome a record, in order."""
        outcomes: list[Outcome] = [DONE] * len(records)
        facts: list[tuple[int, Envelope]] = []
        for n, record in enumerate(records):
            read = self._read(record)
            if isinstance(read, Park):
                outcomes[n] = read
            elif read is not None:
                facts.append((n, read))
        failed: dict[str, MailroomError]
        try:
            failed = await self._settle([fact for _, fact in facts])
            failed |= await self._suppress([fact for _, fact in facts if fact.type in _SUPPRESSING])
        except TransientError as away:
            failed = dict.fromkeys((fact.id for _, fact in facts), away)
        for n, fact in facts:
            why = failed.get(fact.id)
            if isinstance(why, PermanentError):
                outcomes[n] = Park(why.reason, kind="bug", detail=why.detail, error=why)
            elif why is not None:
                outcomes[n] = Retry(why)
        return outcomes

    def _read(self, record: Record) -> Envelope | Park | None:
        """A fact that something may follow from; None for all else."""
        try:
            wire = read_json(record.value)
            kind = wire.get("type")
            if not isinstance(kind, str) or kind not in _FACTS or wire.get("streamversion") is not None:
                self._note_answer(kind, wire)
                return None
            if kind not in _SUPPRESSING and self._is_settled(wire):
                return None
            return decode(record)
        except ContractError as error:
            return Park(error.reason, kind="poison", detail=error.detail)
        except PermanentError as error:
            return Park(error.reason, kind="poison", detail=error.detail)

    def _note_answer(self, kind: object, wire: dict[str, Any]) -> None:
        data = wire.get("data")
        if not isinstance(data, dict):
            return
        if kind == "email.sent" or (kind == "email.attemptSettled" and data.get("outcome") == "accepted"):
            self._accepted[str(data.get("attemptId"))] = None
            while len(self._accepted) > ANSWERED_KEPT:
                self._accepted.popitem(last=False)

    def _is_settled(self, wire: dict[str, Any]) -> bool:
        data = wire.get("data")
        attempt = data.get("attemptId") if isinstance(data, dict) else None
        return isinstance(attempt, str) and attempt in self._accepted

    # --- attempts ---

    async def _settle(self, facts: Sequence[Envelope]) -> dict[str, MailroomError]:
        """The facts that could not be settled, with why."""
        by_message: dict[str, list[Envelope]] = {}
        for fact in facts:
            if self._proves_acceptance(fact):
                by_message.setdefault(fact.subject, []).append(fact)
        if not by_message:
            return {}
        self._checkpoints.reach("settler.settle")
        results = await self._streams.change({name: self._decision(found) for name, found in by_message.items()})
        self._checkpoints.reach("settler.settled")
        return _failures(by_message, results)

    def _proves_acceptance(self, fact: Envelope) -> bool:
        data = fact.data
        if isinstance(data, EmailUnsubscribed):  # a link may be followed from a copy; only a provider's word counts
            return data.provider is not None and data.attempt_id is not None
        return isinstance(data, DeliveryFact) and (data.attempt_id is None or data.attempt_id not in self._accepted)

    def _decision(self, facts: Sequence[Envelope]) -> Callable[[Held], Drafts]:
        def decide(held: Held) -> Drafts:
            state = held.state
            if not isinstance(state, Message):
                return ()  # not a message of ours, or not requested: there is no attempt to settle
            size = state.request.content.size if state.request.content else 0
            attachments = sum(each.size or 0 for each in state.request.attachments or ())
            drafts = self._streams.decide(held, *(self._command(fact, size, attachments) for fact in facts))
            if drafts:
                self._metrics.inc(m.ATTEMPTS_SETTLED, len(drafts), by="notification", outcome="accepted")
            return drafts

        return decide

    def _command(self, fact: Envelope, size: int, attachments: int) -> SettleByFact:
        data = fact.data
        assert isinstance(data, DeliveryFact | EmailUnsubscribed)  # noqa: S101 - filtered before
        provider = data.provider or ""
        return SettleByFact(
            fact_id=fact.id,
            recipient=data.recipient,
            provider=provider,
            attempt_id=data.attempt_id,
            provider_message_id=data.provider_message_id,
            size=size,
            cost=self._cost(provider, attachments),
        )

    def _cost(self, provider: str, attachments: int) -> Cost | None:
        """An estimate: nobody has told us what was handed over. None for a provider without prices."""
        try:
            return self._prices.cost(provider, attachments, self._clock.now())
        except PermanentError:
            return None

    # --- recipients ---

    async def _suppress(self, facts: Sequence[Envelope]) -> dict[str, MailroomError]:
        """The facts whose suppression could not be recorded, with why."""
        by_recipient: dict[str, list[tuple[Envelope, Command]]] = {}
        for fact in facts:
            command = from_fact(fact)
            if command is not None:
                key = self._recipients.key(command.address)
                by_recipient.setdefault(key, []).append((fact, command))
        if not by_recipient:
            return {}
        self._checkpoints.reach("settler.suppress")
        results = await self._recipients.change(
            {key: [command for _, command in found] for key, found in by_recipient.items()}
        )
        self._checkpoints.reach("settler.suppressed")
        return _failures({key: [fact for fact, _ in found] for key, found in by_recipient.items()}, results)


def _failures(facts: dict[str, list[Envelope]], results: dict[str, Any]) -> dict[str, MailroomError]:
    def failed() -> Iterable[tuple[str, MailroomError]]:
        for name, found in facts.items():
            result: StepResult | object = results[name]
            if isinstance(result, MailroomError):
                yield from ((fact.id, result) for fact in found)

    return dict(failed())
