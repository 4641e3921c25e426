"""Who asked, as an envelope's `actor` says it: `user:<id>`, `admin:<id>` or `service:<name>`.

The HTTP doors always set it. A command without one was put on Kafka by a service, since nobody else reaches it. What
may be claimed on a topic can be narrowed: see `command_roles`.
"""

from __future__ import annotations

from typing import Literal

Role = Literal["user", "admin", "service"]


def actor(role: Role, identity: str) -> str:
    """The `actor` of a caller."""
    return f"{role}:{identity}"


def claimed_role(who: str | None) -> str:
    """The role that an `actor` says; that of a service where there is none."""
    return "service" if who is None else who.partition(":")[0]


def is_trusted(who: str | None) -> bool:
    """Whether `who` may do something to what belongs to others: an admin or a service."""
    return claimed_role(who) in ("admin", "service")


def may_change(who: str | None, owner: str) -> bool:
    """Whether `who` may change what belongs to user `owner`: that user, an admin, or a service."""
    return is_trusted(who) or who == actor("user", owner)
