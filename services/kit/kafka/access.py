"""What a process may do on Kafka: the groups that it reads with, and the topics that it publishes to.

Services keep one table of each, from which they make their consumers and their producer; `mailroom topics acls` is made
from the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from contracts.topics import Topic


class Reading(NamedTuple):
    """A consumer group, and the topic that it reads."""

    group: str
    topic: str


@dataclass(frozen=True, slots=True)
class Access:
    """What one process does on Kafka."""

    reads: tuple[Reading, ...] = ()
    writes: tuple[Topic, ...] = ()

    @classmethod
    def of(
        cls,
        roles: Iterable[str],
        reads: Mapping[str, tuple[Reading, ...]],
        writes: Mapping[str, tuple[Topic, ...]],
        always: tuple[Topic, ...],
    ) -> Access:
        """What these roles do together, by tables of what each reads and writes; all of them write `always`."""
        plays = tuple(roles)
        return cls(
            tuple(reading for role in plays for reading in reads.get(role, ())),
            (*(topic for role in plays for topic in writes.get(role, ())), *always),
        )

    def check(self, group: str, topic: str) -> None:
        """Raise ValueError for a consumer that no ACL would let read."""
        if (group, topic) not in self.reads:
            raise ValueError(f"{group} of {topic} is not in kafka_access.READS: its ACLs would lack")


@dataclass(frozen=True, slots=True, order=True)
class Acl:
    """What a principal must be allowed, in the words of `kafka-acls`. `resource`: `topic` or `group`."""

    resource: str
    name: str
    operations: tuple[str, ...]


def acls(access: Access) -> list[Acl]:
    """What a process with this access must be allowed, by resource and name. Kafka allows `Describe` with each of
    these, and an idempotent producer what it needs with `Write`.
    """
    wanted: dict[tuple[str, str], set[str]] = {}
    for reading in access.reads:
        wanted.setdefault(("topic", reading.topic), set()).add("Read")
        wanted.setdefault(("group", reading.group), set()).add("Read")
    for topic in access.writes:
        wanted.setdefault(("topic", topic.name), set()).add("Write")
    return merged(Acl(*where, tuple(operations)) for where, operations in wanted.items())


def merged(found: Iterable[Acl]) -> list[Acl]:
    """Each resource once, with all that is wanted of it."""
    wanted: dict[tuple[str, str], set[str]] = {}
    for acl in found:
        wanted.setdefault((acl.resource, acl.name), set()).update(acl.operations)
    return sorted(Acl(*where, tuple(sorted(operations))) for where, operations in wanted.items())
