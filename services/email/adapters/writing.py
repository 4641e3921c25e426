"""What each recipient gets, whoever carries it: its own ways out of a list, its bodies, and its MIME."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from services.email.adapters.mime import Attachment, OutgoingMessage, PreparedMime, mailto_url, prepare
from services.email.domain.content import UNSUBSCRIBE_PLACEHOLDER
from services.email.domain.unsubscribe import UnsubscribeClaims, UnsubscribeTokens
from services.email.ports import OutgoingAttempt, OutgoingMail, RecipientKeys
from services.kit.errors import PermanentError

OF_ITS_OWN = 2_000
"""Bytes that a copy may have beside what all recipients share: ids, and the way out of a list."""


class MailWriter:
    """Writes copies; shared by all providers of a process. What all recipients of a mail share is written once and kept
    for as long as the mail lives.
    """

    def __init__(
        self, *, keys: RecipientKeys, tokens: UnsubscribeTokens, public_url: str, unsubscribe_mailto: str | None = None
    ) -> None:
        """`unsubscribe_mailto`: the address whose mail comes back as notifications; None where there is none, and then
        none is offered.
        """
        self._keys, self._tokens = keys, tokens
        self._public_url, self._mailto = public_url.rstrip("/"), unsubscribe_mailto
        self._prepared: WeakKeyDictionary[OutgoingMail, PreparedMime] = WeakKeyDictionary()

    def mime(self, attempt: OutgoingAttempt) -> bytes:
        """The whole message for one attempt. Raises PermanentError `invalid` for what cannot be written."""
        ways_out = self.ways_out(attempt)
        return self._prepare(attempt.mail, ways_out[:1]).for_attempt(attempt.attempt_id, ways_out)

    def ways_out(self, attempt: OutgoingAttempt) -> tuple[str, ...]:
        """The URLs by which the recipient leaves: the one-click page's, and a mail's where mails are read."""
        mail = attempt.mail
        if mail.category != "marketing":
            return ()
        scope = f"list:{mail.list_id}" if mail.list_id else "marketing"
        key = self._keys.key(attempt.recipient)
        claims = UnsubscribeClaims(key, scope, mail.message_id, mail.date.replace(microsecond=0))
        token = self._tokens.issue(claims)
        one_click = f"{self._public_url}/unsubscribe/{token}"
        return (one_click,) if self._mailto is None else (one_click, mailto_url(self._mailto, token))

    def too_large(self, mail: OutgoingMail, most_bytes: int) -> int | None:
        """The size that its MIME has, where that is more than `most_bytes`. It is written for that only where it may
        come near. None too where it cannot be written: `mime` says why.
        """
        content = mail.content
        files = sum(len(data) for _, _, data in mail.files)
        bodies = len(content.html or "") + len(content.text or "")
        if 2 * files + 12 * bodies <= most_bytes // 2:
            return None
        try:
            size = self._prepare(mail, ()).size + OF_ITS_OWN
        except PermanentError:
            return None
        return size if size > most_bytes else None

    def _prepare(self, mail: OutgoingMail, one_click: Sequence[str]) -> PreparedMime:
        own, shared = bodies(mail, one_click), bodies(mail, ())
        if own != shared:
            return _written(mail, *own)  # with its own link in its own body it shares nothing with other copies
        prepared = self._prepared.get(mail)
        if prepared is None:
            prepared = self._prepared[mail] = _written(mail, *shared)
        return prepared


def bodies(mail: OutgoingMail, one_click: Sequence[str]) -> tuple[str | None, str | None]:
    """The html and text of a copy, with its own way out where the bodies have a place for it."""
    # Contents that an earlier version stored may have an empty body beside the other one.
    html, text = mail.content.html or None, mail.content.text or None
    if one_click and UNSUBSCRIBE_PLACEHOLDER in f"{html}{text}":
        html = None if html is None else html.replace(UNSUBSCRIBE_PLACEHOLDER, one_click[0])
        text = None if text is None else text.replace(UNSUBSCRIBE_PLACEHOLDER, one_click[0])
    return html, text


def said_of(size: int, provider: str, most_bytes: int) -> str:
    """For people: the message is too large for this provider."""
    return f"the message has {size} bytes with its attachments in base64; {provider} takes at most {most_bytes}"


def _written(mail: OutgoingMail, html: str | None, text: str | None) -> PreparedMime:
    return prepare(
        OutgoingMessage(
            message_id=mail.message_id,
            from_addr=mail.from_,
            to=mail.to,
            cc=mail.cc,
            reply_to=mail.reply_to,
            subject=mail.subject,
            date=mail.date,
            html=html,
            text=text,
            attachments=tuple(Attachment(*file) for file in mail.files),
        )
    )
