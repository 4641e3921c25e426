"""What the email service needs from outside. Adapters implement these; tests use `tests/unit/email_service/fakes.py`.

Every method may raise `TransientError` (again later) unless its docstring says that it never raises.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from contracts.email.commands import SendEmail
from contracts.email.values import Category, ContentRef
from contracts.recipients.events import SuppressionReason
from services.email.domain.capabilities import Capabilities
from services.email.domain.content import ContentKind, MessageContent, SealedBody
from services.email.domain.correlation import Correlation
from services.email.domain.delayed_bounces import DelayedBounce
from services.email.domain.files import KnownFile, Usable
from services.email.domain.notifications import Delivered, InboundMail, Json, Translation
from services.email.domain.outcomes import Accepted, Cost, NotCalled, Outcome, Rejected, Unknown
from services.email.domain.webhooks import Forged, OneUse, Post, Subscription, Taken, Undecided
from services.kit.errors import TransientError

__all__ = [
    "Accepted",
    "Board",
    "Capabilities",
    "Checkpoints",
    "ContentKey",
    "ContentStore",
    "Cost",
    "FileBytes",
    "KnownFiles",
    "MailProvider",
    "NewContent",
    "NoCheckpoints",
    "NotCalled",
    "NotificationFormat",
    "Order",
    "Outcome",
    "OutgoingAttempt",
    "OutgoingMail",
    "PriceTable",
    "ProviderBoard",
    "Quota",
    "RecipientKeys",
    "Rejected",
    "Rendered",
    "Renderer",
    "ReviewedTo",
    "Shut",
    "StoredContent",
    "Subscriptions",
    "SuppressionList",
    "SuppressionQuery",
    "Unknown",
    "UsedTokens",
    "Webhook",
]


# --- providers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class OutgoingMail:
    """What all recipients of one message share; the same object for all attempts of a wave (identity is equality).

    `files` are the attachments' (filename, content type, bytes); `date` goes into the Date header. An adapter may keep
    what it prepares from a mail for as long as the object lives.
    """

    message_id: str
    from_: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    reply_to: str | None
    subject: str
    category: Category
    user_id: str
    list_id: str | None
    date: datetime
    content: MessageContent
    files: tuple[tuple[str, str, bytes], ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def attachment_bytes(self) -> int:
        """Of all attachments, before they are encoded: what providers charge for."""
        return sum(len(data) for _, _, data in self.files)


@dataclass(frozen=True, slots=True)
class OutgoingAttempt:
    """One licensed call: `mail` to `recipient` and nobody else."""

    attempt_id: str
    recipient: str
    mail: OutgoingMail


@dataclass(frozen=True, slots=True)
class Quota:
    """What the account may send, in recipients."""

    max_send_rate: float
    max_24_hour: float
    sent_last_24_hours: float


class MailProvider(Protocol):
    """One account at one provider."""

    @property
    def name(self) -> str:
        """The wire name: `ses`, `sendgrid`, `mailgun`."""
        ...

    async def send(self, attempt: OutgoingAttempt) -> Accepted | Rejected | Unknown:
        """Make exactly one call, without retries, and say what came of it.

        `Rejected` only for a response that says "not accepted", or for a failure before the connection stood; anything
        else without a clear yes is `Unknown`. Mail that cannot be written is `Rejected(kind="mail", code="invalid")`.
        Never raises but CancelledError, after which the outcome is unknown; the caller bounds the time.
        """
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it can carry."""
        ...

    def cannot_carry(self, mail: OutgoingMail) -> str | None:
        """Why it never takes this mail, for people; None where it may. By `capabilities` alone: no call is made."""
        ...

    async def quota(self) -> Quota:
        """The account's limits now. Raises TransientError, and RefusedHere for a suspended account."""
        ...

    def estimate_cost(self, attachment_bytes: int, at: datetime) -> Cost:
        """What one recipient of a mail with attachments of so many bytes costs at `at`. No I/O."""
        ...


@dataclass(frozen=True, slots=True)
class Shut:
    """A provider that all processes leave alone. `seconds` until somebody tries it again; 0 or less: it is time."""

    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator ordered: who, when, why. `provider` of a pin, else the one that was switched off."""

    provider: str
    actor: str
    at: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Board:
    """What all processes know of the providers.

    Attributes:
        shut: provider → that its circuit is open.
        off: provider → the order that switched it off.
        pins: category, or `template:<id>` → the order that pins such mail to a provider.
    """

    shut: Mapping[str, Shut] = field(default_factory=dict)
    off: Mapping[str, Order] = field(default_factory=dict)
    pins: Mapping[str, Order] = field(default_factory=dict)


class ProviderBoard(Protocol):
    """What processes tell each other of providers, and what operators order. All times are the store's."""

    async def read(self) -> Board:
        """Everything, as last acknowledged."""
        ...

    async def shut(self, provider: str, seconds: float, reason: str) -> None:
        """Leave it alone for that long from now on, or for longer where that was said already."""
        ...

    async def take_probe(self, provider: str, owner: str, seconds: float) -> bool:
        """Whether `owner` is the one that tries it now: its pause is over, and nobody else does within `seconds`."""
        ...

    async def leave_probe(self, provider: str, owner: str) -> None:
        """`owner` had nothing to try it with: another one may now. Does nothing where the probe is another one's."""
        ...

    async def reopen(self, provider: str) -> None:
        """It works. One that was not shut is fine."""
        ...

    async def switch_off(self, provider: str, actor: str, why: str) -> None:
        """No mail goes there from now on, until `switch_on`. The first order stands."""
        ...

    async def switch_on(self, provider: str) -> bool:
        """Whether it was off."""
        ...

    async def pin(self, what: str, provider: str, actor: str, why: str) -> None:
        """Mail of this category, or `template:<id>`, goes there alone. The last order stands."""
        ...

    async def unpin(self, what: str) -> bool:
        """Whether it was pinned."""
        ...


class PriceTable(Protocol):
    """Dated prices, kept as data."""

    def cost(self, provider: str, attachment_bytes: int, at: datetime) -> Cost:
        """What one recipient of a mail with attachments of so many bytes costs by the prices in force at `at`.
        PermanentError `priceMissing`.
        """
        ...


# --- content -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ContentKey:
    """One stored content: a ref is valid only under its own message id."""

    message_id: str
    ref: str


@dataclass(frozen=True, slots=True)
class NewContent:
    """Bytes to be stored, encrypted, under (message id, sha256).

    `needed_until`: until when its mail may be sent, None where that is soon. Nothing deletes it before by its age.
    """

    message_id: str
    category: Category
    kind: ContentKind
    data: bytes
    needed_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredContent:
    """What a sweep sees of a content: never its bytes. `touched_at`: when it was last put."""

    key: ContentKey
    category: Category
    kind: ContentKind
    touched_at: datetime


@dataclass(frozen=True, slots=True)
class ReviewedTo:
    """How far a review has come: all that was last put before `touched_at`, and these contents of that very moment."""

    touched_at: datetime
    keys: frozenset[ContentKey]

    @classmethod
    def past(cls, before: ReviewedTo | None, found: Sequence[StoredContent]) -> ReviewedTo:
        """Past a page of at least one, which came after `before`."""
        last = found[-1].touched_at
        keys = frozenset(each.key for each in found if each.touched_at == last)
        return cls(last, keys | before.keys if before is not None and before.touched_at == last else keys)


class ContentStore(Protocol):
    """Encrypted contents, insert-only: the same bytes under the same message are stored once and give the same ref."""

    async def put_many(self, items: Sequence[NewContent]) -> list[ContentRef]:
        """Store all, durable when it returns (majority, journalled). A repeat changes nothing but `touched_at` = now.

        `ContentRef.size` is the bytes given, before encryption. All or a TransientError (repeat the whole).
        """
        ...

    async def get_many(self, keys: Sequence[ContentKey]) -> dict[ContentKey, bytes | TransientError]:
        """Read and decrypt, each by itself: one that is stored and cannot be had now comes as the error, which may say
        when to ask again; KeyUnknown where this process lacks the key. A content that was deleted or never was, or was
        changed since it was encrypted, is not in the result.
        """
        ...

    async def delete_messages(self, message_ids: Sequence[str]) -> None:
        """Delete every content of these messages. Repeating it is harmless, and needed after a TransientError."""
        ...

    async def to_review(
        self,
        touched_before: datetime,
        limit: int,
        *,
        categories: Sequence[Category] | None = None,
        after: ReviewedTo | None = None,
    ) -> list[StoredContent]:
        """Contents last put before that time, oldest first: those not kept yet, or with `categories` all of those.

        `after`: only those that a review which has come so far has not seen.
        """
        ...

    async def keep(self, since: Mapping[ContentKey, datetime]) -> None:
        """A stream names these: they leave the review and live for their category's retention from the times given."""
        ...

    async def end_retention(self, limit: int) -> int:
        """Delete up to `limit` contents whose retention is over and that do not go by themselves; returns how many."""
        ...

    async def discard(self, keys: Sequence[ContentKey], touched_before: datetime) -> int:
        """Delete those of `keys` that were not put again since `touched_before`; returns how many went.

        Some may be left for another time.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rendered:
    """At least one of `html` and `text`. `template_version` names the template's exact text, None without one."""

    html: str | None
    text: str | None
    template_version: str | None = None


class Renderer(Protocol):
    """Turns a command into what recipients get. Pure: no I/O, may be called in a thread."""

    def render(self, command: SendEmail, sealed: SealedBody | None) -> Rendered:
        """Render the bodies once, for all recipients. Attachments are not its business.

        Args:
            command: valid by contract.
            sealed: what `command.sealed` stands for; None exactly where the command has none.

        Raises:
            PermanentError: `renderingFailed` (unknown template, missing data, …) or `invalid`.
        """
        ...


# --- files of the files service ----------------------------------------------------------------------------------


class KnownFiles(Protocol):
    """What email has heard of files: its own fold of `files.events`."""

    async def load_many(self, file_ids: Collection[str]) -> dict[str, KnownFile]:
        """Every one, as last acknowledged; one that was never heard of as `KnownFile(file_id)`."""
        ...

    async def save_many(self, changes: Sequence[tuple[KnownFile, KnownFile]]) -> set[str]:
        """Put the second in the first's place, each file once; the ids of those that another writer has changed since,
        to be loaded and folded again. After a TransientError some may stand: folding again changes nothing about them.
        """
        ...


class FileBytes(Protocol):
    """The bytes of files, where the files service keeps them."""

    async def read_many(self, files: Sequence[Usable]) -> dict[str, bytes | TransientError]:
        """By file id, each by itself: exactly the version named, decoded where it is stored encoded, or the error where
        it cannot be had now, which may say when to ask again. A version that is gone, or that is not of the size that
        was verified, or decoded not of the size that was declared, is not in the result.
        """
        ...


# --- suppression -------------------------------------------------------------------------------------------------


class RecipientKeys(Protocol):
    """HMAC of the wholly lower-cased address: the id of a recipient's stream."""

    def key(self, address: str) -> str:
        """The same key for every spelling in upper or lower case."""
        ...


@dataclass(frozen=True, slots=True)
class SuppressionQuery:
    """May these recipients get a mail of this category (and, for marketing, this list)?"""

    addresses: tuple[str, ...]
    category: Category
    list_id: str | None


@dataclass(frozen=True, slots=True)
class Blocked:
    """Those of a query's addresses that must not be written to now.

    Attributes:
        suppressed: with the reason.
        unreadable: of whom nobody can tell here, since what this build reads of them is not all there is.
    """

    suppressed: dict[str, SuppressionReason] = field(default_factory=dict)
    unreadable: frozenset[str] = frozenset()


class SuppressionList(Protocol):
    """Who must not be written to."""

    async def blocked(self, queries: Sequence[SuppressionQuery], now: datetime) -> list[Blocked]:
        """For each query the blocked ones of its addresses, a verdict for each; every suppression acknowledged before
        the call counts (primary, majority).

        Raises TransientError when nothing can be read: nothing may be sent then.
        """
        ...


# --- notifications -----------------------------------------------------------------------------------------------


class NotificationFormat(Protocol):
    """How one provider's notifications are read. Pure. Raises PermanentError for what is malformed."""

    @property
    def provider(self) -> str:
        """The provider's wire name."""
        ...

    @property
    def respells(self) -> bool:
        """Whether it may report a recipient in other letters than ours (`Jane@` as `jane@`): ours is looked up then."""
        ...

    def unwrap(self, raw: bytes, *, sqs_message_id: str | None = None, sqs_sent: str | None = None) -> Delivered:
        """Take a notification out of its wrappings."""
        ...

    def correlate(self, notification: Json) -> Correlation | None:
        """The message and attempt that it names by itself."""
        ...

    def provider_message_id(self, notification: Json) -> str | None:
        """The provider's id of the message, by which it is looked up otherwise; None where the provider may leave it
        out, so that nobody can tell whose it is.
        """
        ...

    def delayed_bounce(self, notification: Json) -> DelayedBounce | None:
        """The address and the time of a report that may name nothing else; None where it is none of that kind.

        Asked only where it names no message. Not None only from a provider in `delayed_bounces.WINDOWS`.
        """
        ...

    def without_message(self, notification: Json) -> str | None:
        """Why nothing follows from it, so that nobody needs to know whose it is (it is about no message at all, or of a
        type that becomes no fact); None otherwise.
        """
        ...

    def inbound_mail(self, notification: Json) -> InboundMail | None:
        """The mail to us that it tells of, None where it is about one of ours."""
        ...

    def translate(self, delivered: Delivered, correlation: Correlation) -> Translation:
        """Its facts, or why there are none."""
        ...


# --- webhooks ----------------------------------------------------------------------------------------------------


class Webhook(Protocol):
    """Where one provider POSTs its notifications."""

    @property
    def provider(self) -> str:
        """The provider's wire name."""
        ...

    async def read(self, post: Post) -> Taken | Forged | Undecided:
        """What a POST says, once it is proved to be the provider's. Never raises: what cannot be asked now is
        `Undecided`.
        """
        ...


class UsedTokens(Protocol):
    """Tokens of webhooks whose signature does not cover the body, and the body that each was used for."""

    async def body_of(self, token: str) -> str | None:
        """The hash of the body that the token was recorded with; None where it is not known (any more)."""
        ...

    async def record(self, use: OneUse) -> str:
        """Record it unless the token is recorded already; the hash of the body that stands there now. Of several at
        once one wins. Once this returns, a majority knows it.
        """
        ...


class Subscriptions(Protocol):
    """Topics that want to send to us."""

    async def confirm(self, subscription: Subscription) -> None:
        """Let it. Harmless again. Raises TransientError, and PermanentError where it is refused."""
        ...


# --- tests -------------------------------------------------------------------------------------------------------


class Checkpoints(Protocol):
    """Named points between two effects, at which a chaos test may end the process. Nothing in production."""

    def reach(self, name: str) -> None:
        """Called when the point is reached. Returns, or the process is gone."""
        ...


class NoCheckpoints:
    """The production kind."""

    def reach(self, name: str) -> None:
        """Nothing."""
