"""From raw notifications to facts: `files.notifications` → translate (pure) → `files.events`.

Unlike a mail's, an object's notification names by its key whose it is, so nothing has to be looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from contracts.envelope import Envelope
from services.files.ports import NotificationFormat
from services.kit.errors import PermanentError
from services.kit.facts import TranslatorMetrics, publish_facts
from services.kit.kafka.consumer_loop import Outcome, Park, Record
from services.kit.kafka.publisher import Publisher
from services.kit.logs import get_logger

log = get_logger(__name__)


class Translator:
    """Batch handler of the group that reads `files.notifications`."""

    def __init__(self, form: NotificationFormat, publisher: Publisher, metrics: TranslatorMetrics) -> None:
        self._form, self._publisher, self._metrics = form, publisher, metrics

    async def __call__(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Translate and publish; one outcome a record, in order.

        A notification about a key that is none of ours is parked as `orphan`: somebody else writes into the bucket,
        which an operator should know of, and which is no failure. Of another bucket or unreadable: `poison`.
        """
        return await publish_facts(self._publisher, [self._translate(record) for record in records], self._metrics)

    def _translate(self, record: Record) -> tuple[Envelope, ...] | Outcome:
        if record.value is None:
            return Park("nullValue", kind="poison", detail="a notification record has no value")
        try:
            translation = self._form.translate(record.value)
        except PermanentError as error:
            kind: Literal["orphan", "poison"] = "orphan" if error.reason == "orphan" else "poison"
            return Park(error.reason, kind=kind, detail=error.detail)
        if not translation.facts:
            self._metrics.ignored()
            log.info("translator.nothing", why=translation.why_none)
        return translation.facts
