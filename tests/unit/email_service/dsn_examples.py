"""Reports in the forms of three mail servers, for tests; written by us after RFC 3464 and each server's habits."""

from __future__ import annotations

MESSAGE_ID = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b"
ATTEMPT_ID = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0c"
RECIPIENT = "jane@example.com"

RETURNED = f"""\
From: Mailroom <no-reply@mailroom.example>
To: {RECIPIENT}
Subject: =?utf-8?b?R3LDvMOfZQ==?=
X-Mailroom-Message-Id: {MESSAGE_ID}
Message-ID: <{ATTEMPT_ID}@mailroom.example>
X-Mailroom-Attempt-Id: {ATTEMPT_ID}
"""

STATUS_OF_POSTFIX = """\
Reporting-MTA: dns; relay.mailroom.example
Original-Envelope-Id: {envelope_id}
X-Postfix-Queue-ID: 4FvT3K2xZz9
X-Postfix-Sender: rfc822; no-reply@mailroom.example
Arrival-Date: Tue, 24 Nov 2026 10:00:00 +0000 (UTC)

Final-Recipient: rfc822; {recipient}
Original-Recipient: rfc822;{recipient}
Action: {action}
Status: {status}
Remote-MTA: dns; mx.example.com
Diagnostic-Code: smtp; {diagnostic}
"""

STATUS_OF_EXIM = """\
Reporting-MTA: dns; relay.mailroom.example

Action: failed
Final-Recipient: rfc822;{recipient}
Status: 5.0.0
Remote-MTA: dns; mx.example.com
Diagnostic-Code: smtp; 550 5.1.1 mailbox does not exist
"""

STATUS_OF_EXCHANGE = """\
Reporting-MTA: dns;mbx01.corp.example
Received-From-MTA: dns;relay.mailroom.example
Arrival-Date: Tue, 24 Nov 2026 10:00:01 +0000

Final-Recipient: rfc822;{recipient}
Action: failed
Status: 5.1.10
Diagnostic-Code: smtp;550 5.1.10 RESOLVER.ADR.RecipientNotFound; not found by SMTP address lookup
X-Display-Name: Jane
"""


def report(
    status: str, *, to: str = "no-reply@mailroom.example", returned: str | None = RETURNED, **head: str
) -> bytes:
    """A `multipart/report` around a status. `returned`: the header that came back; `head`: its own fields."""
    fields = {
        "Date": "Tue, 24 Nov 2026 11:00:02 +0100 (CET)",
        "From": "MAILER-DAEMON@relay.mailroom.example (Mail Delivery System)",
        "To": to,
        "Subject": "Undelivered Mail Returned to Sender",
        "Message-Id": "<20261124100002.4FvT3K2xZz9@relay.mailroom.example>",
        **{name.replace("_", "-"): value for name, value in head.items()},
    }
    parts = [("text/plain; charset=utf-8", "Your mail could not be delivered.\n"), ("message/delivery-status", status)]
    if returned is not None:
        parts.append(("text/rfc822-headers", returned))
    boundary = "=_report"
    body = "".join(f"--{boundary}\nContent-Type: {kind}\n\n{text}\n" for kind, text in parts)
    kind = f'Content-Type: multipart/report; report-type=delivery-status; boundary="{boundary}"'
    listed = "".join(f"{name}: {value}\n" for name, value in fields.items() if value)
    return f"{listed}MIME-Version: 1.0\n{kind}\n\n{body}--{boundary}--\n".replace("\n", "\r\n").encode()


def postfix(
    action: str = "failed",
    status: str = "5.1.1",
    diagnostic: str = "550 5.1.1 user unknown",
    *,
    recipient: str = RECIPIENT,
    envelope_id: str = f"{MESSAGE_ID}.{ATTEMPT_ID}",
    more: str = "",
    **other: str | None,
) -> bytes:
    """As Postfix writes it; `more`: further fields of the recipient, or further recipients."""
    text = STATUS_OF_POSTFIX.format(
        recipient=recipient, action=action, status=status, diagnostic=diagnostic, envelope_id=envelope_id
    )
    if not envelope_id:
        text = text.replace("Original-Envelope-Id: \n", "")
    return report(text + more, **other)  # type: ignore[arg-type]
