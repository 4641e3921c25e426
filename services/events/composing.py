"""How the parts of the reading side are put together for one projection and one database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from services.events.adapters.kafka_log import KafkaLog
from services.events.adapters.mongo_comparison import MongoComparison
from services.events.adapters.mongo_generations import MongoGenerations
from services.events.adapters.mongo_leases import MongoLeases
from services.events.adapters.mongo_read_models import MongoReadModels
from services.events.adapters.mongo_statistics import MongoStatistics
from services.events.aggregates import CACHE_EVENTS, Aggregates
from services.events.generations import GRACE_SECONDS
from services.events.kafka_access import reading_of
from services.events.leases import LeaseKeeper
from services.events.ports import LeaseStore, Log, ReadModels
from services.events.projections.projection import Projection
from services.events.projector import Pace, Projector
from services.events.rebuild import Rebuild, RebuildParts, Workers
from services.events.setting_aside import SettingAside
from services.kit.breaker import Breaker
from services.kit.clock import Clock, Ids, SystemClock, SystemIds
from services.kit.kafka.connection import Where
from services.kit.kafka.records import Partition
from services.kit.metrics import Metrics
from services.kit.mongo import Database
from services.kit.parking import ParkingLot
from services.kit.releases import NoReleases, Releases, note_passed


@dataclass(frozen=True)
class ReadingSide:
    """One projection over one Kafka and one database; makes what works on a generation."""

    projection: Projection
    bootstrap: Where
    database: Database
    parking: ParkingLot
    metrics: Metrics
    patient: Database | None = None
    """The same database, over a client whose calls may take as long as an index is built; None = `database`."""
    releases: Releases = field(default_factory=NoReleases)
    parked_per_minute: int = 100
    lease_seconds: float = 10.0
    clock: Clock = field(default_factory=SystemClock)
    ids: Ids = field(default_factory=SystemIds)

    @property
    def consumer(self) -> str:
        """The name under which records are parked, and positions told to Kafka."""
        return reading_of(self.projection).group

    @property
    def generations(self) -> MongoGenerations:
        """The projection's generations and pointer."""
        return MongoGenerations(self.database, self.projection, patient=self.patient)

    def log(self) -> Log:
        """The projection's topic, not connected yet."""
        return KafkaLog(self.bootstrap, self.projection.topic, group=self.consumer, client_id=self.consumer)

    def leases(self, generation: int) -> LeaseStore:
        """The leases of a generation."""
        name, topic = self.projection.name, self.projection.topic
        return MongoLeases(self.database, name, generation, topic, lease_ms=int(self.lease_seconds * 1000))

    def fold(self, version: int | None = None) -> Projection:
        """The projection with the fold of that version, None = the newest. Raises PermanentError `foldMissing` where
        this build has it not.
        """
        return self.projection if version is None else self.projection.with_fold(version)

    async def check_fold(self) -> None:
        """Raise PermanentError `foldMissing` where this build could not keep up to date what is read: were it rolled
        out, nobody would.
        """
        store = self.generations
        active = (await store.pointer()).active
        found = None if active is None else await store.get(active)
        if found is not None:
            self.fold(found.version)

    def models(self, generation: int, *, version: int | None = None) -> ReadModels:
        """The documents of a generation whose fold has that version, None = the newest. Raises PermanentError
        `foldMissing`.
        """
        return MongoReadModels(self.database, self.fold(version), generation)

    def statistics(self, generation: int) -> MongoStatistics:
        """The statistics of a generation."""
        return MongoStatistics(self.database, self.projection.name, generation, patient=self.patient)

    def aside(self, generation: int, *, version: int) -> SettingAside:
        """Where the records of a generation go that cannot be applied or shown; `version` is that of its fold."""
        return SettingAside(
            self.consumer,
            self.projection.topic,
            self.parking,
            Breaker(self.parked_per_minute, 60.0, self.clock),
            self.clock,
            self.metrics,
            releases=self.releases,
            generation=generation,
            version=version,
        )

    def aggregates(
        self, generation: int, *, version: int | None = None, cache_events: int = CACHE_EVENTS
    ) -> Aggregates:
        """The engine on a generation whose fold has that version, None = the newest. Raises PermanentError
        `foldMissing`.
        """
        fold = self.fold(version)
        return Aggregates(
            fold,
            self.models(generation, version=version),
            self.aside(generation, version=fold.version),
            self.metrics,
            generation=generation,
            cache_events=cache_events,
        )

    async def close_releases(self, checkpoints: Mapping[int, int]) -> None:
        """Close the operator's orders that the checkpoints, by partition, are past. Raises Unavailable."""
        orders = await self.releases.in_force(self.consumer)
        committed = {Partition(self.projection.topic, each): at for each, at in checkpoints.items()}
        await note_passed(self.releases, orders, committed, self.clock.now())

    def coordination(self, generation: int) -> LeaseStore:
        """The lease on coordinating the rebuild of a generation."""
        name, topic = f"{self.projection.name}/rebuild", self.projection.topic
        return MongoLeases(self.database, name, generation, topic, lease_ms=int(self.lease_seconds * 1000))

    def comparison(self) -> MongoComparison:
        """Compares two generations."""
        return MongoComparison(self.database, self.projection.name, self.leases, self.clock)

    def rebuild(self, workers: Workers, *, projects: bool = True, grace: float = GRACE_SECONDS) -> Rebuild:
        """A rebuild of the projection; `projects`: whether it has to project by itself while catching up."""
        parts = RebuildParts(
            projection=self.projection,
            store=self.generations,
            log=self.log,
            leases=self.leases,
            coordination=self.coordination,
            projector=self.projector if projects else None,
            statistics=self.statistics,
            workers=workers,
            comparison=self.comparison(),
            metrics=self.metrics,
        )
        return Rebuild(parts, self.clock, self.ids.new(), grace=grace)

    def projector(
        self,
        generation: int,
        tells_kafka: Callable[[], bool] = bool,
        *,
        version: int | None = None,
        pace: Pace | None = None,
        begins: Callable[[], dict[int, int]] = dict,
        processes: int = 1,
    ) -> Projector:
        """A projector of a generation whose fold has that version (None = the newest), a process of its own as far as
        leases go. One that fills a generation remembers no aggregates: by the time that it meets one again it would be
        forgotten. Raises PermanentError `foldMissing`.
        """
        pace = pace or Pace()
        name = self.projection.name
        keeper = LeaseKeeper(
            self.leases(generation),
            self.ids.new(),
            self.clock,
            self.metrics,
            projection=name,
            generation=generation,
            lease=self.lease_seconds,
            processes=processes,
        )
        return Projector(
            self.log(),
            keeper,
            self.aggregates(generation, version=version, cache_events=0 if pace.fresh else CACHE_EVENTS),
            self.clock,
            self.metrics,
            name=name,
            pace=pace,
            begins=begins,
            tells_kafka=tells_kafka,
        )
