"""What can come of one attempt, as the decider hears it. A provider's adapter makes the first three."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from contracts.base import Money

RefusalKind = Literal["mail", "account", "throttle", "unreachable"]
"""`mail`: this mail will never be taken. `throttle`: not now. `account`: nothing of this account is taken now.
`unreachable`: the request did not get to the provider: no connection stood, or a proxy on the way refused it. Only
`throttle` uses up a mail's budget."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one recipient's mail costs with attachments of so many bytes, and which entry of the prices says so."""

    money: Money
    price_version: str
    attachment_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider's response says that it took the mail. `size` is the bytes handed over."""

    provider_message_id: str
    size: int
    cost: Cost


@dataclass(frozen=True, slots=True)
class Rejected:
    """Certainly not taken: a response says so, or the request never got there (DNS, refused, TLS, a proxy).

    Attributes:
        code: the provider's own code, or `connectionFailed`.
        detail: for people; no address, no body.
        kind: whom the refusal means.
        retry_after: seconds the provider asks for; None = our own backoff.
        unlisted: a refusal of the provider that is in no list of ours: it may mean this mail or the whole account.
            `Circuit.charged` tells by how many mails meet it.
    """

    code: str
    detail: str
    kind: RefusalKind
    retry_after: float | None = None
    unlisted: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer, or one that may hide an accepted mail (5xx other than 503, a broken or timed-out connection)."""

    detail: str


@dataclass(frozen=True, slots=True)
class NotCalled:
    """The holder of the licence lets it go without having called."""

    detail: str


Outcome = Accepted | Rejected | Unknown | NotCalled

_ADDRESS = re.compile(r'"[^"]*"@\S+|\S+@\S+')
_LONGEST_DETAIL = 300


def for_people(said: str) -> str:
    """What a provider said, as `detail` may hold it: cut, and without the addresses that it names."""
    return _ADDRESS.sub("(address)", said)[:_LONGEST_DETAIL]
