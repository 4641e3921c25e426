"""Who asked, as an envelope's `actor` says it: `user:<id>`, `admin:<id>` or `service:<name>`.

The HTTP doors always set it. A command without one was put on Kafka by a service, since nobody else reaches it.
"""

from __future__ import annotations

from typing import Literal

Role = Literal["user", "admin", "service"]


def actor(role: Role, identity: str) -> str:
    """The `actor` of a caller."""
    return f"{role}:{identity}"


def is_trusted(who: str | None) -> bool:
    """Whether `who` may do something to what belongs to others: an admin or a service."""
    return who is None or who.partition(":")[0] in ("admin", "service")


def may_change(who: str | None, owner: str) -> bool:
    """Whether `who` may change what belongs to user `owner`: that user, an admin, or a service."""
    return is_trusted(who) or who == actor("user", owner)
