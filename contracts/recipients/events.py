"""Events of a recipient's stream, version 1 each. Subject = the recipient's key, an HMAC that tells no address."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator

from contracts.base import EventData, UtcDateTime

SuppressionReason = Literal["hardBounce", "complaint", "unsubscribed", "manual", "providerList"]
_SCOPE = re.compile(r"all|marketing|list:[A-Za-z0-9._-]{1,128}")


def _scope(text: str) -> str:
    if not _SCOPE.fullmatch(text):
        raise ValueError("a scope is all, marketing or list:<listId>")
    return text


Scope = Annotated[str, AfterValidator(_scope)]


class RecipientSuppressed(EventData):
    """Do not write to this address in this scope. The event's id is UUIDv5 of its cause."""

    address: str
    scope: Scope
    reason: SuppressionReason
    cause: str
    until: UtcDateTime | None = None


class RecipientUnsuppressed(EventData):
    """This address may be written to again in this scope; causes older than this event change nothing any more.

    With `complaintOf` it lifts only what complaints about that message, up to `happenedAt`, had caused.
    """

    address: str
    scope: Scope
    reason: str
    complaint_of: str | None = None
    happened_at: UtcDateTime | None = None
