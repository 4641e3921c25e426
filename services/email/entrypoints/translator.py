"""From raw notifications to facts: `email.notifications` → translate (pure) → `email.events`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol
from uuid import UUID

from contracts.envelope import Envelope
from services.email.domain.correlation import Correlation
from services.email.domain.notifications import Delivered, InboundMail, Json
from services.email.ports import NotificationFormat
from services.kit.errors import PermanentError, TransientError
from services.kit.facts import TranslatorMetrics, publish_facts
from services.kit.kafka.consumer_loop import Outcome, Park, Record, Retry
from services.kit.kafka.publisher import Publisher
from services.kit.logs import get_logger

log = get_logger(__name__)


class AttemptLookup(Protocol):
    """Finds the attempt that a provider's message id belongs to."""

    async def by_provider_message_id(self, provider: str, provider_message_id: str) -> Correlation | None:
        """The message and attempt, or None where no stream knows the id (yet). Raises TransientError."""
        ...


class MailedUnsubscribes(Protocol):
    """Finds what a mail to us asks for."""

    async def fact(self, mail: InboundMail) -> Envelope | None:
        """The unsubscribe that it is, the same for the same mail; None where it holds no valid token. Raises
        TransientError, and PermanentError where a valid token's message cannot be found or read.
        """
        ...


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
        made: list[tuple[Envelope, ...] | Outcome] = [await self._translate(record) for record in records]
        return await publish_facts(self._publisher, made, self._metrics)

    async def _translate(self, record: Record) -> tuple[Envelope, ...] | Outcome:
        try:
            form, delivered = self._unwrap(record)
            notification = delivered.notification
            if notification is None or form.without_message(notification):
                self._metrics.ignored()
                return ()
            mail = form.inbound_mail(notification)
            if mail is not None:
                return await self._unsubscribed(mail)
            correlation = await self._correlation(form, notification)
            if correlation is None:
                return Park("uncorrelated", kind="uncorrelated", detail="no stream knows this notification's message")
            translation = form.translate(delivered, correlation)
        except PermanentError as error:
            return Park(error.reason, kind="poison", detail=error.detail)
        except TransientError as error:
            return Retry(error)
        if not translation.facts:
            self._metrics.ignored()
            log.info("translator.nothing", why=translation.why_none, aggregate_id=correlation.message_id)
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

    async def _correlation(self, form: NotificationFormat, notification: Json) -> Correlation | None:
        own = form.correlate(notification)
        if own is not None:
            return Correlation(_uuid(own.message_id), own.attempt_id)
        provider_id = form.provider_message_id(notification)
        if provider_id is None:
            raise PermanentError("malformed", "it names no message id of the provider: not about a message")
        return await self._lookup.by_provider_message_id(form.provider, provider_id)


def _uuid(text: str) -> str:
    """Our message ids are UUIDs: a tag of that name with anything else is somebody else's."""
    try:
        return str(UUID(text))
    except ValueError:
        raise PermanentError("malformed", "the message id in the notification's tags is not a UUID") from None
