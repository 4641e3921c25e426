"""A versioned bucket in memory: one key's versions and markers, newest first, with what each version is, and the
multipart uploads of its file that are open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from contracts.files.values import ScanResult
from services.files.domain.decisions import Decision
from services.files.domain.file import State
from services.files.domain.seen import Inspected, ObjectVersion, Seen, wanted


@dataclass
class Key:
    """One key. `stack` is newest first; `what` tells of every version that ever was."""

    stack: list[ObjectVersion] = field(default_factory=list)
    what: dict[str, Inspected] = field(default_factory=dict)
    uploads: set[str] = field(default_factory=set)
    _numbers: count[int] = field(default_factory=count)

    def put(self, found: Inspected) -> str:
        """A new version on top; its id."""
        version = f"v{next(self._numbers)}"
        self.stack.insert(0, ObjectVersion(version))
        self.what[version] = replace(found, version_id=version)
        return version

    def mark(self) -> str:
        """A delete marker on top; its id."""
        marker = f"m{next(self._numbers)}"
        self.stack.insert(0, ObjectVersion(marker, is_marker=True))
        return marker

    def tag(self, version: str, public: bool) -> None:
        """Tag a version as public or not; one that is not there is fine."""
        if version in self.what:
            self.what[version] = replace(self.what[version], is_public=public)

    def verify(self, version: str) -> None:
        """Tag a version as verified; one that is not there is fine."""
        if version in self.what:
            self.what[version] = replace(self.what[version], is_verified=True)

    def scan(self, version: str, result: ScanResult) -> None:
        """The malware scan's tag, where there is none yet."""
        if version in self.what and self.what[version].scan is None:
            self.what[version] = replace(self.what[version], scan=result)

    def delete(self, versions: Sequence[str]) -> None:
        """These are gone for good."""
        self.stack = [each for each in self.stack if each.version_id not in versions]

    def seen(self, state: State) -> Seen:
        """A look, as the service takes it."""
        versions = tuple(self.stack)
        chosen = wanted(state, versions)
        return Seen(versions, None if chosen is None else self.what[chosen])

    def before(self, decision: Decision) -> None:
        """The changes that come before the append."""
        if decision.abort:
            self.uploads.clear()
        self.delete(decision.unmark)
        if decision.public is not None:
            self.tag(*decision.public)
        if decision.verified is not None:
            self.verify(decision.verified)
        if decision.mark:
            self.mark()

    def after(self, decision: Decision) -> None:
        """The changes that come after it."""
        self.delete(decision.delete)
