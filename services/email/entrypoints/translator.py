"""From raw notifications to facts: `email.notifications` → translate (pure) → `email.events`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from uuid import UUID

from contracts.envelope import Envelope
from services.email.domain.correlation import Correlation
from services.email.domain.delayed_bounces import DelayedBounce
from services.email.domain.notifications import Delivered, InboundMail, Json
from services.email.ports import NotificationFormat
from services.kit.errors import PermanentError, TransientError
from services.kit.facts import TranslatorMetrics, publish_facts
from services.kit.kafka.consumer_loop import Outcome, Park, Record, Retry
from services.kit.kafka.publisher import Publisher
from services.kit.logs import get_logger

log = get_logger(__name__)


class AttemptLookup(Protocol):
    """Finds attempts in the streams."""

    async def by_provider_message_id(self, provider: str, provider_message_id: str) -> Correlation | None:
        """The message, attempt and recipient, or None where no stream knows the id (yet). Raises TransientError."""
        ...

    async def by_address(self, provider: str, report: DelayedBounce) -> Correlation | str:
        """The attempt that a report without any id is about, with its recipient; a sentence where that is not certain
        (yet). Raises TransientError.
        """
        ...

    async def recipients(self, attempts: Collection[Correlation]) -> dict[Correlation, str]:
        """Whose attempts they are, as far as streams tell. Raises TransientError."""
        ...

    async def attempt(self, provider: str, named: Correlation) -> Correlation | None:
        """The attempt with these ids at this provider, with its recipient; None where no stream has it. Raises
        TransientError.
        """
        ...


class MailedUnsubscribes(Protocol):
    """Finds what a mail to us asks for."""

    async def fact(self, mail: InboundMail) -> Envelope | None:
        """The unsubscribe that it is, the same for the same mail; None where it holds no valid token. Raises
        TransientError, and PermanentError where a valid token's message cannot be found or read.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Heard:
    """A notification whose message is known."""

    form: NotificationFormat
    delivered: Delivered
    correlation: Correlation


_Made = tuple[Envelope, ...] | Outcome


class Translator:
    """Batch handler of the group that reads `email.notifications`."""

    def __init__(
        self,
        formats: Mapping[str, NotificationFormat],
        publisher: Publisher,
        lookup: AttemptLookup,
        unsubscribes: MailedUnsubscribes,
        metrics: TranslatorMetrics,
    ) -> None:
        """`formats`: what the header `source` of a record names → how such a notification is read."""
        self._formats, self._publisher, self._lookup, self._metrics = formats, publisher, lookup, metrics
        self._unsubscribes = unsubscribes

    async def __call__(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Translate and publish; one outcome a record, in order.

        A notification that belongs to no message of ours is parked as `uncorrelated`: the sender's own write may be
        late, so the parking lot retries it for 24 h.
        """
        heard = await self._with_recipients([await self._hear(record) for record in records])
        made = [self._translate(each) if isinstance(each, _Heard) else each for each in heard]
        return await publish_facts(self._publisher, made, self._metrics)

    async def _hear(self, record: Record) -> _Heard | _Made:
        """The notification with its message, or what becomes of the record without one."""
        try:
            form, delivered = self._unwrap(record)
            notification = delivered.notification
            why = delivered.why_none if notification is None else form.without_message(notification)
            if notification is None or why:
                self._metrics.ignored()
                log.info("translator.nothing", why=why)
                return ()
            mail = form.inbound_mail(notification)
            if mail is not None:
                return await self._unsubscribed(mail)
            correlation = await self._correlation(form, notification)
            if correlation is None:
                self._metrics.ignored()
                log.info("translator.nothing", why="a report that anybody may write, about no attempt of ours")
                return ()
        except PermanentError as error:
            return Park(error.reason, kind="poison", detail=error.detail)
        except TransientError as error:
            return Retry(error)
        if isinstance(correlation, Park):
            return correlation
        return _Heard(form, delivered, correlation)

    async def _with_recipients(self, heard: Sequence[_Heard | _Made]) -> list[_Heard | _Made]:
        """With each recipient in our spelling, where the provider may have another: in one read for the whole batch."""
        asked = {
            each.correlation
            for each in heard
            if isinstance(each, _Heard) and each.form.respells and each.correlation.recipient is None
        }
        if not asked:
            return list(heard)
        try:
            found = await self._lookup.recipients(asked)
        except TransientError as error:
            return [Retry(error) if isinstance(each, _Heard) and each.correlation in asked else each for each in heard]
        return [
            replace(each, correlation=replace(each.correlation, recipient=found.get(each.correlation)))
            if isinstance(each, _Heard) and each.correlation in asked
            else each
            for each in heard
        ]

    def _translate(self, heard: _Heard) -> _Made:
        try:
            translation = heard.form.translate(heard.delivered, heard.correlation)
        except PermanentError as error:
            return Park(error.reason, kind="poison", detail=error.detail)
        if not translation.facts:
            self._metrics.ignored()
            log.info("translator.nothing", why=translation.why_none, aggregate_id=heard.correlation.message_id)
        return translation.facts

    async def _unsubscribed(self, mail: InboundMail) -> tuple[Envelope, ...]:
        """Who sent it is not asked, since senders are forged: the token is the proof. What else comes to the address,
        answers of programs and advertisements, is dropped and never parked, or strangers could fill the parking lot.
        """
        fact = await self._unsubscribes.fact(mail)
        if fact is not None:
            return (fact,)
        self._metrics.ignored()
        log.info("translator.nothing", why="a mail to us without a valid unsubscribe token in its subject")
        return ()

    def _unwrap(self, record: Record) -> tuple[NotificationFormat, Delivered]:
        if record.value is None:
            raise PermanentError("nullValue", "a notification record has no value")
        headers = {name: value.decode("ascii", "replace") for name, value in record.headers if value is not None}
        form = self._formats.get(headers.get("source", "ses"))
        if form is None:
            raise PermanentError("unknownSource", f"notifications of {', '.join(self._formats)} can be translated here")
        delivered = form.unwrap(
            record.value,
            sqs_message_id=headers.get("sqs-message-id") or None,
            sqs_sent=headers.get("sqs-sent-timestamp") or None,
        )
        return form, delivered

    async def _correlation(self, form: NotificationFormat, notification: Json) -> Correlation | Park | None:
        """None: strangers may write such notifications, and would fill the parking lot. What it names stood in a stream
        before the mail went out: nothing is to be waited for.
        """
        own = form.correlate(notification)
        if own is not None and own.forgeable:
            return await self._lookup.attempt(form.provider, own)
        if own is not None:
            return Correlation(_uuid(own.message_id), own.attempt_id)
        provider_id = form.provider_message_id(notification)
        if provider_id is None:
            bounce = form.delayed_bounce(notification)
            if bounce is None:
                return _uncorrelated("it names no message, neither by our ids nor by the provider's")
            meant = await self._lookup.by_address(form.provider, bounce)
            return _uncorrelated(meant) if isinstance(meant, str) else meant
        found = await self._lookup.by_provider_message_id(form.provider, provider_id)
        return found or _uncorrelated("no stream knows this notification's message")


def _uncorrelated(detail: str) -> Park:
    return Park("uncorrelated", kind="uncorrelated", detail=detail)


def _uuid(text: str) -> str:
    """Our message ids are UUIDs: a tag of that name with anything else is somebody else's."""
    try:
        return str(UUID(text))
    except ValueError:
        raise PermanentError("malformed", "the message id in the notification's tags is not a UUID") from None
