"""What a projection is, as a value: the engine takes this and knows neither mail nor files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from contracts.base import Model
from services.events.projections import email_log, email_log_v1, file, statistics
from services.events.projections.known import Engagement, KnownEvent, Overflow
from services.kit.errors import PermanentError

Body = dict[str, Any]
Fold = Callable[[Iterable[KnownEvent], Overflow], Body | None]
Index = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Projection:
    """A projection.

    Attributes:
        name: of the read model, and of the view on its active generation.
        version: raised with every change of `fold` that changes a document.
        topic: the one topic it reads.
        indexes: keys and directions.
        engagement: facts that an aggregate may gather without end.
        document: what a body looks like.
        fold: events and what lies outside the document → its body, None while there is nothing to show.
        bucket_of: the key of a document's statistics bucket; never changes once it has one.
        unique: keys and directions that no two documents share; a document without the first key is outside.
        earlier: the same projection with the folds before this one that the build still has, so that generations made
            by them are kept up to date while a release is rolled out, and as long as one may be rolled back to.
    """

    name: str
    version: int
    topic: str
    indexes: tuple[Index, ...]
    engagement: Engagement
    document: type[Model]
    fold: Fold
    bucket_of: Callable[[Body | None], str | None]
    unique: tuple[Index, ...] = ()
    earlier: tuple[Projection, ...] = ()

    def __post_init__(self) -> None:
        if len(set(self.versions)) <= len(self.earlier):
            raise ValueError(f"{self.name}: raise VERSION, one of the earlier folds has it: {self.versions}")

    @property
    def versions(self) -> tuple[int, ...]:
        """Of all folds that the build has, the newest first."""
        return (self.version, *(each.version for each in self.earlier))

    def of(self, version: int) -> Projection | None:
        """The projection with the fold of that version, of the same name and topic; None where the build has it not."""
        if version == self.version:
            return self
        found = next((each for each in self.earlier if each.version == version), None)
        return None if found is None else replace(found, name=self.name, topic=self.topic)

    def with_fold(self, version: int) -> Projection:
        """As `of`. Raises PermanentError `foldMissing` where the build has it not."""
        found = self.of(version)
        if found is None:
            raise PermanentError("foldMissing", self.missing(version))
        return found

    def missing(self, version: int) -> str:
        """For a person who meets a generation of a version that the build has not."""
        mine = ", ".join(map(str, self.versions))
        return f"{self.name} was built by version {version} of its fold, and this build has {mine}: use one that has it"


_EMAIL_LOG_V1 = Projection(
    name=email_log.NAME,
    version=email_log_v1.VERSION,
    topic=email_log.TOPIC,
    indexes=email_log.INDEXES,
    engagement=email_log.ENGAGEMENT,
    document=email_log.Document,
    fold=email_log_v1.fold,
    bucket_of=statistics.bucket_of,
)

EMAIL_LOG = Projection(
    name=email_log.NAME,
    version=email_log.VERSION,
    topic=email_log.TOPIC,
    indexes=email_log.INDEXES,
    engagement=email_log.ENGAGEMENT,
    document=email_log.Document,
    fold=email_log.fold,
    bucket_of=statistics.bucket_of,
    earlier=(_EMAIL_LOG_V1,),
)

FILE = Projection(
    name=file.NAME,
    version=file.VERSION,
    topic=file.TOPIC,
    indexes=file.INDEXES,
    engagement=file.ENGAGEMENT,
    document=file.Document,
    fold=file.fold,
    bucket_of=statistics.bucket_of,
    unique=file.UNIQUE,
)

PROJECTIONS: tuple[Projection, ...] = (EMAIL_LOG, FILE)
"""All that there are, in the order in which they are told."""
