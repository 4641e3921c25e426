"""Whose files a mail may carry."""

from __future__ import annotations

from services.kit.actors import is_trusted


def may_attach(who: str | None, user_id: str, owner: str) -> bool:
    """Whether a mail of `user_id` that `who` asked for may carry a file of `owner`: the same user's, or anybody's where
    an admin or a service asks.
    """
    return is_trusted(who) or user_id == owner
