"""A small client of the simulator's /_sim/ calls, for tests and benchmarks."""

import asyncio
from base64 import b64encode
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

import httpx

from deploy.local.simulator.faults import Fault

Json = dict[str, Any]


class SimulatorClient:
    """Use it as an async context manager. Raises httpx.HTTPStatusError where the simulator says no."""

    def __init__(self, url: str) -> None:
        self._http = httpx.AsyncClient(base_url=url, timeout=30, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def health(self) -> Json:
        return await self._call("GET", "health")

    async def faults(self, *faults: Fault, seed: int | None = None) -> None:
        """Put exactly these faults in force; none clears them."""
        rules = [fault.model_dump(exclude_defaults=True) for fault in faults]
        await self._call("PUT", "faults", {"faults": rules, "seed": seed})

    async def shown_faults(self) -> list[Json]:
        """The faults in force, each with how often it has `fired`."""
        found: list[Json] = (await self._call("GET", "faults"))["faults"]
        return found

    async def position(self) -> int:
        """The end of the acceptance log now: give it to `acceptances` later to see only what came since."""
        return await self._end("acceptances")

    async def acceptances(self, since: int = 0) -> list[Json]:
        """Every acceptance since a position, repeated ones repeated."""
        return await self._all("acceptances", since)

    async def notifications_position(self) -> int:
        return await self._end("notifications")

    async def notifications(self, since: int = 0) -> list[Json]:
        """Every notification that SNS has taken since a position, duplicates included."""
        return await self._all("notifications", since)

    async def messages(self, to: str | None = None, *, raw: bool = False, limit: int = 1000) -> list[Json]:
        """The newest mails kept; with `raw`, their MIME in base64."""
        query = {"limit": str(limit), "raw": str(raw).lower()} | ({"to": to} if to else {})
        found: list[Json] = (await self._call("GET", "messages", query=query))["messages"]
        return found

    async def raw(self, provider_message_id: str) -> bytes:
        """The MIME of one mail."""
        answer = await self._http.get(f"/_sim/messages/{provider_message_id}/raw")
        return answer.raise_for_status().content

    async def notify(self, notification: Json | str, *, topic_arn: str, copies: int = 1) -> None:
        """Publish a notification, whatever it is, to a topic."""
        await self._call("POST", "notify", {"topicArn": topic_arn, "notification": notification, "copies": copies})

    async def receive(self, raw: bytes, *, source: str, to: str, topic_arn: str) -> None:
        """Take a mail to us, as SES does by a receipt rule that reports to this topic."""
        body = {"topicArn": topic_arn, "raw": b64encode(raw).decode(), "source": source, "recipients": [to]}
        await self._call("POST", "inbound", body)

    async def settings(self, **changes: float | list[str]) -> Json:
        """Change maxSendRate, max24HourSend, stepMs or verified; the settings as they are then."""
        return await self._call("PUT", "settings", changes)

    async def topics(self, configuration_set: str, topic_arn: str, event_types: Iterable[str] | None = None) -> None:
        """Say where a configuration set's events go, instead of its being looked up at the emulator."""
        body: Json = {"topicArn": topic_arn} | ({"eventTypes": list(event_types)} if event_types is not None else {})
        await self._call("PUT", f"configuration-sets/{configuration_set}", body)

    async def webhook(self, provider: str, url: str, key: str) -> None:
        """Have `sendgrid` or `mailgun` report there from now on, signed with this key (SendGrid's an EC key in PEM)."""
        await self._call("PUT", f"webhooks/{provider}", {"url": url, "key": key})

    async def reset(self) -> None:
        """Forget faults, messages, the suppression list, pending notifications. Logs and settings stay."""
        await self._call("POST", "reset")

    async def quiet(self, seconds: float = 10) -> None:
        """Wait until every planned notification is at SNS or was posted. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while (await self.health())["pendingNotifications"]:  # noqa: ASYNC110 - it happens in another process
                await asyncio.sleep(0.02)

    async def _all(self, name: str, since: int) -> list[Json]:
        found: list[Json] = []
        while True:
            page = await self._call("GET", name, query={"since": str(since)})
            if not page[name]:
                return found
            found += page[name]
            since = page["next"]

    async def _end(self, name: str) -> int:
        end: int = (await self._call("GET", "health"))["positions"][name]
        return end

    async def _call(self, method: str, path: str, body: object = None, query: dict[str, str] | None = None) -> Json:
        answer = await self._http.request(method, f"/_sim/{path}", json=body, params=query)
        answer.raise_for_status()
        found: Json = answer.json()
        return found
