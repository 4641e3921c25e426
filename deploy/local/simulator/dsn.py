"""What mail servers report of mail by SMTP: delivery status notifications (RFC 3464), to the return address.

They are delivered as an operator has them delivered: by a pipe of the mailbox that publishes each mail as it came to
`email.notifications`.
"""

import asyncio
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from email.message import Message
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.mime.text import MIMEText
from email.utils import format_datetime, make_msgid

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from deploy.local.simulator import behaviours, faults
from deploy.local.simulator.events import timestamp
from deploy.local.simulator.faults import Faults
from deploy.local.simulator.journal import Journal

TOPIC, HEADERS = "email.notifications", [("source", b"smtp")]
OPERATION = "SmtpDot"
HOST_NAME = "mx.simulator.example"

_RETRY_SECONDS = 1.0
Told = tuple[str, str, str]
"""The action and the status of RFC 3464 §2.3, and the remote server's words."""

_TOLD: dict[tuple[str, str], Told] = {
    ("Bounce", "permanent"): ("failed", "5.1.1", "550 5.1.1 user unknown"),
    ("Bounce", "transient"): ("failed", "4.2.2", "452 4.2.2 mailbox full"),
    ("Bounce", "undetermined"): ("failed", "5.0.0", "550 5.0.0 something went wrong"),
    ("DeliveryDelay", ""): ("delayed", "4.4.1", "421 4.4.1 unable to connect"),
}
"""What becomes of a mail → what is told of it. All else is told by nobody."""

_NOTIFY = {"failed": "FAILURE", "delayed": "DELAY"}


def reported(sender: str, recipients: Sequence[str], parameters: Sequence[str]) -> list[tuple[str, str, Told]]:
    """Of which recipients a server reports, each with what happens there: nothing without a return address, and only
    what NOTIFY asks for (RFC 3461 §4.1; without it, failures).
    """
    wanted = next((each.upper() for each in parameters if each.upper().startswith("NOTIFY=")), "NOTIFY=FAILURE")
    return [
        (step.kind, recipient, told)
        for recipient in (recipients if sender else ())
        for step in behaviours.steps(recipient)
        if (told := _TOLD.get((step.kind, step.variant))) is not None and _NOTIFY[told[0]] in wanted
    ]


def report(told: Told, sender: str, recipient: str, parameters: Sequence[str], raw: bytes) -> bytes:
    """A report about one recipient of a mail.

    Args:
        told: what happened.
        sender: the return address that it goes to.
        parameters: of MAIL and RCPT (RFC 3461): ENVID and ORCPT come back.
        raw: the mail; its header comes back.
    """
    action, status, said = told
    now = datetime.now(UTC)
    given = {name.upper(): value for name, _, value in (each.partition("=") for each in parameters)}
    whole = MIMEMultipart("report", report_type="delivery-status")
    whole["From"] = f"Mail Delivery Subsystem <mailer-daemon@{HOST_NAME}>"
    whole["To"] = sender
    whole["Subject"] = "Delivery Status Notification"
    whole["Date"] = format_datetime(now)
    whole["Message-ID"] = make_msgid(domain=HOST_NAME)
    whole["Auto-Submitted"] = "auto-replied"
    whole.attach(MIMEText(f"Your mail to {recipient} was {action}: {said}\n"))
    of_message, of_recipient = Message(), Message()
    if "ENVID" in given:
        of_message["Original-Envelope-Id"] = given["ENVID"]
    of_message["Reporting-MTA"] = f"dns; {HOST_NAME}"
    if "ORCPT" in given:
        of_recipient["Original-Recipient"] = given["ORCPT"]
    of_recipient["Final-Recipient"] = f"rfc822; {recipient}"
    of_recipient["Action"] = action
    of_recipient["Status"] = status
    of_recipient["Diagnostic-Code"] = f"smtp; {said}"
    of_recipient["Last-Attempt-Date"] = format_datetime(now)
    machine = MIMENonMultipart("message", "delivery-status")
    machine.set_payload([of_message, of_recipient])
    whole.attach(machine)
    header = MIMENonMultipart("text", "rfc822-headers")
    header.set_payload(raw.partition(b"\r\n\r\n")[0].decode("ascii", "replace"))
    whole.attach(header)
    return whole.as_bytes()


class Bounces:
    """Publishes reports until `stop`; Kafka is looked for at the first one. What it took is in the journal, a line
    each, duplicates included. `pending`: how many are planned and not there yet; `published`: how many are.
    """

    def __init__(self, bootstrap: str, rules: Faults, journal: Journal) -> None:
        self.pending = self.published = 0
        self._bootstrap, self._faults, self._journal = bootstrap, rules, journal
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def accepted(
        self, queue_id: str, sender: str, recipients: Sequence[str], parameters: Sequence[str], raw: bytes
    ) -> None:
        """Plan what is to be reported of a mail that was just accepted."""
        for kind, recipient, told in reported(sender, recipients, parameters):
            self._plan(kind, queue_id, recipient, report(told, sender, recipient, parameters, raw))

    async def stop(self) -> None:
        """Drop what is pending, and leave Kafka."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._producer is not None:
            await self._producer.stop()

    def _plan(self, kind: str, queue_id: str, recipient: str, mail: bytes) -> None:
        if self._faults.draw(faults.SILENT, OPERATION, (recipient,)):
            return
        doubled = self._faults.draw(faults.DUPLICATE, OPERATION, (recipient,))
        late = self._faults.draw(faults.LATE, OPERATION, (recipient,))
        marks = [fault.kind for fault in (doubled, late) if fault is not None]
        note = {"provider": "smtp", "eventType": kind, "providerMessageId": queue_id, "recipient": recipient}
        for _ in range(doubled.copies if doubled else 1):
            wait = 0.0
            if late is not None:
                wait = late.ms / 1000 if late.kind == "delay" else self._faults.uniform(late.ms / 1000)
            self.pending += 1
            task = asyncio.create_task(self._publish(wait, mail, {**note, "faults": marks}))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _publish(self, wait: float, mail: bytes, note: dict[str, object]) -> None:
        await asyncio.sleep(wait)
        failures = 0
        while True:
            try:
                await (await self._connected()).send_and_wait(TOPIC, mail, headers=HEADERS)
                break
            except (KafkaError, OSError) as error:
                failures += 1
                if failures == 1:
                    print(f"simulator: a bounce cannot be published yet: {error}", file=sys.stderr, flush=True)
                await asyncio.sleep(_RETRY_SECONDS)
        self.pending -= 1
        self.published += 1
        self._journal.write([orjson.dumps({"at": timestamp(datetime.now(UTC)), **note})])

    async def _connected(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all")
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer
