"""A provider's POST to one of our webhooks, and what is made of it: the values that the webhooks work with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

CLOCKS_DIFFER = timedelta(minutes=15)
"""How far a provider's clock may be ahead of ours."""

TOPIC_ARN = re.compile(r"arn:(aws|aws-cn|aws-us-gov):sns:([a-z]{2}(?:-[a-z]+)+-[0-9]+):[0-9]{12}:[A-Za-z0-9_-]{1,256}")
"""An SNS topic's ARN: its partition and its region."""


@dataclass(frozen=True, slots=True)
class Post:
    """A POST as it came: the bytes of its body, and its headers with their names in lower case."""

    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, body: bytes, headers: Mapping[str, str]) -> Post:
        """With names of headers in any case."""
        return cls(body, {name.lower(): value for name, value in headers.items()})


@dataclass(frozen=True, slots=True)
class Genuine:
    """The provider has signed it. `by`: how that was proved, for the record's header `verified`; `at`: when it was
    signed.
    """

    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Forged:
    """It is not from the provider, or no longer of use: it will be refused however often it comes.

    `reason` is a stable camelCase slug, `detail` for people. Neither repeats anything of the POST.
    """

    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Undecided:
    """Nobody can tell now: it has to come again. `reason` and `detail` as above."""

    reason: str
    detail: str


Verdict = Genuine | Forged | Undecided


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One notification for the raw topic: its key (None: it names no id) and its value."""

    key: str | None
    value: bytes


@dataclass(frozen=True, slots=True)
class OneUse:
    """What may be used for one body only.

    Attributes:
        token: a text for it, the same however often it comes.
        body_hash: SHA-256 of the body that it came with, in hexadecimal.
        until: after this it is refused for its age, and need not be known any more.
    """

    token: str
    body_hash: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Subscription:
    """A topic that asks whether it may send to us: `topic` is its ARN, `token` what confirms it."""

    topic: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a genuine POST says.

    Attributes:
        by: as in `Genuine`.
        records: the notifications in it, in order; none where it brings none.
        one_use: where the provider's signature does not cover the body.
        subscription: to be confirmed.
    """

    by: str
    records: tuple[RawRecord, ...] = ()
    one_use: OneUse | None = None
    subscription: Subscription | None = None


def of_age(at: datetime, now: datetime, max_age: timedelta) -> Forged | Undecided | None:
    """What is wrong with the time of a signature; None where nothing is.

    A time that is still to come says that clocks differ, which may be ours: no reason to lose a notification.
    """
    if at > now + CLOCKS_DIFFER:
        return Undecided("clock", "it was signed in the future: the clocks differ")
    if at < now - max_age:
        hours = max_age.total_seconds() / 3600
        return Forged("tooOld", f"it was signed more than {hours:g} hours ago")
    return None
