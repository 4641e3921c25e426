"""Mailgun's `GET /v3/{domain}/events`: what it had to report, in pages, whether or not a webhook took it.

Source: mailgun/documentation `api-events.rst`. A page behind the last one is empty, and names itself as the next. Of
the filters there are recipient, begin and end (seconds since 1970), ascending, limit. Not simulated: the minutes until
an event shows up, and what is forgotten after some days.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import Any

from deploy.local.simulator.http_api import HttpApi
from deploy.local.simulator.mailgun import is_authorized
from deploy.local.simulator.webhooks import Webhooks
from deploy.local.simulator.wire import Request, Response, json_response

MOST = 300

Made = tuple[float, str, bytes]


class MailgunSide:
    """All of Mailgun's API: sends, and questions to the log."""

    def __init__(self, sends: HttpApi, webhooks: Webhooks) -> None:
        self._sends, self._webhooks = sends, webhooks

    async def handle(self, request: Request) -> Response | None:
        """Answer one call; None where a fault drops the connection."""
        segments = request.segments()
        if request.method == "GET" and len(segments) in (3, 4) and segments[2] == "events":
            return events_answer(request, self._webhooks.made("mailgun"))
        return await self._sends.handle(request)


def events_answer(request: Request, made: Sequence[Made]) -> Response:
    """One page. `made`: the oldest first."""
    if not is_authorized(request.headers.get("authorization", "")):
        return Response(401, b"Forbidden", b"text/plain; charset=utf-8")
    version, domain, name, *token = request.segments()
    if domain.endswith(".invalid"):
        return json_response({"message": f"Domain not found: {domain}"}, 404)
    try:
        asked: dict[str, Any] = {"page": 0, **request.parameters()}
        if token:
            asked = json.loads(urlsafe_b64decode(token[0]))
        limit = int(asked.get("limit", 100))
        begin, end = float(asked.get("begin", 0)), float(asked.get("end", "inf"))
    except ValueError as error:
        return json_response({"message": f"Invalid parameter: {error}"}, 400)
    if not 1 <= limit <= MOST:
        return json_response({"message": f"limit must be between 1 and {MOST}"}, 400)
    found = [
        data for at, recipient, data in made if begin <= at <= end and recipient == asked.get("recipient", recipient)
    ]
    if asked.get("ascending") != "yes":
        found.reverse()
    page = found[asked["page"] * limit :][:limit]
    following = {**asked, "page": asked["page"] + bool(page)}
    host = request.headers.get("host", "127.0.0.1")
    text = urlsafe_b64encode(json.dumps(following).encode()).decode()
    paging = {"next": f"http://{host}/{version}/{domain}/{name}/{text}"}
    return json_response({"items": [json.loads(each) for each in page], "paging": paging})
