"""The operator's command on the whole stack: a mail's way, lag, what is unknown or parked, a rebuild."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaProducer
from pymongo import MongoClient

from deploy.local.site import ROOT
from deploy.local.stack import Stack
from services.kit.crypto import KeyRing
from tests.unit.events_service.file_events import download, file_log, upload_requested, uploaded

Mailroom = Callable[..., "subprocess.CompletedProcess[str]"]

SECONDS = 180.0


@pytest.fixture(scope="module")
def mailroom(stack: Stack) -> Mailroom:
    """`./mailroom` on this stack."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAILROOM_", "AWS_"))}
    env = {**kept, "MAILROOM_STATE_DIR": str(stack.site.state_dir), "COLUMNS": "100"}

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(ROOT / "mailroom"), *words]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=SECONDS, check=False)

    return call


def told(done: subprocess.CompletedProcess[str], status: int = 0) -> Any:
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout)


def until(what: Callable[[], Any]) -> Any:
    """What it gives once it gives something."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found = what()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("it never came")


@pytest.fixture(scope="module")
def caller(stack: Stack, mailroom: Mailroom) -> httpx.Client:
    token = told(mailroom("token", "--sub", "cli-user", "--json"))["token"]
    return httpx.Client(base_url=stack.site.url("gateway"), headers={"authorization": f"Bearer {token}"}, timeout=60)


def send(caller: httpx.Client, to: str) -> str:
    body = {"to": [to], "subject": "A test", "textContent": "Hello", "category": "notification"}
    answer = caller.post("/api/email", json=body, headers={"idempotency-key": uuid.uuid4().hex})
    assert answer.status_code == 202, answer.text
    found: str = answer.json()["data"]["messageId"]
    return found


def status(caller: httpx.Client, message_id: str) -> str | None:
    answer = caller.get(f"/api/email/{message_id}")
    return answer.json()["data"]["status"] if answer.status_code == 200 else None


@pytest.fixture(scope="module", autouse=True)
def unanswered(stack: Stack, caller: httpx.Client) -> str:
    """A mail whose call got no answer: before all else, since nobody may settle it within its call window of 30 s."""
    admin = f"{stack.site.url('simulator')}/_sim/faults"
    who = f"unknown-{uuid.uuid4().hex[:8]}@example.com"
    faults = [{"kind": kind, "match": who} for kind in ("acceptThenDrop", "silent")]
    httpx.put(admin, json={"faults": faults, "seed": None}).raise_for_status()
    return send(caller, who)


def test_why_tells_the_whole_way_of_a_mail_and_where_it_lies(caller: httpx.Client, mailroom: Mailroom) -> None:
    message_id = send(caller, "success@simulator.amazonses.com")
    until(lambda: status(caller, message_id) == "delivered")
    found = told(mailroom("why", "email_log", message_id, "--json"))
    assert {"email.requested", "email.sendAttempted", "email.delivered"} <= {step["type"] for step in found["timeline"]}
    assert all(step["origin"]["topic"] == "email.events" for step in found["timeline"])
    shown = mailroom("why", "email_log", message_id).stdout
    assert f"email_log {message_id}  delivered" in shown
    assert "sent → delivered" in shown


def test_lag_names_every_group_and_the_projection(mailroom: Mailroom) -> None:
    found = told(mailroom("lag", "--json", "--seconds", "0"))
    readers = {each["reader"] for each in found}
    assert {"email-intake-normal", "email-translator", "email-settler"} <= readers
    for projection in ("email_log", "file"):
        assert any(reader.startswith(f"{projection} g") for reader in readers)
    assert "email-translator" in mailroom("lag").stdout


def test_what_alarms_look_at_has_values(stack: Stack, caller: httpx.Client) -> None:
    """Lag and levels are looked up every ten seconds; the rest stands with the first mail."""
    message_id = send(caller, "success@simulator.amazonses.com")
    until(lambda: status(caller, message_id) == "delivered")

    def values(service: str) -> dict[str, float]:
        lines = httpx.get(f"{stack.site.url(service)}/metrics").text.splitlines()
        series = (line.rpartition(" ") for line in lines if line.startswith("mailroom_"))
        return {name.partition("{")[0]: float(value) for name, _, value in series}

    until(lambda: "mailroom_due_streams" in values("email"))
    until(lambda: "mailroom_projection_lag_records" in values("events"))
    email, events = values("email"), values("events")
    assert email["mailroom_build_info"] == events["mailroom_build_info"] == 1
    assert email["mailroom_notification_age_seconds_count"] > 0
    assert email["mailroom_tokens_waited_seconds_count"] > 0
    assert email["mailroom_consumer_lag_records"] >= 0
    assert events["mailroom_partitions_blocked"] == 0


@pytest.mark.parametrize(
    ("service", "consumer"),
    [("events", "events.email_log"), pytest.param("email", "email-settler", marks=pytest.mark.long)],
)
def test_what_a_consumer_parked_is_shown_retried_and_given_up(
    stack: Stack, mailroom: Mailroom, service: str, consumer: str
) -> None:
    program = (
        "import asyncio, sys, aiokafka\n"
        "async def main():\n"
        "    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=sys.argv[1])\n"
        "    await producer.start()\n"
        "    at = await producer.send_and_wait('email.events', b'{no json', key=b'cli-poison')\n"
        "    print(f'email.events|{at.partition}|{at.offset}')\n"
        "    await producer.stop()\n"
        "asyncio.run(main())\n"
    )
    bootstrap = stack.site.addresses().kafka_bootstrap
    written = subprocess.run([sys.executable, "-c", program, bootstrap], capture_output=True, text=True, check=True)
    parked_id = f"{consumer}|{written.stdout.strip()}"
    of = ("--service", service)
    client: MongoClient[dict[str, Any]] = MongoClient(stack.site.addresses().mongo_url)
    parked = client[f"mailroom_{service}"]["parked"]
    until(lambda: parked.find_one({"_id": parked_id}))
    assert _is_parked(mailroom, parked_id, of)
    assert told(mailroom("parked", "show", parked_id, *of, "--json"))["value"] == {"text": "{no json"}
    retried = told(mailroom("parked", "retry", parked_id, *of, "--json"), status=1)
    assert (retried["status"], retried["tries"]) == ("parked", 1)
    lost = KeyRing.from_secret("a secret that everybody has lost").seal(b"{no json", b"")
    with client:
        parked.update_one({"_id": parked_id}, {"$set": {"raw": lost}})
    assert "MAILROOM_OLD_ENCRYPTION_KEYS" in mailroom("parked", "show", parked_id, *of).stderr
    gone = told(mailroom("parked", "discard", parked_id, *of, "--reason", "a test's", "--yes", "--json"))
    assert gone["status"] == "discarded"
    assert not _is_parked(mailroom, parked_id, of)
    assert mailroom("parked", "retry", parked_id, *of).returncode == 1


def _is_parked(mailroom: Mailroom, parked_id: str, of: tuple[str, str]) -> bool:
    records = told(mailroom("parked", "list", *of, "--json"))["records"]
    return parked_id in [each["id"] for each in records]


def test_a_rebuild_is_watched_to_its_end_and_rolled_back(caller: httpx.Client, mailroom: Mailroom) -> None:
    message_id = send(caller, "success@simulator.amazonses.com")
    until(lambda: status(caller, message_id) == "delivered")
    plan = told(mailroom("rebuild", "dry-run", "email_log", "--json"))
    assert plan["events"] > 0
    built = told(mailroom("rebuild", "start", "email_log", "--json"))
    assert (built["stage"], built["report"]["differing"]) == ("active", 0)
    assert status(caller, message_id) == "delivered"
    state = told(mailroom("rebuild", "status", "email_log", "--json"))
    assert (state["active"], state["previous"]) == (built["number"], plan["active"])
    assert told(mailroom("rebuild", "rollback", "email_log", "--yes", "--json"))["number"] == plan["active"]
    assert status(caller, message_id) == "delivered"
    assert mailroom("rebuild", "pause", "email_log").returncode == 1  # there is none to pause


@pytest.mark.long
def test_a_file_is_explained_and_its_read_model_rebuilt(stack: Stack, mailroom: Mailroom) -> None:
    """As if the files service had published: the events service alone reads them."""
    file_id = str(uuid.uuid4())
    log = file_log(file_id)
    story = [log.raw(each) for each in (upload_requested(file_id), uploaded(), download())]
    _publish(stack, "files.events", file_id, story)

    def shown() -> list[str] | None:
        found = mailroom("why", "file", file_id, "--json")
        steps = told(found)["timeline"] if found.returncode == 0 else []
        return [step["type"] for step in steps] if len(steps) == len(story) else None

    assert until(shown) == ["file.uploadRequested", "file.uploaded", "file.downloadIssued"]
    printed = mailroom("why", "file", file_id).stdout
    assert f"file {file_id}  completed" in printed
    assert "uploading → completed" in printed
    before = told(mailroom("rebuild", "status", "file", "--json"))["active"]
    built = told(mailroom("rebuild", "start", "file", "--json"))
    assert (built["stage"], built["report"]["differing"]) == ("active", 0)
    assert told(mailroom("rebuild", "rollback", "file", "--yes", "--json"))["number"] == before
    assert told(mailroom("why", "file", file_id, "--json"))["file"]["access"]["downloadCount"] == 1


def _publish(stack: Stack, topic: str, key: str, values: list[bytes]) -> None:
    async def publish() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=stack.site.addresses().kafka_bootstrap, acks="all")
        await producer.start()
        try:
            for value in values:
                await producer.send_and_wait(topic, value, key=key.encode())
        finally:
            await producer.stop()

    asyncio.run(publish())


@pytest.fixture
def tampered(stack: Stack, caller: httpx.Client, mailroom: Mailroom) -> Callable[[], str]:
    """Makes a document of the active generation something that the log does not say; its id."""
    url = f"mongodb://127.0.0.1:{stack.site.ports['mongo']}/?directConnection=true"

    def tamper() -> str:
        message_id = send(caller, "success@simulator.amazonses.com")
        until(lambda: status(caller, message_id) == "delivered")
        active = told(mailroom("rebuild", "status", "email_log", "--json"))["active"]
        client: MongoClient[dict[str, Any]] = MongoClient(url)
        with client:
            live = client["mailroom_events"][f"email_log__g{active}"]
            assert live.update_one({"_id": message_id}, {"$set": {"subject": "not in the log"}}).modified_count == 1
        return message_id

    return tamper


@pytest.mark.long
def test_a_generation_that_differs_is_accepted_by_an_operator(
    tampered: Callable[[], str], caller: httpx.Client, mailroom: Mailroom
) -> None:
    message_id = tampered()
    before = told(mailroom("rebuild", "status", "email_log", "--json"))
    refused = mailroom("rebuild", "start", "email_log", "--json")
    assert refused.returncode == 1, refused.stdout
    assert "differs from the live one" in refused.stderr
    built = json.loads(refused.stdout)
    assert (built["report"]["differing"], built["report"]["examples"]) == (1, [message_id])
    assert subject(caller, message_id) == "not in the log"
    words = ("rebuild", "accept", "email_log", str(built["number"]))
    assert mailroom(*words).returncode == 1, "without --yes nobody was there to say yes"
    assert told(mailroom(*words, "--yes", "--json"))["stage"] == "active"
    after = told(mailroom("rebuild", "status", "email_log", "--json"))
    assert (after["active"], after["previous"]) == (built["number"], before["active"])
    assert subject(caller, message_id) == "A test"
    assert mailroom("rebuild", "accept", "email_log", "9999", "--yes").returncode == 1


@pytest.mark.long
def test_a_generation_that_differs_is_abandoned_by_an_operator(
    tampered: Callable[[], str], caller: httpx.Client, mailroom: Mailroom
) -> None:
    message_id = tampered()
    before = told(mailroom("rebuild", "status", "email_log", "--json"))
    built = json.loads(mailroom("rebuild", "start", "email_log", "--json").stdout)
    words = ("rebuild", "abandon", "email_log", str(built["number"]))
    assert mailroom(*words).returncode == 1, "without --yes nobody was there to say yes"
    assert told(mailroom(*words, "--yes", "--json"))["stage"] == "abandoned"
    after = told(mailroom("rebuild", "status", "email_log", "--json"))
    assert (after["active"], after["previous"]) == (before["active"], before["previous"])
    assert subject(caller, message_id) == "not in the log"
    active = ("rebuild", "abandon", "email_log", str(after["active"]), "--yes")
    assert mailroom(*active).returncode == 1, "what is read cannot be given up"
    assert told(mailroom("rebuild", "start", "email_log", "--detach", "--json"))["number"] > built["number"]


def subject(caller: httpx.Client, message_id: str) -> str:
    found: str = caller.get(f"/api/email/{message_id}").json()["data"]["subject"]
    return found


def test_an_unknown_outcome_is_listed_and_settled_by_an_operator(
    unanswered: str, caller: httpx.Client, mailroom: Mailroom
) -> None:
    listed = until(
        lambda: [
            each for each in told(mailroom("sends", "unknown", "list", "--json")) if each["messageId"] == unanswered
        ]
    )
    words = ("sends", "unknown", "resolve", unanswered, listed[0]["attemptId"], "accepted", "--evidence", "seen there")
    from_then_on = datetime.fromisoformat(listed[0]["canBeSettledFrom"])
    until(lambda: datetime.now(UTC) > from_then_on)  # the call's time limit is over
    assert mailroom(*words).returncode == 0
    until(lambda: status(caller, unanswered) == "sent")
    timeline = told(mailroom("why", "email_log", unanswered, "--json"))["timeline"]
    assert [step["event"]["data"]["by"] for step in timeline if step["type"] == "email.attemptSettled"] == ["operator"]
