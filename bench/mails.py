"""The mail that every contender sends: one recipient, html and text of an ordinary notification, some 4 kB of MIME."""

from datetime import UTC, datetime

from contracts.email.commands import SendEmail
from contracts.envelope import CommandEnvelope
from contracts.ids import uuid7
from deploy.processes import FROM_ADDRESS
from services.email.adapters.mime import OutgoingMessage, build_raw

SUBJECT = "Your case has a new document"
_SENTENCE = "A new document was added to your case and is waiting for you in the portal: read and sign it there. "
TEXT = "Hello,\n\n" + "\n".join(f"{number}. {_SENTENCE}" for number in range(1, 7)) + "\n\nYour team\n"
HTML = (
    "<!doctype html><html><body style='font-family:sans-serif'><h1>A new document</h1>"
    + "".join(f"<p style='margin:0 0 12px'>{number}. {_SENTENCE}</p>" for number in range(1, 13))
    + "<p><a href='https://portal.mailroom.example/documents'>Open the portal</a></p></body></html>"
)
CATEGORY = "notification"


def recipient(number: int) -> str:
    """An address to which the simulator delivers."""
    return f"person{number}@bench.example"


def command(number: int, message_id: str, priority: str = "normal") -> bytes:
    """An `email.send` as an upstream service would publish it."""
    data = SendEmail.model_validate(
        {
            "messageId": message_id,
            "to": [recipient(number)],
            "subject": SUBJECT,
            "html": HTML,
            "text": TEXT,
            "category": CATEGORY,
            "priority": priority,
            "userId": f"user-{number % 100}",
        }
    )
    now = datetime.now(UTC)
    return CommandEnvelope(
        id=uuid7(), source="/bench", type="email.send", subject=message_id, time=now, data=data
    ).to_bytes()


def raw() -> bytes:
    """The MIME that the provider gets, as long as Mailroom's own."""
    return build_raw(
        OutgoingMessage(
            message_id=uuid7(),
            attempt_id=uuid7(),
            from_addr=FROM_ADDRESS,
            to=(recipient(1),),
            reply_to="support@mailroom.example",
            subject=SUBJECT,
            date=datetime.now(UTC),
            html=HTML,
            text=TEXT,
        )
    )
