"""From a report of SendGrid's or Mailgun's to a fact: both tell of one recipient of one message at a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from contracts.base import EventData
from contracts.envelope import Envelope
from contracts.ids import fact_id, millis_text
from contracts.registry import NAMES
from services.email.adapters.reading import normal_form
from services.email.domain.correlation import Correlation
from services.email.domain.notifications import Json
from services.kit.errors import PermanentError


@dataclass(frozen=True, slots=True)
class Report:
    """What every report says, whatever its type.

    Attributes:
        provider: the wire name.
        revision: of the translator.
        at: when it happened, by the provider's clock.
        reported: the recipient as the provider spells it; None where the report names none.
        provider_message_id: the provider's id of the message; None where the report names none.
        distinct: what tells it apart from other reports of its type on this recipient of this message.
        correlation: what it is about; with the recipient in our spelling where that was looked up.
        addressed: whom the message names as its one recipient: a guess, for a report that names none.
    """

    provider: str
    revision: int
    at: datetime
    reported: str | None
    provider_message_id: str | None
    distinct: tuple[str, ...]
    correlation: Correlation
    addressed: str | None = None

    def common(self) -> Json:
        """The fields that every fact about a delivery has. Raises PermanentError `noRecipient`."""
        recipient = self._recipient()
        return {
            "recipient": recipient,
            "provider": self.provider,
            "provider_message_id": self.provider_message_id,
            "attempt_id": self.correlation.attempt_id,
            "reported_address": self.reported if self.reported not in (None, recipient) else None,
        }

    def _recipient(self) -> str:
        """The attempt's recipient. A report on another address, of a copy that the provider made, stays about that."""
        ours = self.correlation.recipient
        if self.reported is None and ours is not None:
            return ours
        named = self.reported or self.addressed
        if named is None:
            raise PermanentError("noRecipient", "the report names no recipient")
        found = normal_form(named)
        return ours if ours is not None and ours.lower() == found.lower() else found

    def fact(self, data: EventData) -> Envelope:
        """The fact in its envelope. Its id is a function of the report alone: what was looked up has no part in it."""
        name = NAMES[type(data)]
        recipient = "" if self.reported is None else normal_form(self.reported).lower()
        return Envelope(
            id=fact_id(self.provider, self.provider_message_id or "", name, recipient, *self.distinct),
            source=f"/mailroom/email/{self.provider}",
            type=name,
            subject=self.correlation.message_id,
            time=self.at,
            correlationid=self.correlation.message_id,
            causationid=self.correlation.attempt_id,
            revision=self.revision,
            data=data,
        )


def by_what_it_says(at: datetime, *said: str | None) -> tuple[str, ...]:
    """What tells a report apart that has no id of its own: its time, and what else it says."""
    return (millis_text(at), *(each or "" for each in said))
