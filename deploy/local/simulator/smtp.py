"""An SMTP server as a client meets one, with faults at every phase: greeting, AUTH, MAIL, RCPT, DATA, the dot.

A server of our own and not aiosmtpd's, since faults of the greeting, of DATA's 354 and of the bytes of a reply are what
it is for, and aiosmtpd lets a handler choose none of these. Tests hold the adapter against aiosmtpd's as well.
"""

import asyncio
import contextlib
import re
import secrets
import socket
import ssl
import struct
import sys
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import orjson
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from deploy.local.simulator import faults, mime
from deploy.local.simulator.dsn import Bounces
from deploy.local.simulator.errors import SesError
from deploy.local.simulator.events import timestamp
from deploy.local.simulator.faults import Fault, Faults
from deploy.local.simulator.journal import Journal
from deploy.local.simulator.mailbox import Kept, Mailbox
from deploy.local.simulator.submission import Submission

MOST_BYTES = 40 * 1024 * 1024
HOST_NAMES = ("localhost", "simulator")

_PATH = re.compile(r"(?:FROM|TO):<([^>]*)>((?: [!-~]+)*)", re.IGNORECASE)
_RESET = struct.pack("ii", 1, 0)
_TAGS = {"mailroom-message-id": "x-mailroom-message-id", "mailroom-attempt-id": "x-mailroom-attempt-id"}


class Gone(Exception):
    """The connection is at its end."""


@dataclass
class _Session:
    """What one connection has said so far. `sender` is None outside a transaction."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    tls: bool = False
    user: str | None = None
    sender: str | None = None
    recipients: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)

    def forget(self) -> None:
        self.sender = None
        self.recipients, self.parameters = [], []


class SmtpServer:
    """Takes mail by SMTP into the same journal and mailbox as the other APIs. What bounces is reported where there are
    `bounces`. `connections` and `accepted` count those so far.

    It offers STARTTLS with a certificate made at its start (`certificate`, a PEM file that clients may trust), AUTH
    with any password after it, SIZE and DSN. Entries of the journal have `provider` `smtp` and
    `envelope`: the sender, all parameters of MAIL and RCPT, and whether TLS was on.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        folder: Path,
        rules: Faults,
        acceptances: Journal,
        mailbox: Mailbox,
        bounces: Bounces | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self.host, self.port, self._most_bytes = host, port, most_bytes
        self.accepted = self.connections = 0
        self.certificate = folder / "smtp.pem"
        self._context = _self_signed(self.certificate)
        self._faults, self._acceptances, self._mailbox = rules, acceptances, mailbox
        self._bounces = bounces
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._tasks)

    async def start(self) -> None:
        """Listen; `port` is the one that was picked then. Raises OSError when it is taken."""
        self._listener = await asyncio.start_server(self._serve, self.host, self.port, limit=2 * MOST_BYTES)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Take no more connections and end those that there are."""
        if self._listener is not None:
            self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine that runs has one
        self._tasks.add(task)
        self.connections += 1
        session = _Session(reader, writer)
        try:
            if await self._goes_on(session, "SmtpConnect"):
                await _say(session, "220 simulator ESMTP")
            while await self._command(session):
                pass
        except (Gone, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except Exception:  # noqa: BLE001 - one broken connection must not end the others
            traceback.print_exc(file=sys.stderr)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _command(self, session: _Session) -> bool:
        line = (await session.reader.readuntil(b"\n")).decode("utf-8", "replace").strip()
        verb, _, rest = line.partition(" ")
        match verb.upper():
            case "EHLO" | "HELO":
                session.forget()
                await _say(session, *self._greeting(session))
            case "STARTTLS" if not session.tls:
                await _say(session, "220 2.0.0 go ahead")
                await session.writer.start_tls(self._context)
                session.tls = True
                session.forget()
            case "AUTH" if session.tls:
                await self._auth(session, rest)
            case "MAIL":
                await self._mail(session, rest)
            case "RCPT" if session.sender is not None:
                await self._rcpt(session, rest)
            case "DATA" if session.recipients:
                await self._data(session)
            case "RSET":
                session.forget()
                await _say(session, "250 2.0.0 ok")
            case "NOOP":
                await _say(session, "250 2.0.0 ok")
            case "QUIT":
                await _say(session, "221 2.0.0 bye")
                return False
            case "RCPT" | "DATA":
                await _say(session, "503 5.5.1 bad sequence of commands")
            case _:
                await _say(session, "502 5.5.1 no such command")
        return True

    def _greeting(self, session: _Session) -> list[str]:
        offered = [f"SIZE {self._most_bytes}", "8BITMIME", "ENHANCEDSTATUSCODES", "DSN"]
        offered.append("AUTH PLAIN LOGIN" if session.tls else "STARTTLS")
        return ["250-simulator", *(f"250-{each}" for each in offered[:-1]), f"250 {offered[-1]}"]

    async def _auth(self, session: _Session, rest: str) -> None:
        if not await self._goes_on(session, "SmtpAuth"):
            return
        if rest.upper().startswith("LOGIN"):
            await _say(session, "334 UGFzc3dvcmQ6")
            await session.reader.readuntil(b"\n")
        session.user = rest
        await _say(session, "235 2.7.0 welcome")

    async def _mail(self, session: _Session, rest: str) -> None:
        if not await self._goes_on(session, "SmtpMail"):
            return
        found = _PATH.fullmatch(rest)
        if found is None or session.sender is not None:
            await _say(session, "501 5.5.4 what sender?" if found is None else "503 5.5.1 a transaction is under way")
            return
        parameters = found[2].split()
        size = next((each.partition("=")[2] for each in parameters if each.upper().startswith("SIZE=")), "0")
        if not size.isdecimal() or int(size) > self._most_bytes:
            await _say(session, "552 5.3.4 too large")
            return
        session.sender, session.parameters = found[1], parameters
        await _say(session, "250 2.1.0 ok")

    async def _rcpt(self, session: _Session, rest: str) -> None:
        found = _PATH.fullmatch(rest)
        if not await self._goes_on(session, "SmtpRcpt", found[1] if found else ""):
            return
        if found is None or "@" not in found[1]:
            await _say(session, "501 5.1.3 what recipient?")
            return
        session.recipients.append(found[1])
        session.parameters += found[2].split()
        await _say(session, "250 2.1.5 ok")

    async def _data(self, session: _Session) -> None:
        if not await self._goes_on(session, "SmtpData", *session.recipients):
            return
        await _say(session, "354 end with a dot")
        raw = await session.reader.readuntil(b"\r\n.\r\n")
        # From here on the client may be gone, and what it sent is taken all the same.
        if not await self._goes_on(session, "SmtpDot", *session.recipients):
            session.forget()
            return
        try:
            parsed = mime.parse(re.sub(rb"(?m)^\.", b"", raw[:-3]))
        except SesError as error:
            session.forget()
            await _say(session, f"554 5.6.0 {error}")
            return
        draw = self._faults.draw
        fault = draw(faults.SMTP_ANSWER, "SmtpDot", session.recipients)
        slow = draw(faults.SLOW_ANSWER, "SmtpDot", session.recipients)
        planned = fault or slow
        queue_id = await self._accept(session, raw[:-3], parsed, planned.kind if planned else "ok")
        session.forget()
        if slow is not None:
            await asyncio.sleep(slow.ms / 1000)
        if fault is None:
            await _say(session, f"250 2.0.0 ok: queued as {queue_id}")
        elif fault.kind == "acceptThenDrop":
            _drop(session)
        else:
            await _say(session, fault.message)

    async def _accept(self, session: _Session, stuffed: bytes, parsed: mime.Parsed, answered: str) -> str:
        now = datetime.now(UTC)
        raw = re.sub(rb"(?m)^\.", b"", stuffed)
        queue_id = secrets.token_hex(8).upper()
        tags = {tag: value for tag, header in _TAGS.items() if (value := parsed.first(header))}
        submission = Submission(parsed.first("from") or "", tuple(session.recipients), None, tags, raw, parsed)
        entry = {
            "providerMessageId": queue_id,
            "at": timestamp(now),
            "source": submission.source,
            "destination": submission.destination,
            "tags": tags,
            "configurationSet": None,
            "size": len(raw),
            "answered": answered,
            "provider": "smtp",
            "envelope": {
                "sender": session.sender,
                "parameters": session.parameters,
                "tls": session.tls,
                "loggedIn": session.user is not None,
            },
        }
        await self._acceptances.append(orjson.dumps(entry))
        self.accepted += 1
        self._mailbox.keep(Kept(queue_id, now, submission))
        if self._bounces is not None:
            self._bounces.accepted(queue_id, session.sender or "", session.recipients, session.parameters, raw)
        return queue_id

    async def _goes_on(self, session: _Session, operation: str, *addresses: str) -> bool:
        """Suffer the faults of a phase; False where one of them has answered. Raises Gone."""
        if slow := self._faults.draw(faults.SLOW, operation, addresses):
            await asyncio.sleep(slow.ms / 1000)
        kinds = faults.SMTP if operation == "SmtpDot" else faults.SMTP | faults.SMTP_ANSWER
        fault = self._faults.draw(kinds, operation, addresses)
        if fault is None:
            return True
        if fault.kind in ("dropBeforeAccept", "acceptThenDrop"):
            _drop(session)
        await _say(session, _reply(fault))
        if fault.status == 421:
            raise Gone
        return False


def _reply(fault: Fault) -> str:
    return fault.message if fault.kind == "malformedReply" else f"{fault.status or 550} {fault.message}"


async def _say(session: _Session, *lines: str) -> None:
    session.writer.write("".join(f"{line}\r\n" for line in lines).encode())
    with contextlib.suppress(ConnectionError):  # the client has gone; what follows finds out
        await session.writer.drain()


def _drop(session: _Session) -> None:
    """End the connection with a TCP reset. Raises Gone."""
    sock = session.writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    session.writer.transport.abort()
    raise Gone


def _self_signed(path: Path) -> ssl.SSLContext:
    """A context with a new certificate for this machine's names, which is written to `path` with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Mailroom's simulator")])
    now = datetime.now(UTC)
    names = [x509.DNSName(each) for each in HOST_NAMES]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([*names, x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.touch(mode=0o600)
    path.write_bytes(certificate.public_bytes(pem) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
