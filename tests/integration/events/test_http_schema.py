"""The events API under schemathesis: whatever is sent, the answer is a documented one and never an error of ours."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok

from services.events.app import foundation
from services.events.generations import ensure_first
from services.events.serving import application
from services.events.settings import EventsSettings
from services.kit.auth import mint_token
from services.kit.errors import PermanentError
from services.kit.server import HttpServer
from services.kit.settings import load
from tests.integration.events.stored_files import Files
from tests.integration.events.stored_mails import Mails
from tests.unit.events_service.events import attempted, sent
from tests.unit.events_service.file_events import download, uploaded

SECRET = "s" * 40
TOKEN = mint_token(SECRET, "user-1", ["email:read", "files:read", "projections:operate"], "admin")
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
]


async def _serve(environ: dict[str, str], url: list[str], ready: threading.Event, over: threading.Event) -> None:
    base = foundation(load(EventsSettings, environ))
    topic = base.settings.email_events_topic
    admin = AIOKafkaAdminClient(bootstrap_servers=base.settings.kafka_bootstrap)
    server = HttpServer(application(base, wait_seconds=0.02), host="127.0.0.1", port=0)
    try:
        await admin.start()
        await admin.create_topics([NewTopic(topic, 2, 1)])
        for side in base.sides.values():
            log = side.log()
            await log.start()
            while (await side.generations.pointer()).active is None:
                with contextlib.suppress(PermanentError):  # a new topic takes a moment to be known to the broker
                    await ensure_first(side.projection, side.generations, side.leases(1), log)
            await log.stop()
        database = base.client[base.settings.database]
        await Mails(database).add(attempted(), sent())
        await Files(database).add(uploaded(), download(), tags=["a"])
        await server.start()
        url.append(f"http://127.0.0.1:{server.port}")
        ready.set()
        await asyncio.to_thread(over.wait)
    finally:
        ready.set()
        await server.stop(3)
        await admin.delete_topics([topic])
        await admin.close()
        await base.client.drop_database(base.settings.database)
        await base.client.close()


@pytest.fixture(scope="module")
def api_schema(kafka_bootstrap: str, mongo_url: str) -> Iterator[schemathesis.BaseSchema]:
    """The document that a real server gives, over read models with one mail and one file in them."""
    name = uuid.uuid4().hex[:8]
    environ = {
        "MAILROOM_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "MAILROOM_MONGO_URL": mongo_url,
        "MAILROOM_EVENTS_DATABASE": f"test_schema_{name}",
        "MAILROOM_EMAIL_EVENTS_TOPIC": f"test.events.{name}",
        "MAILROOM_FILES_EVENTS_TOPIC": f"test.events.{name}",
        "MAILROOM_PUBLIC_URL": "http://127.0.0.1:1",
        "FILE_ENCRYPTION_KEY": "k" * 40,
        "MAILROOM_JWT_ALGORITHM": "HS256",
        "MAILROOM_JWT_SECRET": SECRET,
    }
    url: list[str] = []
    ready, over = threading.Event(), threading.Event()
    serving = _serve(environ, url, ready, over)
    thread = threading.Thread(target=asyncio.run, args=(serving,), daemon=True)
    thread.start()
    try:
        assert ready.wait(120)
        assert url, "the server did not start"
        yield schemathesis.openapi.from_url(f"{url[0]}/openapi.json")
    finally:
        over.set()
        thread.join(20)


@pytest.mark.parametrize("examples", [5, pytest.param(25, marks=pytest.mark.long)])
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=str)
def test_every_answer_is_documented(
    api_schema: schemathesis.BaseSchema, mode: schemathesis.GenerationMode, examples: int
) -> None:
    """Requests as the document allows them, and such as it does not."""
    checks: list[Any] = [check for check in schemathesis.checks.CHECKS.get_all() if check.__name__ in CHECKS]
    assert len(checks) == len(CHECKS)
    operations = [result.ok() for result in api_schema.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) == len(list(api_schema.get_all_operations())) > 10
    for operation in operations:

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        def holds(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(headers={"authorization": f"Bearer {TOKEN}"}, checks=checks)

        holds()
