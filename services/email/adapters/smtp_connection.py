"""One connection to an SMTP server: opened, one transaction at a time, and the line that the dot draws (see `smtp`).

The client library drives everything up to DATA's 354. From there on a protocol of ours reads the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from aiosmtplib import SMTP, SMTPResponseException

from services.email.adapters.smtp_replies import Phase, Reply, first_reply, refusal, told
from services.email.domain.outcomes import Rejected

Tls = Literal["starttls", "implicit", "off"]
"""`starttls`: the connection is encrypted after EHLO (port 587). `implicit`: from its beginning (port 465). Either is
demanded. `off`: not at all, for a server on this machine."""

_CHUNK = 65_536
_PARTING_SECONDS = 1.0
_LEADING_DOT = re.compile(rb"(?m)^\.")
_TOO_SLOW = Rejected("timeout", "the server did not take the message within the time limit before its end", "throttle")


@dataclass(frozen=True, slots=True)
class Server:
    """Where to connect to, and as whom. `tls_context` is not used where `tls` is off."""

    host: str
    port: int
    tls: Tls
    tls_context: ssl.SSLContext | None
    helo: str | None
    username: str | None
    password: str


@dataclass(frozen=True, slots=True)
class Envelope:
    """Of one transaction; addresses in normal form, so that they are ASCII."""

    sender: str
    recipient: str
    envelope_id: str


class Refused(Exception):
    """Certainly not taken: raised before the dot, and never after it."""

    def __init__(self, outcome: Rejected) -> None:
        super().__init__(outcome.code)
        self.outcome = outcome


class Connection:
    """One connection, with at most one transaction at a time. Whatever goes wrong on it cuts it."""

    def __init__(self, client: SMTP) -> None:
        self._client = client
        self.idle_since = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._client.is_connected

    def cut(self) -> None:
        """End the connection at once: what was written and is not sent yet never goes out."""
        if self._client.transport is not None:
            cast("asyncio.Transport", self._client.transport).abort()
        self._client.close()

    async def quit(self) -> None:
        """Take leave, and end the connection. Never raises but CancelledError."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_PARTING_SECONDS):
                await self._client.quit()
        self.cut()

    @classmethod
    async def open(cls, server: Server, deadline: float) -> Connection:
        """A connection that is greeted, encrypted and logged in. Raises Refused."""
        client = SMTP(
            hostname=server.host,
            port=server.port,
            local_hostname=server.helo,
            timeout=None,
            use_tls=server.tls == "implicit",
            start_tls=False,
            tls_context=server.tls_context,
        )
        opened = cls(client)
        with opened._or_cut():
            await opened._greeted(server.tls, deadline)
            if server.username is not None:
                await opened._logged_in(server.username, server.password, deadline)
        return opened

    async def _greeted(self, tls: Tls, deadline: float) -> None:
        client = self._client
        with _refusing("connection"):
            async with asyncio.timeout_at(deadline):
                await client.connect()
                await client.ehlo()
                if tls != "starttls":
                    return
                if client.supports_extension("starttls"):
                    await client.starttls()
                    await client.ehlo()
                    return
        raise Refused(Rejected("noTls", "the server offers no STARTTLS, which is demanded", "unreachable"))

    async def _logged_in(self, username: str, password: str, deadline: float) -> None:
        """Once, by the first way that the server offers: what fails is not tried in other ways, which some servers
        answer by locking the account.
        """
        client = self._client
        ways = {"plain": client.auth_plain, "login": client.auth_login, "cram-md5": client.auth_crammd5}
        way = next((ways[name] for name in ways if name in client.server_auth_methods), None)
        if way is None:
            raise Refused(Rejected("noLogIn", "the server offers no log-in by PLAIN, LOGIN or CRAM-MD5", "account"))
        with _refusing("authentication"):
            async with asyncio.timeout_at(deadline):
                await way(username, password)

    @property
    def most_bytes(self) -> int | None:
        """Of a message, where the server has told (RFC 1870; 0 there means that it has no fixed limit)."""
        told_size = self._client.esmtp_extensions.get("size", "").strip()
        return int(told_size) or None if told_size.isdecimal() else None

    @contextlib.contextmanager
    def _or_cut(self) -> Iterator[None]:
        """What is left by an exception, a cancellation too, leaves no connection behind."""
        try:
            yield
        except BaseException:
            self.cut()
            raise

    async def sender(self, envelope: Envelope, size: int, deadline: float) -> Reply:
        """What the server answers to MAIL. Raises Refused."""
        offered = self._client.supports_extension
        parameters = [f"SIZE={size}"] if offered("size") else []
        if offered("dsn"):
            parameters += ["RET=HDRS", f"ENVID={envelope.envelope_id}"]
        return await self._command(deadline, f"MAIL FROM:<{envelope.sender}>", *parameters)

    async def hand_over(self, envelope: Envelope, raw: bytes, deadline: float) -> Transfer:
        """Everything of the transaction between MAIL and the dot. Raises Refused."""
        notify = ["NOTIFY=FAILURE,DELAY"] if self._client.supports_extension("dsn") else []
        taken("recipient", await self._command(deadline, f"RCPT TO:<{envelope.recipient}>", *notify))
        reply = await self._command(deadline, "DATA")
        if 400 <= reply.code <= 599:
            raise Refused(refusal("data", reply))
        transport = cast("asyncio.Transport | None", self._client.transport)
        if reply.code != 354 or transport is None or transport.is_closing():
            # Another reply is one that answers an earlier command: nothing on this connection can be trusted.
            self.cut()
            raise Refused(_lost(f"DATA was answered with {reply.code}"))
        transfer = Transfer(transport)
        transport.set_protocol(transfer)
        with self._or_cut():
            try:
                async with asyncio.timeout_at(deadline):
                    await transfer.write(_transparent(raw))
            except TimeoutError:
                raise Refused(_TOO_SLOW) from None
        if transfer.is_over:
            self.cut()
            raise Refused(transfer.broken_off)
        return transfer

    async def dot(self, transfer: Transfer) -> Reply:
        """End the message, and wait for the answer. Raises ValueError where it is no reply, and OSError."""
        with self._or_cut():
            reply, alone = await transfer.end()
        protocol, transport = self._client.protocol, cast("asyncio.Transport | None", self._client.transport)
        if not 200 <= reply.code <= 599 or reply.code == 421 or not alone or protocol is None or transport is None:
            self.cut()
        else:
            transport.set_protocol(protocol)
        return reply

    async def reset(self, deadline: float) -> None:
        """Give up the transaction, so that the connection can take another. Never raises but CancelledError."""
        if self.is_open:
            with contextlib.suppress(Refused):
                if (await self._command(deadline, "RSET")).code != 250:
                    self.cut()

    async def _command(self, deadline: float, *words: str) -> Reply:
        """What the server answers. Raises Refused where it answers nothing that can be read."""
        verb = words[0].partition(" ")[0]
        with self._or_cut():
            try:
                async with asyncio.timeout_at(deadline):
                    response = await self._client.execute_command(*(word.encode("ascii") for word in words))
            except TimeoutError:
                raise Refused(_TOO_SLOW) from None
            except Exception as error:  # noqa: BLE001 - whatever it is, the message is not at its end
                raise Refused(_lost(f"{verb} got no answer ({type(error).__name__})")) from None
            if not 200 <= response.code <= 599:
                raise Refused(_lost(f"{verb} was answered with what is no reply of SMTP"))
        return Reply(response.code, response.message)


@contextlib.contextmanager
def _refusing(phase: Phase) -> Iterator[None]:
    """Turns what goes wrong before any mail is named into Refused."""
    try:
        yield
    except TimeoutError:
        detail = "no connection within the time limit"
        raise Refused(Rejected("connectionFailed", detail, "unreachable")) from None
    except SMTPResponseException as error:
        raise Refused(refusal(phase, Reply(error.code, error.message))) from None
    except Exception as error:  # noqa: BLE001 - whatever it is, no mail was named yet
        detail = told(f"no connection ({type(error).__name__}: {error})")
        raise Refused(Rejected("connectionFailed", detail, "unreachable")) from None


def taken(phase: Phase, reply: Reply) -> None:
    """Raise Refused for a reply that is no yes."""
    if not 200 <= reply.code <= 299:
        raise Refused(refusal(phase, reply))


class Transfer(asyncio.Protocol):
    """A connection between DATA's 354 and the answer to the dot.

    It stands in the place of the client library's protocol, which neither waits until what was written is sent nor
    tells a reply that is malformed from one that is not (several codes in one reply, a code and no blank behind it).
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._heard = bytearray()
        self._reply: asyncio.Future[tuple[Reply, bytes]] = asyncio.get_running_loop().create_future()
        self._may_write = asyncio.Event()
        self._may_write.set()

    @property
    def is_over(self) -> bool:
        """Whether the server has said something, or is gone."""
        return self._reply.done() or bool(self._heard) or self._transport.is_closing()

    @property
    def broken_off(self) -> Rejected:
        """Why the message did not come to its end: in the server's words, where it said no in between."""
        if self._reply.done() and self._reply.exception() is None and 400 <= self._reply.result()[0].code <= 599:
            return refusal("message", self._reply.result()[0])
        return _lost("the server ended the connection before the message was at its end")

    async def write(self, message: bytes) -> None:
        """Write the message, no faster than it is sent. Returns early where the transfer is over."""
        for start in range(0, len(message), _CHUNK):
            await self._may_write.wait()
            if self.is_over:
                return
            self._transport.write(message[start : start + _CHUNK])
        await self._may_write.wait()

    async def end(self) -> tuple[Reply, bool]:
        """Write the dot; the server's answer, and whether nothing else came with it."""
        self._transport.write(b".\r\n")
        reply, rest = await self._reply
        return reply, not rest

    # --- asyncio ---

    def pause_writing(self) -> None:
        """As asyncio calls it."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """As asyncio calls it."""
        self._may_write.set()

    def data_received(self, data: bytes) -> None:
        """As asyncio calls it."""
        self._heard += data
        self._may_write.set()  # whoever waits to write finds out that the server has spoken
        if self._reply.done():
            return
        try:
            found = first_reply(bytes(self._heard))
        except ValueError as error:
            self._fail(error)
            return
        if found is not None:
            self._reply.set_result(found)

    def eof_received(self) -> None:
        """As asyncio calls it; the transport closes itself."""
        self._fail(ConnectionResetError("the server closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        """As asyncio calls it."""
        self._fail(exc or ConnectionResetError("the connection was closed"))
        self._may_write.set()

    def _fail(self, error: Exception) -> None:
        if not self._reply.done():
            self._reply.set_exception(error)
            self._reply.exception()  # it is retrieved: nobody may wait for it


def _lost(detail: str) -> Rejected:
    """The connection broke in a transaction, before the dot. That spends the mail's budget: a mail at which a server
    hangs up each time must come to an end.
    """
    return Rejected("connectionLost", detail, "throttle")


def _transparent(raw: bytes) -> bytes:
    """The message as DATA carries it (RFC 5321 §4.5.2): dots doubled, and a line break at its end."""
    message = _LEADING_DOT.sub(b"..", raw)
    return message if message.endswith(b"\r\n") else message + b"\r\n"
