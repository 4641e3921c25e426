"""Reports that name an address and no message: by what the attempt that may be meant is found.

SendGrid hears of some bounces long after the delivery, by mail from the receiving side. It then reports neither its own
message id nor our custom arguments. Such a report counts for the one attempt that it can be about: the only one that
this provider accepted for this address within the window. If there are two, nobody can tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

WINDOWS: Final = {"sendgrid": timedelta(days=7)}
"""Provider → how long before such a bounce its attempt may have begun.

Receiving servers give up after 4 to 5 days (RFC 5321 §4.5.4.1). A shorter window would not be safer: with the attempt
that is meant outside it, a younger one would seem to be the only one.
"""

MOST_STREAMS = 50
"""Streams read for one value; where there are as many, nobody can tell which is meant."""

_KEY_CHARACTERS = 16
"""Of the recipient key. The stream is looked at anyway, so that two addresses may share a value; the index is smaller,
and no value in it is another's id.
"""


@dataclass(frozen=True, slots=True)
class DelayedBounce:
    """A bounce that names nothing but the recipient's address, as the provider spells it, and when it happened."""

    address: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Candidate:
    """An attempt that a delayed bounce may be about: one that the provider did not refuse.

    Attributes:
        accepted: something proves that the provider took it; otherwise nobody knows.
    """

    message_id: str
    attempt_id: str
    recipient: str
    accepted: bool


def lookup_value(provider: str, recipient_key: str, begun_at: datetime) -> str:
    """Under which an attempt's stream is found by its recipient.

    By calendar week, so that a look-up never reads all mail that an address ever got.
    """
    return f"to:{provider}:{recipient_key[:_KEY_CHARACTERS]}:{begun_at:%G-W%V}"


def lookup_values(provider: str, recipient_key: str, at: datetime) -> tuple[str, ...]:
    """Under which all attempts are found that a report of that time may be about, and more."""
    begins = (at - WINDOWS[provider], at)
    return tuple(dict.fromkeys(lookup_value(provider, recipient_key, begun_at) for begun_at in begins))


def within_window(provider: str, begun_at: datetime, at: datetime) -> bool:
    """Whether a report of the time `at`, in whole seconds, may be about an attempt that began then.

    Not about one that began after it: the report may have waited, and a younger mail would be taken for the one meant.
    """
    return at - WINDOWS[provider] <= begun_at and begun_at.replace(microsecond=0) <= at


def the_one(candidates: Iterable[Candidate]) -> Candidate | str:
    """The attempt that is meant; a sentence where that is not certain.

    An attempt without an answer may be the one that is meant, so it keeps others from being certain, and is never taken
    for accepted: that there is no other would be a weak proof.
    """
    found = list(candidates)
    if not found:
        return "it names an address alone, and no attempt for it within the days before may be meant"
    if len(found) > 1:
        names = ", ".join(dict.fromkeys(each.message_id for each in found[:3]))
        return f"it names an address alone, and {len(found)} attempts within the days before may be meant: {names}"
    if not found[0].accepted:
        return f"it names an address alone, and the one attempt that may be meant has no answer: {found[0].message_id}"
    return found[0]
