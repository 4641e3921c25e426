"""The two ways in, used as an upstream service and a page would use them: plain HTTP, and a plain Kafka client."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import httpx
from aiokafka import AIOKafkaProducer

from contracts.ids import uuid7
from deploy.local.demo.cases import Case

PATIENCE_S = 60


async def ask(client: httpx.AsyncClient, method: str, path: str, **more: Any) -> httpx.Response:
    """Call the API, again each second while it answers 503 ("repeat later"); each call of the demo may be repeated.

    The last answer stands after a minute. What is sent stays the same, its Idempotency-Key included.
    """
    for _ in range(PATIENCE_S):
        answer = await client.request(method, path, **more)
        if answer.status_code != 503:
            break
        await asyncio.sleep(1)
    return answer


class HttpDoor:
    """`/api/email` behind the gateway."""

    def __init__(self, client: httpx.AsyncClient, token: str) -> None:
        self._client, self._headers = client, {"Authorization": f"Bearer {token}"}

    async def send(self, case: Case) -> None:
        """Post it, twice under one key where the case says so."""
        key = str(uuid.uuid4())
        for _ in range(2 if case.twice else 1):
            answer = await self._call("POST", "/api/email", json=case.body, headers={"Idempotency-Key": key})
            if answer.status_code != 202:
                raise AssertionError(f"{case.name}: POST /api/email answered {answer.status_code} {answer.text}")
            message_id = answer.json()["data"]["messageId"]
            if case.message_id not in ("", message_id):
                raise AssertionError(f"{case.name}: the same key made a second message")
            case.message_id = message_id

    async def refuses(self, body: dict[str, Any]) -> set[str]:
        """The fields that a bad body is refused for."""
        answer = await self._call("POST", "/api/email", json=body)
        if answer.status_code != 400:
            raise AssertionError(f"an invalid body was answered {answer.status_code} {answer.text}")
        return {detail["field"] for detail in answer.json()["details"]}

    async def cancel(self, case: Case) -> None:
        """DELETE it."""
        answer = await self._call("DELETE", f"/api/email/{case.message_id}", params={"reason": "demo"})
        if answer.status_code != 202:
            raise AssertionError(f"{case.name}: DELETE answered {answer.status_code} {answer.text}")

    async def read(self, path: str, **params: Any) -> dict[str, Any]:
        """GET, and the data of a good answer; {} for a 404."""
        answer = await self._call("GET", path, params=params)
        if answer.status_code == 404:
            return {}
        if answer.status_code != 200:
            raise AssertionError(f"GET {path} answered {answer.status_code} {answer.text}")
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def suppress(self, address: str) -> None:
        """Put an address on the suppression list (needs email:operate)."""
        body = {"address": address, "scope": "all", "reason": "demo"}
        answer = await self._call("POST", "/api/suppressions", json=body)
        if answer.status_code not in (200, 201):
            raise AssertionError(f"POST /api/suppressions answered {answer.status_code} {answer.text}")

    async def _call(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {**self._headers, **more.pop("headers", {})}
        return await ask(self._client, method, path, headers=headers, **more)


class KafkaDoor:
    """`email.commands.*`, with hand-written JSON."""

    def __init__(self, producer: AIOKafkaProducer, user_id: str) -> None:
        self._producer, self._user_id = producer, user_id

    async def send(self, case: Case) -> None:
        """Publish `email.send`, twice under one message id where the case says so."""
        case.message_id = uuid7()
        body = {**case.body}
        renamed = {"htmlContent": "html", "textContent": "text"}
        data = {renamed.get(name, name): value for name, value in body.items()}
        data |= {"messageId": case.message_id, "userId": self._user_id}
        for _ in range(2 if case.twice else 1):
            await self.publish(f"email.commands.{case.body['priority']}", "email.send", case.message_id, data)

    async def cancel(self, case: Case) -> None:
        """Publish `email.cancel`."""
        data = {"messageId": case.message_id, "reason": "demo"}
        await self.publish("email.commands.urgent", "email.cancel", case.message_id, data)

    async def publish(self, topic: str, kind: str, key: str, data: dict[str, Any]) -> None:
        """One CloudEvent with nothing but what must be there."""
        event = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": "/demo", "type": kind, "subject": key}
        await self._producer.send_and_wait(topic, json.dumps({**event, "data": data}).encode(), key=key.encode())
