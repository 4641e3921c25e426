"""Every service as a user of its own, on a Kafka and a MongoDB that ask for TLS, a log-in and rights."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from deploy.local.endpoints import AwsEndpoints
from deploy.local.parts import plain_environment
from deploy.local.site import HOST, ROOT
from deploy.local.stack import Stack
from services.cli.topics import acls_of
from services.kit.auth import mint_token
from tests.integration.nodes import Node, Place, until
from tests.integration.security.conftest import PASSWORD, SecuredKafka
from tests.integration.security.mongo import SecuredMongo, told

SERVICES = ("email", "files", "events")


class Secured:
    """The processes of the services and the operator's command, each with its own user."""

    def __init__(self, here: Place, stack: Stack, kafka: SecuredKafka, mongo: SecuredMongo) -> None:
        self._here, self._stack, self._kafka, self._mongo = here, stack, kafka, mongo
        self.secret = stack.env()["MAILROOM_JWT_SECRET"]
        self._ports = {service: here.ports.pop() for service in SERVICES}

    def env(self, user: str, **changed: str) -> dict[str, str]:
        """What a process of this user finds in its environment."""
        ours = {**plain_environment(), **self._stack.env(), **self._kafka.environ(user=user)}
        ports = {f"MAILROOM_{service.upper()}_PORT": str(port) for service, port in self._ports.items()}
        return {**ours, **ports, "MAILROOM_MONGO_URL": self._mongo.url(f"mailroom-{user}"), **changed}

    @contextmanager
    def running(self, service: str, env: Mapping[str, str], *, role: str = "all") -> Iterator[Node]:
        """A process of a service."""
        command = [sys.executable, "-m", f"services.{service}", role]
        node = Node(service, self._here.folder, self._ports[service], command, env)
        node.start()
        try:
            node.listening()
            yield node
        finally:
            node.stop()

    def http(self, service: str, *scopes: str) -> httpx.Client:
        """A caller of a service."""
        token = mint_token(self.secret, "ann", scopes, "admin")
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.Client(base_url=f"http://{HOST}:{self._ports[service]}", headers=headers, timeout=30)

    def ready(self, service: str) -> httpx.Response:
        with self.http(service) as http:
            return http.get("/readyz")

    def becomes_ready(self, service: str) -> None:
        """Wait until it is; else its own words are what fails."""
        seen = []

        def look() -> bool:
            seen.append(self.ready(service))
            return seen[-1].status_code == 200

        try:
            until(look, f"{service} is ready", httpx.HTTPError)
        except AssertionError:
            raise AssertionError(seen[-1].text if seen else f"{service} does not answer") from None

    def says(self, service: str, words: str) -> None:
        """Wait until its readiness has these words."""
        eventually(lambda: words in self.ready(service).text, f"{service} says {words}")

    def mailroom(self, *words: str, status: int = 0) -> str:
        """The operator's command."""
        command = [sys.executable, "-m", "services.cli", *words]
        done = subprocess.run(
            command, env=self.env("operator"), cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout


def eventually(found: Callable[[], Any], what: str) -> Any:
    """What is found when something is."""
    kept: list[Any] = []

    def look() -> bool:
        kept.append(found())
        return bool(kept[-1])

    until(look, what, httpx.HTTPError)
    return kept[-1]


@pytest.fixture
def system(
    here: Place, test_stack: Stack, aws: AwsEndpoints, secured: SecuredKafka, secured_mongo: SecuredMongo
) -> Secured:
    async def allow() -> None:
        for user in (*SERVICES, "operator"):
            await secured.allow(user, *acls_of(user))

    asyncio.run(allow())
    return Secured(here, test_stack, secured, secured_mongo)


@pytest.mark.long
def test_each_service_works_with_its_own_rights_and_is_refused_elsewhere(
    system: Secured, secured_mongo: SecuredMongo
) -> None:
    assert "created email.events" in system.mailroom("topics", "apply")
    assert "topics are as contracts/topics.py says" in system.mailroom("topics", "verify")
    with (
        system.running("email", system.env("email")),
        system.running("files", system.env("files")),
        system.running("events", system.env("events", MAILROOM_GRACE_HOURS="0.0003")),
    ):
        for service in SERVICES:
            system.becomes_ready(service)
        with (
            system.http("email", "email:create") as email,
            system.http("files", "files:create") as files,
            system.http("events", "email:read", "files:read") as events,
        ):
            body = {"to": "success@inbox.example", "subject": "s", "textContent": "t", "category": "notification"}
            answer = email.post("/api/email", json=body, headers={"Idempotency-Key": uuid4().hex})
            assert answer.status_code == 202, answer.text
            mail = answer.json()["data"]["messageId"]

            def delivered() -> bool:
                found = events.get(f"/api/email/{mail}")
                return found.status_code == 200 and found.json()["data"]["status"] == "delivered"

            eventually(delivered, "the mail is delivered")
            upload = {"fileName": "a.pdf", "contentType": "application/pdf", "size": 100, "category": "document"}
            asked = files.post("/api/files/upload-url", json=upload, headers={"Idempotency-Key": uuid4().hex})
            assert asked.status_code == 201, asked.text
            file = asked.json()["data"]["fileId"]
            eventually(lambda: events.get(f"/api/files/{file}").status_code == 200, "the file is shown")

            # a new generation: collections and views are made, changed, and dropped when its grace is over
            system.mailroom("rebuild", "start", "email_log")
            assert delivered()
            eventually(
                lambda: "email_log g1" not in system.mailroom("lag", "--seconds", "0"),
                "the first generation is dropped",
            )
        assert "email-settler" in system.mailroom("lag", "--seconds", "0")
    for user, others in {
        "email": ("mailroom_files", "mailroom_events"),
        "files": ("mailroom_email", "mailroom_events"),
        "events": ("mailroom_email", "mailroom_files"),
    }.items():
        for database in others:
            assert f"may not find in {database}" in asyncio.run(told(secured_mongo.url(f"mailroom-{user}"), database))


@pytest.mark.long
def test_a_service_without_rights_or_with_a_wrong_password_says_so(system: Secured) -> None:
    system.mailroom("topics", "apply")
    stranger = system.env("email") | {"MAILROOM_KAFKA_USERNAME": "nobody"}
    with system.running("email", stranger):
        system.says("email", "the broker refuses this user")
        with system.http("email", "email:create") as email:
            body = {"to": "success@inbox.example", "subject": "s", "textContent": "t", "category": "notification"}
            assert email.post("/api/email", json=body).status_code == 503, "no false success"
    refused = "refuses user or password: look at MAILROOM_KAFKA_USERNAME and MAILROOM_KAFKA_PASSWORD"
    for service in SERVICES:
        with system.running(service, system.env(service, MAILROOM_KAFKA_PASSWORD="wrong")) as node:
            system.says(service, refused)
            assert refused in node.log()
            assert PASSWORD not in node.log()
        wrong = system.env(service)
        wrong["MAILROOM_MONGO_URL"] = wrong["MAILROOM_MONGO_URL"].replace("change-me", "wrong")
        ended = subprocess.run(
            [sys.executable, "-m", f"services.{service}", "all"],
            env=wrong,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert ended.returncode == 1
        assert "cannot start: MongoDB: " in ended.stderr
        assert "user or password in MAILROOM_MONGO_URL are refused" in ended.stderr
        assert "Traceback" not in ended.stderr
