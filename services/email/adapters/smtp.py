"""A mail server behind the `MailProvider` port: SMTP with one recipient a transaction and an honest outcome.

The line between "certainly not taken" and "nobody knows" is the dot that ends the message. A server takes
responsibility for a message by its answer to that dot and not before (RFC 5321 §4.1.1.4, §6.1), so each command is sent
by itself: whatever fails before the dot is a refusal. From the dot on, only a reply that can be read is an answer; a
lost connection, a time limit or anything else leaves the outcome unknown (RFC 1047). No live server was tried.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from contracts.addresses import LONGEST_EVER, normalise_address
from services.email.adapters.mime_headers import split_mailbox
from services.email.adapters.smtp_connection import Connection, Envelope, Refused, Server, Tls, Transfer, taken
from services.email.adapters.smtp_replies import Reply, queue_id, refusal
from services.email.adapters.writing import MailWriter, said_of
from services.email.domain.capabilities import Capabilities
from services.email.domain.correlation import envelope_id, return_address
from services.email.domain.outcomes import Accepted, Cost, Rejected, Unknown
from services.email.ports import OutgoingAttempt, OutgoingMail, PriceTable, Quota
from services.kit.errors import PermanentError

NAME = "smtp"

MOST_BYTES = 10_240_000
"""Of a message, while no server has told its SIZE: what Postfix takes unless it is told otherwise."""

_MESSAGE_ID = re.compile(rb"(?m)^Message-ID: <([^>\r\n]+)>")


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, and how many.

    Attributes:
        before_dot: for all that comes before the dot, waiting for a connection with it. The caller's limit must be
            longer by what an answer takes: what it cuts off is unknown, even where nothing was handed over.
        answer: for the answer to the dot. RFC 5321 §4.5.3.2.6 asks for 10 minutes; the caller's limit may end it first.
        idle: how long a connection is kept for the next mail.
        connections: open at once; further calls wait for one.
    """

    before_dot: float = 8.0
    answer: float = 600.0
    idle: float = 30.0
    connections: int = 10


class SmtpProvider:
    """One account at one SMTP server. `aclose` it in the end."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        writer: MailWriter,
        prices: PriceTable,
        now: Callable[[], datetime],
        rate: float,
        username: str | None = None,
        password: str | None = None,
        tls: Tls = "starttls",
        tls_context: ssl.SSLContext | None = None,
        helo: str | None = None,
        verp_domain: str | None = None,
        most_bytes: int = MOST_BYTES,
        limits: Limits | None = None,
    ) -> None:
        """An SMTP server; nothing is connected yet.

        Args:
            rate: recipients a second that the server takes from us; nobody can be asked.
            username: to log in with, together with `password`; None where the server knows us otherwise.
            tls_context: how its certificate is verified; the system's authorities where it is None.
            helo: our name in EHLO; this machine's where it is None.
            verp_domain: the domain to whose mailbox `bounces` bounces go (`correlation.return_address`). Where it is
                None they go to the sender's address.
            most_bytes: of a message, while the server has not told its own limit (SIZE).

        Raises:
            ValueError: a password would be sent without TLS.
        """
        if tls == "off" and username is not None:
            raise ValueError("a password is not sent without TLS: use starttls or implicit, or no user")
        context = tls_context or (None if tls == "off" else ssl.create_default_context())
        self._server = Server(host, port, tls, context, helo, username, password or "")
        self._writer, self._prices, self._now, self._rate = writer, prices, now, rate
        self._verp_domain, self._limits = verp_domain, limits or Limits()
        self.capabilities = Capabilities("mime", most_bytes, reports=False)
        self._places = asyncio.Semaphore(self._limits.connections)
        self._idle: list[Connection] = []
        self._closed = False

    @property
    def name(self) -> str:
        """`smtp`."""
        return NAME

    async def send(self, attempt: OutgoingAttempt) -> Accepted | Rejected | Unknown:
        """One transaction for one recipient; see the port for what is promised.

        The provider's id of an accepted mail is the one under which the server says that it queued it; where it says
        none, it is the Message-ID. A call that is cancelled before the dot hands nothing over: its connection is cut.
        """
        try:
            raw = self._writer.mime(attempt)
            envelope = self._envelope(attempt)
            cost = self.estimate_cost(attempt.mail.attachment_bytes, self._now())
        except PermanentError as error:
            return Rejected(error.reason, str(error), "mail" if error.reason == "invalid" else "account")
        deadline = asyncio.get_running_loop().time() + self._limits.before_dot
        try:
            async with asyncio.timeout_at(deadline):
                await self._places.acquire()
        except TimeoutError:
            return Rejected("busy", "all connections were in use within the time limit", "unreachable")
        try:
            return await self._transact(envelope, raw, cost, deadline)
        except Refused as refused:
            return refused.outcome
        finally:
            self._places.release()

    def cannot_carry(self, mail: OutgoingMail) -> str | None:
        """By the size of its MIME; see the port."""
        size = self._writer.too_large(mail, self.capabilities.most_bytes)
        return None if size is None else said_of(size, NAME, self.capabilities.most_bytes)

    async def quota(self) -> Quota:
        """The rate that was set, and no limit a day: SMTP knows no question for it."""
        return Quota(self._rate, -1, 0)

    def estimate_cost(self, attachment_bytes: int, at: datetime) -> Cost:
        """By the price table in force at `at`."""
        return self._prices.cost(NAME, attachment_bytes, at)

    async def aclose(self) -> None:
        """Close the idle connections, politely where the server answers at once; those in use end with their calls."""
        self._closed = True
        idle, self._idle = self._idle, []
        await asyncio.gather(*(connection.quit() for connection in idle))

    def _envelope(self, attempt: OutgoingAttempt) -> Envelope:
        """Raises PermanentError `invalid`."""
        mail = attempt.mail
        try:
            if self._verp_domain is None:
                sender = normalise_address(split_mailbox(mail.from_)[1], longest=LONGEST_EVER)
            else:
                sender = return_address(mail.message_id, attempt.attempt_id, self._verp_domain)
            recipient = normalise_address(attempt.recipient, longest=LONGEST_EVER)
        except ValueError as error:
            raise PermanentError("invalid", f"an address of the envelope: {error}") from None
        return Envelope(sender, recipient, envelope_id(mail.message_id, attempt.attempt_id))

    async def _transact(
        self, envelope: Envelope, raw: bytes, cost: Cost, deadline: float
    ) -> Accepted | Rejected | Unknown:
        """Raises Refused; whatever it raises, its connection is cut, or kept where it can take another mail."""
        connection, reply = await self._begun(envelope, len(raw), deadline)
        try:
            taken("sender", reply)
            transfer = await connection.hand_over(envelope, raw, deadline)
        except Refused:
            await connection.reset(deadline)
            self._keep(connection)
            raise
        outcome = await self._answered(connection, transfer, raw, cost)
        self._keep(connection)
        return outcome

    async def _begun(self, envelope: Envelope, size: int, deadline: float) -> tuple[Connection, Reply]:
        """A connection, and what the server answered to MAIL on it. Raises Refused.

        One that was idle and is found dead, silent or closing (421) by MAIL has taken nothing: a new one is opened.
        """
        now = asyncio.get_running_loop().time()
        connection = self._from_idle(now)
        if connection is not None:
            self._check_size(connection, size)
            try:
                reply = await connection.sender(envelope, size, min(deadline, now + self._limits.before_dot / 4))
                if reply.code != 421:
                    return connection, reply
            except Refused:
                pass
            connection.cut()
        connection = await Connection.open(self._server, deadline)
        if connection.most_bytes is not None:
            self.capabilities = Capabilities("mime", connection.most_bytes, reports=False)
        self._check_size(connection, size)
        return connection, await connection.sender(envelope, size, deadline)

    def _check_size(self, connection: Connection, size: int) -> None:
        if size > self.capabilities.most_bytes:
            self._keep(connection)
            raise Refused(Rejected("invalid", said_of(size, NAME, self.capabilities.most_bytes), "mail"))

    def _from_idle(self, now: float) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and now - connection.idle_since < self._limits.idle:
                return connection
            connection.cut()
        return None

    def _keep(self, connection: Connection) -> None:
        if self._closed or not connection.is_open:
            connection.cut()
        else:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)

    async def _answered(
        self, connection: Connection, transfer: Transfer, raw: bytes, cost: Cost
    ) -> Accepted | Rejected | Unknown:
        """The outcome of a message whose dot goes out now."""
        try:
            async with asyncio.timeout(self._limits.answer):
                reply = await connection.dot(transfer)
        except TimeoutError:
            return Unknown(f"no answer within {self._limits.answer:g} s after the message")
        except ValueError as error:
            return Unknown(f"the answer to the message was {error}")
        except Exception as error:  # noqa: BLE001 - whatever it is, the dot may have arrived
            return Unknown(f"the connection was lost after the message ({type(error).__name__})")
        if 400 <= reply.code <= 599:
            return refusal("message", reply)
        if not 200 <= reply.code <= 299:
            return Unknown(f"the answer to the message was {reply.code}, which is neither yes nor no")
        provider_message_id = queue_id(reply.text)
        if provider_message_id is None:
            ours = _MESSAGE_ID.search(raw)
            provider_message_id = ours[1].decode() if ours else ""
        return Accepted(provider_message_id, len(raw), cost)
