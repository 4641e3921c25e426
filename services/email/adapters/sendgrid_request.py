"""The JSON of SendGrid's `POST /v3/mail/send` for one attempt: SendGrid writes the message itself, of these parts.

Source: twilio/sendgrid-oai `tsg_mail_v3.yaml`, and the list of errors in SendGrid's documentation. What differs from
the MIME that other providers get: To shows the recipient alone, and nothing shows the other addresses. The type of an
attachment has no parameters, and its name is ASCII, since SendGrid refuses the one and garbles the other.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from services.email.adapters.mime import ONE_CLICK, list_unsubscribe, media_type
from services.email.adapters.mime_headers import in_ascii, name_and_address, refuse_controls, safe_id
from services.email.adapters.writing import MailWriter, bodies
from services.email.domain.correlation import (
    ATTEMPT_HEADER,
    ATTEMPT_VARIABLE,
    MESSAGE_HEADER,
    MESSAGE_VARIABLE,
)
from services.email.ports import OutgoingAttempt, OutgoingMail
from services.kit.errors import PermanentError

OF_ITS_OWN = 4_000
"""Bytes that a request may have beside what all recipients share: its address, ids, and the ways out of a list."""

_MOST_ESCAPED = 6
"""Bytes of JSON that one character may take (`\\u0007`)."""

_FOR_FILENAMES = str.maketrans(";,", "__")
"""SendGrid refuses both in the name of an attachment."""


class SendGridWriter:
    """Writes requests. What all recipients of a mail share is written once and kept for as long as the mail lives."""

    def __init__(self, writer: MailWriter, *, track_opens: bool, track_clicks: bool) -> None:
        """Tracking is said in every request: what the account is set to would rewrite links otherwise."""
        self._writer = writer
        self._tracking = {
            "click_tracking": {"enable": track_clicks, "enable_text": False},
            "open_tracking": {"enable": track_opens},
            "subscription_tracking": {"enable": False},
            "ganalytics": {"enable": False},
        }
        self._prepared: WeakKeyDictionary[OutgoingMail, bytes] = WeakKeyDictionary()

    def request(self, attempt: OutgoingAttempt) -> bytes:
        """The whole body for one attempt. Raises PermanentError `invalid` for what cannot be written."""
        mail = attempt.mail
        ways_out = self._writer.ways_out(attempt)
        message_id, attempt_id = safe_id(mail.message_id, "a message id"), safe_id(attempt.attempt_id, "an attempt id")
        headers = {MESSAGE_HEADER: message_id, ATTEMPT_HEADER: attempt_id}
        if ways_out:
            headers |= {"List-Unsubscribe": list_unsubscribe(ways_out), "List-Unsubscribe-Post": ONE_CLICK}
        own = {
            "to": [self._recipient(attempt)],
            "headers": headers,
            "custom_args": {MESSAGE_VARIABLE: message_id, ATTEMPT_VARIABLE: attempt_id},
        }
        return b'{"personalizations":[' + orjson.dumps(own) + b"]," + self._shared(mail, ways_out[:1])[1:]

    def too_large(self, mail: OutgoingMail, most_bytes: int) -> int | None:
        """The size that its requests have, where that is more than `most_bytes`. It is written for that only where it
        may come near. None too where it cannot be written: `request` says why.
        """
        files = sum(len(data) for _, _, data in mail.files)
        text = len(mail.content.html or "") + len(mail.content.text or "")
        if 2 * files + _MOST_ESCAPED * text <= most_bytes // 2:
            return None
        try:
            size = len(self._shared(mail, ())) + OF_ITS_OWN
        except PermanentError:
            return None
        return size if size > most_bytes else None

    @staticmethod
    def _recipient(attempt: OutgoingAttempt) -> dict[str, str]:
        """With the display name that To or Cc gives this address."""
        _, address = name_and_address(attempt.recipient, "the recipient")
        for each in (*attempt.mail.to, *attempt.mail.cc):
            name, known = name_and_address(each, "to or cc")
            if name and known == address:
                return {"email": address, "name": name}
        return {"email": address}

    def _shared(self, mail: OutgoingMail, one_click: Sequence[str]) -> bytes:
        own, shared = bodies(mail, one_click), bodies(mail, ())
        if own != shared:
            return self._written(mail, *own)
        prepared = self._prepared.get(mail)
        if prepared is None:
            prepared = self._prepared[mail] = self._written(mail, *shared)
        return prepared

    def _written(self, mail: OutgoingMail, html: str | None, text: str | None) -> bytes:
        if html is None and text is None:
            raise PermanentError("invalid", "a message needs html or text")
        parts: dict[str, Any] = {
            "from": _mailbox(mail.from_, "from"),
            "subject": refuse_controls(mail.subject, "subject"),
            # text/plain must come first: SendGrid refuses another order.
            "content": [
                {"type": kind, "value": value}
                for kind, value in (("text/plain", text), ("text/html", html))
                if value is not None
            ],
            "categories": [mail.category],
            "tracking_settings": self._tracking,
        }
        if mail.reply_to is not None:
            parts["reply_to"] = _mailbox(mail.reply_to, "replyTo")
        if mail.files:
            parts["attachments"] = [_attachment(*file) for file in mail.files]
        try:
            return orjson.dumps(parts)
        except TypeError:
            raise PermanentError("invalid", "a body holds half a surrogate pair, which is no text") from None


def _mailbox(value: str, what: str) -> dict[str, str]:
    name, address = name_and_address(value, what)
    return {"email": address, "name": name} if name else {"email": address}


def _attachment(filename: str, content_type: str, data: bytes) -> dict[str, str]:
    refuse_controls(filename, "an attachment's filename")
    if not filename:
        raise PermanentError("invalid", "an attachment needs a filename")
    named = filename if filename.isascii() else in_ascii(filename)
    return {
        "content": b64encode(data).decode("ascii"),
        "type": media_type(content_type).essence,
        "filename": named.translate(_FOR_FILENAMES),
        "disposition": "attachment",
    }
