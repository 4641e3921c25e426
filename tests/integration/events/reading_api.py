"""The API of one read model, as its users call it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
from fastapi import APIRouter

from services.kit.auth import Authenticator, Role, SecretVerifier, mint_token
from services.kit.clock import SystemClock
from services.kit.health import Health
from services.kit.http import create_app
from services.kit.metrics import Metrics
from services.kit.testing import FakeClock

SECRET = "s" * 32


class WaitingClock(FakeClock):
    """Waits take no time; the first one begins with what `meanwhile` does."""

    meanwhile: Callable[[], Awaitable[object]] | None = None

    async def sleep(self, seconds: float) -> None:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        await super().sleep(seconds)


@dataclass(frozen=True)
class Api:
    """One user's calls. `name`: of the route and the scope; `listed` and `key`: of a page's items and their ids;
    `clock`: of the queries behind it.
    """

    client: httpx.AsyncClient
    clock: WaitingClock
    name: str
    listed: str
    key: str
    user: str = "user-1"
    role: Role = "user"

    def like(self, user: str, role: Role = "user") -> Api:
        return replace(self, user=user, role=role)

    async def get(self, path: str = "", **headers: str) -> httpx.Response:
        return await self.client.get(f"/api/{self.name}{path}", headers=self._headers | headers)

    async def page(self, **query: Any) -> dict[str, Any]:
        answer = await self.client.get(f"/api/{self.name}", params=query, headers=self._headers)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found

    async def ids(self, **query: Any) -> list[str]:
        return [each[self.key] for each in (await self.page(**query))[self.listed]]

    async def refused(self, **query: Any) -> list[str]:
        answer = await self.client.get(f"/api/{self.name}", params=query, headers=self._headers)
        assert answer.status_code == 400, answer.text
        return [detail["field"] for detail in answer.json()["details"]]

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {mint_token(SECRET, self.user, [f'{self.name}:read'], self.role)}"}


@asynccontextmanager
async def reading_api(routes: APIRouter, clock: WaitingClock, name: str, listed: str, key: str) -> AsyncIterator[Api]:
    """Serve these routes, whose queries have this clock, as the events service does."""
    app = create_app(
        title="Events",
        service="events",
        version="1",
        authenticator=Authenticator(SecretVerifier(SECRET)),
        health=Health(SystemClock()),
        metrics=Metrics(),
        routers=[routes],
    )
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://mailroom") as client:
        yield Api(client, clock, name, listed, key)
