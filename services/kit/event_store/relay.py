"""From streams to the log: publishing what was appended, right away and, after a crash, by a relay.

Of one stream no event goes out before the one before it is acknowledged, and `published` is raised only after that. So
whatever crashes or loses an answer only makes events go out again, under the same ids.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from contracts.errors import ContractError
from contracts.registry import EVENTS, read_json
from services.kit import metrics as m
from services.kit.clock import Clock
from services.kit.errors import PermanentError, TransientError
from services.kit.event_store.port import Appended, AppendResult, EventStore, Stream
from services.kit.event_store.waiting import first_of
from services.kit.health import Progress
from services.kit.kafka.codec import CONTENT_TYPE
from services.kit.kafka.publisher import Outgoing, Publisher
from services.kit.logs import get_logger
from services.kit.metrics import Metrics

log = get_logger(__name__)

PATIENCE = timedelta(seconds=5)
"""How long the writer of an event has to publish it before the relay does."""

_REMEMBERED = 20_000
_STUCK_FOR = timedelta(minutes=10)
_AGAIN_AFTER = timedelta(seconds=5)


def outgoing(stream_id: str, wire: str) -> Outgoing:
    """The record of a stored event: exactly the stored string.

    Raises:
        PermanentError: `unpublishable`: it is not JSON, or of a type for which this build knows no topic.
    """
    try:
        event = read_json(wire.encode())
        known = EVENTS[event["type"]]
    except (ContractError, KeyError, TypeError) as error:
        raise PermanentError("unpublishable", f"stream {stream_id}: no topic for it in this build") from error
    headers: tuple[tuple[str, bytes], ...] = (("content-type", CONTENT_TYPE),)
    if event.get("traceparent"):
        headers = (*headers, ("traceparent", str(event["traceparent"]).encode()))
    return Outgoing(known.topic.name, stream_id.encode(), wire.encode(), headers)


@dataclass(frozen=True, slots=True)
class Publication:
    """What came of publishing: how many events were acknowledged, and what failed by stream id. A stream that is not
    in `failed` is on the log up to the version given.
    """

    acknowledged: int = 0
    failed: Mapping[str, Exception] = field(default_factory=dict)


@dataclass(slots=True)
class _Known:
    """What this process knows about a stream: versions acknowledged by Kafka, and noted in the store.

    `others`: up to where events were appended by other processes, which publish them; None where nothing is waiting.
    """

    acknowledged: int
    marked: int
    others: int | None = None


@dataclass(slots=True)
class _Run:
    """One stream being published."""

    stream: Stream
    known: _Known

    def next(self) -> Outgoing | None:
        """The next record to send; None when all is acknowledged."""
        done = self.known.acknowledged
        return None if done >= self.stream.version else outgoing(self.stream.stream_id, self.stream.wire[done])


class StreamPublisher:
    """Publishes streams and marks them. One per process, so that it does not publish again what it has just published.

    Several at once (other processes, the relay) are safe: some events then go out twice.
    """

    def __init__(self, store: EventStore, publisher: Publisher) -> None:
        self._store = store
        self._publisher = publisher
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._in_flight: dict[str, asyncio.Future[None]] = {}
        self._unmarked: dict[str, _Known] = {}

    async def publish(self, appended: Iterable[Stream | AppendResult], *, mark: bool = True) -> Publication:
        """Publish all that is unpublished of these streams, in bulk; append results that are no `Appended` are skipped.

        `mark`: note it in the store at once. Otherwise a later `mark` notes it, and a stream that was published several
        times meanwhile costs one update; that must be well before `PATIENCE` is over.

        Raises nothing but a cancellation: what did not get out is in `failed`, and the relay's business.
        """
        streams: dict[str, Stream] = {}
        for item in appended:
            stream = item.stream if isinstance(item, Appended) else item
            if isinstance(stream, Stream) and stream.version > getattr(streams.get(stream.stream_id), "version", 0):
                streams[stream.stream_id] = stream
        while busy := [self._in_flight[name] for name in streams if name in self._in_flight]:
            await asyncio.wait(busy)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._in_flight |= dict.fromkeys(streams, done)
        try:
            publication = await self._publish([_Run(stream, self._recall(stream)) for stream in streams.values()])
            if mark:
                await self.mark()
            return publication
        finally:
            for name in streams:
                del self._in_flight[name]
            done.set_result(None)

    async def early(self, streams: Iterable[Stream]) -> set[str]:
        """The ids of those streams in which events of other processes come first and are not known to be on the log:
        published now, they would go out twice. Asks the store where this process does not know it. Raises nothing but a
        cancellation.
        """
        waiting: dict[str, _Known] = {}
        for stream in streams:
            known = self._recall(stream)
            known.others = stream.others if known.others is None else min(known.others, stream.others)
            if known.acknowledged < known.others:
                waiting[stream.stream_id] = known
        if not waiting:
            return set()
        try:
            for found in (await self._store.load_many(waiting)).values():
                self._recall(found)
        except TransientError:
            pass  # nobody can tell: they wait
        return {name for name, known in waiting.items() if known.acknowledged < (known.others or 0)}

    async def _publish(self, runs: Sequence[_Run]) -> Publication:
        failed: dict[str, Exception] = {}
        acknowledged = 0
        going = list(runs)
        while going:
            batch: list[tuple[_Run, Outgoing]] = []
            for run in going:
                try:
                    record = run.next()
                except PermanentError as unfit:
                    failed[run.stream.stream_id] = unfit
                else:
                    if record is not None:
                        batch.append((run, record))
            results = await self._publisher.publish([record for _, record in batch]) if batch else []
            going = []
            for (run, _), error in zip(batch, results, strict=True):
                if error is None:
                    run.known.acknowledged += 1
                    acknowledged += 1
                    going.append(run)
                else:
                    failed[run.stream.stream_id] = error
        for run in runs:
            if run.known.acknowledged >= run.stream.version:
                run.known.others = None
            if run.known.acknowledged > run.known.marked:
                self._unmarked[run.stream.stream_id] = run.known
        return Publication(acknowledged, failed)

    async def mark(self, growing: Collection[str] = ()) -> None:
        """Note in the store all that was published since the last time, but for streams that are `growing`: about to be
        published again, and to be noted then.

        Raises nothing but a cancellation: what could not be noted is noted with the next, or the relay finds it.
        """
        later = {name: known for name, known in self._unmarked.items() if name in growing}
        marking = {name: known for name, known in self._unmarked.items() if name not in later}
        self._unmarked = later
        marks = [(name, known.acknowledged) for name, known in marking.items() if known.acknowledged > known.marked]
        try:
            await self._store.mark_published(marks)
        except TransientError as error:
            log.warning("published events could not be marked yet", error=str(error))
            self._unmarked = marking | self._unmarked
            return
        for name, version in marks:
            marking[name].marked = max(marking[name].marked, version)

    def _recall(self, stream: Stream) -> _Known:
        known = self._known.setdefault(stream.stream_id, _Known(stream.published, stream.published))
        self._known.move_to_end(stream.stream_id)
        known.acknowledged = max(known.acknowledged, stream.published)
        known.marked = max(known.marked, stream.published)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known


class Relay:
    """Publishes what its writers did not get out: run it in one or more processes, as a `LoopComponent`."""

    def __init__(
        self,
        store: EventStore,
        publisher: StreamPublisher,
        *,
        clock: Clock,
        progress: Progress,
        metrics: Metrics | None = None,
        batch: int = 200,
        interval: float = 1.0,
        patience: timedelta = PATIENCE,
    ) -> None:
        """`batch`: streams at once; `interval`: seconds between looks that find little."""
        self._store = store
        self._publisher = publisher
        self._clock = clock
        self._progress = progress
        self._metrics = metrics
        self._batch = batch
        self._interval = interval
        self._patience = patience

    async def run(self, stopping: asyncio.Event) -> None:
        """Relay until told to stop."""
        while not stopping.is_set():
            try:
                more = await self.turn()
            except TransientError as error:
                self._progress.waiting(str(error))
                more = False
            if not more:
                await first_of(self._clock, self._interval, stopping)

    async def turn(self) -> bool:
        """One look: whether there is more to do at once.

        Raises:
            TransientError: the store is away.
        """
        streams = await self._store.unpublished(self._patience, self._batch)
        if self._metrics is not None:
            self._metrics.set(m.RELAY_BACKLOG, len(streams))
        if not streams:
            self._progress.idle()
            return False
        result = await self._publisher.publish(streams)
        if self._metrics is not None and result.acknowledged:
            self._metrics.inc(m.RELAYED, result.acknowledged)
        stuck = {name: error for name, error in result.failed.items() if isinstance(error, PermanentError)}
        for name, error in stuck.items():
            log.error("a stream cannot be published and is stuck there", aggregate_id=name, error=str(error))
        if self._metrics is not None and stuck:
            self._metrics.inc(m.UNPUBLISHABLE, len(stuck))
        await self._store.postpone_publishing(stuck.keys(), _STUCK_FOR)
        away = result.failed.keys() - stuck.keys()
        if len(away) == len(streams):
            self._progress.waiting(str(next(iter(result.failed.values()))))
            return False
        await self._store.postpone_publishing(away, _AGAIN_AFTER)
        self._progress.progressed()
        return len(streams) == self._batch
