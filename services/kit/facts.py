"""From notifications to the log: what every translator does with the facts that it has made.

The facts of a batch are published together and acknowledged before any offset is let go. Translating a notification
again makes the same facts with the same ids, so a crash anywhere repeats and changes nothing.
"""

from collections.abc import Sequence
from typing import Protocol

from contracts.envelope import Envelope
from services.kit import metrics as m
from services.kit.errors import PermanentError
from services.kit.kafka.codec import encode
from services.kit.kafka.publisher import Publisher
from services.kit.kafka.records import DONE, Outcome, Park, Retry
from services.kit.metrics import Metrics


class TranslatorMetrics(Protocol):
    """What a translator counts."""

    def translated(self, fact: Envelope) -> None:
        """One fact was made."""

    def ignored(self) -> None:
        """One notification became no fact, for a reason that is no error."""


class TranslatorCounts:
    """`TranslatorMetrics` in the list of metrics. `provider`: of facts that do not name theirs."""

    def __init__(self, metrics: Metrics, provider: str) -> None:
        self._metrics, self._provider = metrics, provider

    def translated(self, fact: Envelope) -> None:
        """One fact was made."""
        provider = getattr(fact.data, "provider", None) or self._provider
        self._metrics.inc(m.FACTS_TRANSLATED, provider=provider, type=fact.type)

    def ignored(self) -> None:
        """One notification said nothing."""
        self._metrics.inc(m.NOTIFICATIONS_IGNORED, reason="nothing")


async def publish_facts(
    publisher: Publisher, made: Sequence[tuple[Envelope, ...] | Outcome], metrics: TranslatorMetrics
) -> list[Outcome]:
    """Publish what was made of each record of a batch; one outcome a record, in order.

    `made`: a record's facts (maybe none), or what else is to become of it. A record is done when all of its facts are
    acknowledged; one whose fact Kafka will never take is parked, any other is to be handed out again.
    """
    flat = [(n, fact) for n, facts in enumerate(made) if isinstance(facts, tuple) for fact in facts]
    answers = await publisher.publish([encode(fact) for _, fact in flat]) if flat else []
    failed: dict[int, Exception] = {}
    for (n, fact), error in zip(flat, answers, strict=True):
        if error is not None:
            failed[n] = error
        else:
            metrics.translated(fact)
    return [_outcome(facts, failed.get(n)) for n, facts in enumerate(made)]


def _outcome(made: tuple[Envelope, ...] | Outcome, error: Exception | None) -> Outcome:
    if not isinstance(made, tuple):
        return made
    if error is None:
        return DONE
    if isinstance(error, PermanentError):
        return Park(error.reason, kind="poison", detail=error.detail)
    return Retry(error)
