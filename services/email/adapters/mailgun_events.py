"""Mailgun's log of events, asked about one recipient, from its documentation, not tried live.

`GET /v3/{domain}/events` has what its webhooks have, for three days at least, also a `delivered` whose webhook was not
taken, which Mailgun does not repeat. It cannot be asked by our variables, so whoever asks compares them. Source:
mailgun/documentation `api-events.rst`.
"""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote, urlsplit

import httpx

from services.email.adapters.http_outcomes import bounded_wait, json_of
from services.email.domain.notifications import Json
from services.email.domain.outcomes import for_people
from services.kit.errors import RefusedHere, Unavailable

PAGE = 300
"""Events of a page, the most that there may be."""

MOST_PAGES = 10
"""Of one recipient in the time asked about: more are left to webhooks."""


class MailgunEventLog:
    """One domain's log. `client` is an entered `http_client`."""

    def __init__(self, client: httpx.AsyncClient, *, api_key: str, domain: str, url: str) -> None:
        self._client, self._auth = client, ("api", api_key)
        self._origin = urlsplit(url)[:2]
        self._url = f"{url.rstrip('/')}/v3/{quote(domain, safe='')}/events"

    async def about(self, recipient: str, since: datetime, until: datetime) -> list[Json]:
        """All events of one recipient in that time, oldest first.

        Raises:
            RefusedHere: Mailgun does not know the key or the domain.
            Unavailable: it cannot be asked now; `retry_after` where it says when.
        """
        asked = {
            "recipient": recipient,
            "begin": f"{since.timestamp():.3f}",
            "end": f"{until.timestamp():.3f}",
            "ascending": "yes",
            "limit": str(PAGE),
        }
        page = await self._get(self._url, asked)
        found: list[Json] = []
        for _ in range(MOST_PAGES):
            items = page.get("items")
            if not isinstance(items, list) or not items:
                break
            found += [item for item in items if isinstance(item, dict)]
            paging = page.get("paging")
            following = paging.get("next") if isinstance(paging, dict) else None
            # Our key goes nowhere else, whatever an answer says.
            if not isinstance(following, str) or urlsplit(following)[:2] != self._origin:
                break
            page = await self._get(following, {})
        return found

    async def _get(self, url: str, asked: dict[str, str]) -> Json:
        try:
            answer = await self._client.get(url, params=asked or None, auth=self._auth)
        except httpx.HTTPError as error:
            raise Unavailable("Mailgun", f"its events cannot be asked for: {type(error).__name__}") from error
        said = json_of(answer)
        if answer.status_code in (401, 403, 404):
            raise RefusedHere(
                f"http{answer.status_code}",
                f"Mailgun does not show its events ({for_people(answer.text[:200])}): does the key of MAILGUN_API_KEY "
                "read them, and is MAILROOM_MAILGUN_URL the region of MAILGUN_DOMAIN?",
            )
        if answer.status_code != 200 or not isinstance(said, dict):
            wait = answer.headers.get("retry-after", "")
            after = bounded_wait(float(wait)) if wait.isdecimal() else None
            raise Unavailable("Mailgun", f"it answered {answer.status_code} for its events", retry_after=after)
        return said
