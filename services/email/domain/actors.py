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
    if who is None:
        return True
    role, _, identity = who.partition(":")
    return role in ("admin", "service") or (role == "user" and identity == owner)
