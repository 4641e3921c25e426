"""Who asked, as an envelope's `actor` says it: `user:<id>`, `admin:<id>` or `service:<name>`.

The HTTP door always sets it. A command without one was put on Kafka by a service, since nobody else reaches it.
"""

from __future__ import annotations

from typing import Literal

Role = Literal["user", "admin", "service"]


def actor(role: Role, identity: str) -> str:
    """The `actor` of a caller."""
    return f"{role}:{identity}"


def may_cancel(who: str | None, owner: str) -> bool:
    """Whether `who` may stop a mail of user `owner`: that user, an admin, or a service."""
    return _is_trusted(who) or who == actor("user", owner)


def may_attach(who: str | None, user_id: str, owner: str) -> bool:
    """Whether a mail of `user_id` that `who` asked for may carry a file of `owner`: the same user's, or anybody's where
    an admin or a service asks.
    """
    return _is_trusted(who) or user_id == owner


def _is_trusted(who: str | None) -> bool:
    return who is None or who.partition(":")[0] in ("admin", "service")
