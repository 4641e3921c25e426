"""Mailgun behind the `MailProvider` port, from its documentation, not tried live: one recipient, one call, no retries.

`messages.mime` takes our bytes; `to` is the envelope. Mailgun knows no idempotency key. Sources: mailgun/documentation
`api-sending.rst`, "Error codes"; mailgun-mcp-server `openapi.yaml`; anymail/django-anymail for the 200 of a wrong path.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import httpx

from services.email.adapters.http_outcomes import REFUSED_ON_THE_WAY, bounded_wait, json_of, post
from services.email.adapters.writing import MailWriter, said_of
from services.email.domain.capabilities import Capabilities
from services.email.domain.correlation import ATTEMPT_VARIABLE, MESSAGE_VARIABLE
from services.email.domain.outcomes import Accepted, Cost, Rejected, Unknown, for_people
from services.email.ports import OutgoingAttempt, OutgoingMail, PriceTable, Quota
from services.kit.errors import PermanentError

NAME = "mailgun"
URL = "https://api.mailgun.net"
"""For domains of its EU region `https://api.eu.mailgun.net`; the other region answers 404."""

MOST_BYTES = 25_000_000
"""Of a message, attachments in base64, as documented; its refusals speak of 52.4 MiB."""

MOST_TAGS = 3
MOST_METADATA_BYTES = 16_000
"""Of all options and variables together."""

_ACCOUNT = re.compile(
    r"\bnot allowed to send\b|\bsandbox subdomains\b|\bunverified\b|\blimit exceeded\b|\bsending is disabled\b"
    r"|\b(?:your|free)(?: mailgun)? accounts?\b|\baccount (?:is|has|settings)\b",
    re.IGNORECASE,
)
"""In what Mailgun says when it takes nothing of this domain or account. It uses 400 for that and for bad mail alike."""

_WRONG_PATH = "mailgun magnificent api"
"""What a path that is none gets, with a 200: nothing was sent."""

_SECONDS = re.compile(r"(\d{1,9})\s*seconds?\b", re.IGNORECASE)
_AFTER = re.compile(r"try again after\s+(.+)", re.IGNORECASE)


class MailgunProvider:
    """One domain of one Mailgun account. `client` is an entered `http_client`, which never retries."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        api_key: str,
        domain: str,
        rate: float,
        prices: PriceTable,
        writer: MailWriter,
        now: Callable[[], datetime],
        url: str = URL,
        most_bytes: int = MOST_BYTES,
        track_opens: bool = False,
        track_clicks: bool = False,
    ) -> None:
        """`domain`: the sending domain at Mailgun. `rate`: recipients a second that the account may send; there is no
        API that says. `most_bytes`: of a message as MIME. `track_opens`, `track_clicks`: whether Mailgun adds its
        picture, and rewrites links to its own.
        """
        self._client, self._prices, self._writer, self._now, self._rate = client, prices, writer, now, rate
        self._url = f"{url.rstrip('/')}/v3/{quote(domain, safe='')}/messages.mime"
        self._auth = ("api", api_key)
        # Said in every request: what the domain is set to would rewrite links otherwise.
        self._tracking = {
            "o:tracking": _yes_or_no(track_opens or track_clicks),
            "o:tracking-opens": _yes_or_no(track_opens),
            "o:tracking-clicks": _yes_or_no(track_clicks),
        }
        self.capabilities = Capabilities(
            "mime", most_bytes, most_tags=MOST_TAGS, most_metadata_bytes=MOST_METADATA_BYTES
        )

    @property
    def name(self) -> str:
        """`mailgun`."""
        return NAME

    async def send(self, attempt: OutgoingAttempt) -> Accepted | Rejected | Unknown:
        """One `POST …/messages.mime` to a single envelope recipient; see the port for what is promised."""
        mail = attempt.mail
        try:
            raw = self._writer.mime(attempt)
            # Before the call: a mail that is taken is never unknown.
            cost = self.estimate_cost(attempt.mail.attachment_bytes, self._now())
        except PermanentError as error:
            return Rejected(error.reason, str(error), "mail" if error.reason == "invalid" else "account")
        if len(raw) > self.capabilities.most_bytes:
            return Rejected("invalid", said_of(len(raw), "Mailgun", self.capabilities.most_bytes), "mail")
        options = {
            "to": attempt.recipient,
            f"v:{MESSAGE_VARIABLE}": mail.message_id,
            f"v:{ATTEMPT_VARIABLE}": attempt.attempt_id,
            "o:tag": mail.category,
            **self._tracking,
        }
        answer = await post(
            self._client,
            self._url,
            provider="Mailgun",
            auth=self._auth,
            data=options,
            files=[("message", ("message.mime", raw, "message/rfc822"))],
        )
        if not isinstance(answer, httpx.Response):
            return answer
        message_id = accepted_as(answer)
        if message_id is None:
            return refusal_of(answer, self._now())
        return Accepted(message_id, len(raw), cost)

    def cannot_carry(self, mail: OutgoingMail) -> str | None:
        """By the size of its MIME; see the port."""
        size = self._writer.too_large(mail, self.capabilities.most_bytes)
        return None if size is None else said_of(size, "Mailgun", self.capabilities.most_bytes)

    async def quota(self) -> Quota:
        """The rate that was given."""
        return Quota(self._rate, -1.0, 0.0)

    def estimate_cost(self, attachment_bytes: int, at: datetime) -> Cost:
        """By the price table in force at `at`."""
        return self._prices.cost(NAME, attachment_bytes, at)


def accepted_as(answer: httpx.Response) -> str | None:
    """The id of a mail that was taken, without angle brackets, as in webhooks; None where it is no acceptance."""
    said = json_of(answer)
    if answer.status_code != 200 or not isinstance(said, dict):
        return None
    message_id, message = said.get("id"), said.get("message")
    if not isinstance(message_id, str) or not isinstance(message, str) or not message.startswith("Queued"):
        return None
    return message_id.strip().removeprefix("<").removesuffix(">") or None


def refusal_of(answer: httpx.Response, now: datetime) -> Rejected | Unknown:
    """What an answer that is no acceptance says about the mail: certainly not taken, or nobody knows."""
    status, said = answer.status_code, _message(answer)
    code, detail = f"http{status}", for_people(said or "")
    if status == 200 and answer.text.strip().lower().startswith(_WRONG_PATH):
        return Rejected("wrongPath", "Mailgun has no such path: look at its URL and domain", "account")
    if status == 429:
        return Rejected(code, detail, "throttle", _retry_after(said or "", now))
    if not 400 <= status < 500:
        return Unknown(f"Mailgun answered {status}")
    if status == 413:  # RFC 9110 §15.5.14: whoever says so refuses to process the request
        return Rejected(code, detail, "mail")
    if status == 401:  # RFC 9110 §15.5.2: the request was not applied. Mailgun's has no JSON
        return Rejected(code, detail, "account")
    if said is None:
        if status in REFUSED_ON_THE_WAY:
            return Rejected(code, detail, "unreachable")
        return Unknown(f"{status}, and not from Mailgun")
    if status in (403, 404) or _ACCOUNT.search(detail):
        return Rejected(code, detail, "account")
    if status != 400:
        return Rejected(code, detail, "throttle", unlisted=True)
    return Rejected(code, detail, "mail")


def _message(answer: httpx.Response) -> str | None:
    """What Mailgun itself says; None where the answer is not Mailgun's."""
    said = json_of(answer)
    message = said.get("message") if isinstance(said, dict) else None
    return message if isinstance(message, str) else None


def _retry_after(said: str, now: datetime) -> float | None:
    """Seconds: the wait stands in the text alone, as a time or as a number of seconds."""
    if found := _SECONDS.search(said):
        return bounded_wait(float(found[1]))
    if not (found := _AFTER.search(said)):
        return None
    try:
        until = parsedate_to_datetime(found[1].strip())
    except (ValueError, OverflowError):
        return None
    return bounded_wait((until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now.timestamp())


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"
