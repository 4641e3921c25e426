"""SendGrid behind the `MailProvider` port, from its documentation, not tried live: one recipient, one call, no retries.

SendGrid knows no idempotency key. A 202 is its only acceptance. It refuses with JSON that has `errors`; a 4xx without
them may come from something on the way after SendGrid had the request. Sources: twilio/sendgrid-oai `tsg_mail_v3.yaml`
for statuses; the list of errors in SendGrid's documentation for the fields that they name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx

from services.email.adapters.http_outcomes import REFUSED_ON_THE_WAY, bounded_wait, json_of, post
from services.email.adapters.sendgrid_request import SendGridWriter
from services.email.adapters.writing import MailWriter, said_of
from services.email.domain.capabilities import Capabilities, unfit
from services.email.domain.outcomes import Accepted, Cost, Rejected, Unknown, for_people
from services.email.ports import OutgoingAttempt, OutgoingMail, PriceTable, Quota
from services.kit.errors import PermanentError

NAME = "sendgrid"
URL = "https://api.sendgrid.com"
"""For the subusers of its EU region `https://api.eu.sendgrid.com`."""

MOST_BYTES = 30_000_000
"""Of a request, attachments in base64."""

ACCOUNT_STATUSES = frozenset({401, 403, 404, 405, 406})
"""Credentials, rights, a block after bad calls, no credits left, or a URL that is none of its API."""

ACCOUNT_FIELDS = frozenset({"asm", "ip_pool_name", "mail_settings", "tracking_settings"})
"""Fields of a request that say what the account has, and nothing about a mail."""

_FIELD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,100}")
_POSITION = re.compile(r"\.\d+|\[\d+\]")
"""Within a field: `personalizations.0.to` tells nothing by its number."""

_EPOCH = re.compile(r"[0-9]{1,12}")

_SENDER = "verified sender identity"
"""In what SendGrid says of a sender that it takes nothing from, whatever the mail."""


class SendGridProvider:
    """One SendGrid account. `client` is an entered `http_client`, which never retries."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        api_key: str,
        rate: float,
        prices: PriceTable,
        writer: MailWriter,
        now: Callable[[], datetime],
        url: str = URL,
        most_bytes: int = MOST_BYTES,
        track_opens: bool = False,
        track_clicks: bool = False,
    ) -> None:
        """`rate`: recipients a second that the account may send; there is no API that says. `most_bytes`: of a request.
        `track_opens`, `track_clicks`: whether SendGrid adds its picture, and rewrites links to its own.
        """
        self._client, self._prices, self._now, self._rate = client, prices, now, rate
        self._writer = SendGridWriter(writer, track_opens=track_opens, track_clicks=track_clicks)
        self._url = f"{url.rstrip('/')}/v3/mail/send"
        self._headers = {"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"}
        self.capabilities = Capabilities(
            "structured", most_bytes, shows_others=False, unicode_sender=False, not_in_names=";,"
        )

    @property
    def name(self) -> str:
        """`sendgrid`."""
        return NAME

    async def send(self, attempt: OutgoingAttempt) -> Accepted | Rejected | Unknown:
        """One `POST /v3/mail/send` to a single recipient; see the port for what is promised."""
        why_not = _unfit(self.capabilities, attempt.mail)
        if why_not is not None:
            return Rejected("invalid", why_not, "mail")
        try:
            body = self._writer.request(attempt)
            # Before the call: a mail that is taken is never unknown.
            cost = self.estimate_cost(attempt.mail.attachment_bytes, self._now())
        except PermanentError as error:
            return Rejected(error.reason, str(error), "mail" if error.reason == "invalid" else "account")
        if len(body) > self.capabilities.most_bytes:
            return Rejected("invalid", said_of(len(body), "SendGrid", self.capabilities.most_bytes), "mail")
        answer = await post(self._client, self._url, provider="SendGrid", headers=self._headers, content=body)
        if not isinstance(answer, httpx.Response):
            return answer
        if answer.status_code != 202:
            return refusal_of(answer, self._now())
        message_id = answer.headers.get("X-Message-Id", "").strip()
        if not message_id:
            return Unknown("SendGrid answered 202 without X-Message-Id")
        return Accepted(message_id, len(body), cost)

    def cannot_carry(self, mail: OutgoingMail) -> str | None:
        """By who writes to whom, by its attachments, and by the size of its request; see the port."""
        why_not = _unfit(self.capabilities, mail)
        if why_not is not None:
            return why_not
        size = self._writer.too_large(mail, self.capabilities.most_bytes)
        return None if size is None else said_of(size, "SendGrid", self.capabilities.most_bytes)

    async def quota(self) -> Quota:
        """The rate that was given; SendGrid bills what goes beyond a plan instead of refusing it."""
        return Quota(self._rate, -1.0, 0.0)

    def estimate_cost(self, attachment_bytes: int, at: datetime) -> Cost:
        """By the price table in force at `at`."""
        return self._prices.cost(NAME, attachment_bytes, at)


def refusal_of(answer: httpx.Response, now: datetime) -> Rejected | Unknown:
    """What an answer other than 202 says about the mail: certainly not taken, or nobody knows."""
    status, errors = answer.status_code, _errors(answer)
    code, detail = f"http{status}", for_people("; ".join(str(each.get("message", "")) for each in errors or ()))
    if status == 200 and not answer.content.strip():
        return Rejected("sandboxMode", "SendGrid is in its sandbox: it checks mail and sends none", "account")
    if status == 429:
        return Rejected(code, detail, "throttle", _retry_after(answer, now))
    if not 400 <= status < 500:
        return Unknown(f"SendGrid answered {status}")
    if status == 413:  # RFC 9110 §15.5.14: whoever says so refuses to process the request
        return Rejected(code, detail, "mail")
    if errors is None:
        if status == 401:  # RFC 9110 §15.5.2: the request was not applied
            return Rejected(code, detail, "account")
        if status in REFUSED_ON_THE_WAY:
            return Rejected(code, detail, "unreachable")
        return Unknown(f"{status}, and not from SendGrid")
    if status in ACCOUNT_STATUSES:
        return Rejected(code, detail, "account")
    if status != 400:
        return Rejected(code, detail, "throttle", unlisted=True)
    return _bad_request(errors, detail)


def _bad_request(errors: list[dict[str, Any]], detail: str) -> Rejected:
    """A 400. Only one that names a field is about this mail: `{"field": null, "message": "Bad Request"}` may as well be
    what every request of ours gets.
    """
    fields = [str(each["field"]) for each in errors if each.get("field")]
    code = _POSITION.sub("", fields[0]) if fields and _FIELD.fullmatch(fields[0]) else "http400"
    if any(field.partition(".")[0] in ACCOUNT_FIELDS for field in fields) or _SENDER in detail.lower():
        return Rejected(code, detail, "account")
    if not fields:
        return Rejected(code, detail, "throttle", unlisted=True)
    return Rejected(code, detail, "mail")


def _errors(answer: httpx.Response) -> list[dict[str, Any]] | None:
    """SendGrid's own list of what is wrong; None where the answer is not SendGrid's."""
    said = json_of(answer)
    errors = said.get("errors") if isinstance(said, dict) else None
    if not isinstance(errors, list) or not all(isinstance(each, dict) for each in errors):
        return None
    return errors


def _retry_after(answer: httpx.Response, now: datetime) -> float | None:
    """SendGrid says when its counter begins again, in seconds since the epoch, and has no Retry-After."""
    reset = answer.headers.get("X-RateLimit-Reset", "")
    return bounded_wait(int(reset) - now.timestamp()) if _EPOCH.fullmatch(reset) else None


def _unfit(can: Capabilities, mail: OutgoingMail) -> str | None:
    others = (*mail.to, *mail.cc, *((mail.reply_to,) if mail.reply_to else ()))
    if any(not data for _, _, data in mail.files):
        return "an attachment has no bytes, which SendGrid refuses"
    return unfit(can, mail.from_, others)
