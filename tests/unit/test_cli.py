"""The operator's command: what it prints, how it ends, and that it comes at once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
import typer
from typer.testing import CliRunner, Result

from services.cli import skip, why
from services.cli.app import app
from services.events.projections.known import Known, add
from services.events.reader import read_event
from services.kit.kafka.records import Partition
from tests.unit.email_service import dsn_examples
from tests.unit.email_service import mailgun_examples as mailgun
from tests.unit.email_service import sendgrid_examples as sendgrid
from tests.unit.email_service.own_templates import write_own
from tests.unit.email_service.ses_examples import ATTEMPT_ID, MESSAGE_ID, example
from tests.unit.events_service import events as make
from tests.unit.files_service import s3_examples

SECRET = "s" * 40
HEAVY = ("aiokafka", "fastapi", "faststream", "pymongo", "pydantic", "jinja2", "aioboto3", "rich", "jwt")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAILROOM_KAFKA_BOOTSTRAP", "MAILROOM_MONGO_URL", "MAILROOM_JWT_ALGORITHM", "MAILROOM_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MAILROOM_JWT_SECRET", SECRET)


def mailroom(*words: str, given: str | None = None) -> Result:
    return CliRunner().invoke(app, list(words), input=given, prog_name="mailroom")


def commands(group: Any, *path: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *path, name)
        else:
            yield (*path, name), command


def test_every_command_knows_json_and_says_what_it_is_for() -> None:
    found = dict(commands(typer.main.get_command(app)))
    assert {
        ("topics", "apply"),
        ("token",),
        ("lag",),
        ("why", "email_log"),
        ("why", "file"),
        ("breaker", "list"),
        ("breaker", "release"),
        ("files", "upload"),
        ("files", "reconcile"),
        ("explain", "ses"),
        ("explain", "dsn"),
        ("explain", "s3"),
        ("explain", "sendgrid"),
        ("explain", "mailgun"),
    } <= found.keys()
    for path, command in found.items():
        assert "--json" in [option for parameter in command.params for option in parameter.opts], path
        assert command.help, path


def test_help_loads_nothing_heavy() -> None:
    program = f"import sys, services.cli.app; print([name for name in {HEAVY!r} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_what_lacks_in_the_environment_is_named_all_at_once_without_a_traceback() -> None:
    result = mailroom("lag")
    assert result.exit_code == 78
    assert "MAILROOM_KAFKA_BOOTSTRAP" in result.stderr
    assert "MAILROOM_MONGO_URL" in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_what_is_away_is_told_in_one_line_and_ends_with_its_own_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILROOM_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    result = mailroom("topics", "verify")
    assert result.exit_code == 3
    assert result.stderr.startswith("mailroom: Kafka: no Kafka answers at 127.0.0.1:1")
    assert result.stderr.count("\n") == 1


def test_a_bug_is_told_without_a_traceback_and_shown_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise ZeroDivisionError("never mind")

    monkeypatch.setattr("services.kit.auth.mint_token", broken)
    result = mailroom("token")
    assert result.exit_code == 70
    assert "ZeroDivisionError: never mind" in result.stderr
    assert "Traceback" not in result.stderr
    monkeypatch.setenv("MAILROOM_DEBUG", "1")
    assert isinstance(mailroom("token").exception, ZeroDivisionError)


def test_a_token_says_what_was_asked_for() -> None:
    result = mailroom("token", "--sub", "ann", "--scope", "email:read,email:create", "--role", "admin", "--ttl", "2h")
    claims = jwt.decode(result.stdout.strip(), SECRET, algorithms=["HS256"])
    assert (claims["sub"], claims["role"], claims["scope"]) == ("ann", "admin", "email:read email:create")
    assert claims["exp"] - claims["iat"] == 7200
    told = json.loads(mailroom("token", "--json").stdout)
    assert jwt.decode(told["token"], SECRET, algorithms=["HS256"])["scope"].split() == told["scopes"]
    assert (told["expiresIn"], told["role"]) == (3600, "user")


def test_a_token_holds_what_the_services_demand_of_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ISSUER", "crm"), ("AUDIENCE", "mailroom"), ("CLAIM", "azp=pages")):
        monkeypatch.setenv(f"MAILROOM_JWT_{name}", value)
    claims = jwt.decode(mailroom("token").stdout.strip(), SECRET, algorithms=["HS256"], audience="mailroom")
    assert (claims["iss"], claims["azp"]) == ("crm", "pages")


@pytest.mark.parametrize(
    "words", [("--ttl", "31d"), ("--ttl", "0s"), ("--ttl", "soon"), ("--scope", "email:reed"), ("--role", "king")]
)
def test_a_token_that_nobody_should_have_is_wrong_usage(words: tuple[str, ...]) -> None:
    result = mailroom("token", *words)
    assert result.exit_code == 2
    assert result.stdout == ""


def test_no_token_is_minted_for_services_that_would_not_take_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILROOM_JWT_ALGORITHM", "RS256")
    result = mailroom("token")
    assert (result.exit_code, result.stdout) == (1, "")


def test_explain_prints_one_cloud_event_a_line() -> None:
    raw = json.dumps(example("Delivery"))
    result = mailroom("explain", "ses", given=raw)
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    event = json.loads(line)
    assert (event["specversion"], event["type"], event["subject"]) == ("1.0", "email.delivered", MESSAGE_ID)
    told = json.loads(mailroom("explain", "ses", "--json", given=raw).stdout)
    assert told == {"events": [event], "whyNone": None, "refused": False}


def test_explain_takes_a_correlation_where_the_notification_carries_none() -> None:
    raw = json.dumps(example("Delivery", tags=None))
    alone = mailroom("explain", "ses", given=raw)
    assert (alone.exit_code, alone.stdout) == (1, "")
    assert "--correlation" in alone.stderr
    given = mailroom("explain", "ses", "--correlation", f"{MESSAGE_ID},{ATTEMPT_ID}", given=raw)
    event = json.loads(given.stdout)
    assert (event["subject"], event["data"]["attemptId"]) == (MESSAGE_ID, ATTEMPT_ID)


def test_explain_refuses_what_would_be_parked_and_reads_files(tmp_path: Path) -> None:
    path = tmp_path / "notification.json"
    path.write_text("{")
    refused = mailroom("explain", "ses", str(path))
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "would be parked" in refused.stderr
    assert mailroom("explain", "ses", str(tmp_path / "none.json")).exit_code == 2


def test_explain_sendgrid_takes_what_its_webhook_posts() -> None:
    events = [sendgrid.event("delivered"), sendgrid.delayed_bounce("")]
    result = mailroom("explain", "sendgrid", given=json.dumps(events))
    assert (result.exit_code, json.loads(result.stdout)["type"]) == (1, "email.delivered")
    assert "event 2 of 2" in result.stderr
    both = mailroom("explain", "sendgrid", "--correlation", f"{MESSAGE_ID},{ATTEMPT_ID}", given=json.dumps(events))
    assert (both.exit_code, both.stderr) == (0, "")
    assert [json.loads(line)["type"] for line in both.stdout.splitlines()] == ["email.delivered", "email.bounced"]


def test_explain_mailgun_takes_what_its_webhook_posts() -> None:
    result = mailroom("explain", "mailgun", given=json.dumps(mailgun.posted(mailgun.event("OPENED"))))
    assert (result.exit_code, json.loads(result.stdout)["type"]) == (0, "email.opened")
    told = json.loads(mailroom("explain", "mailgun", "--json", given="[]").stdout)
    assert (told["events"], told["refused"]) == ([], True)


def test_explain_dsn_prints_what_a_mail_to_the_mailbox_of_bounces_becomes(tmp_path: Path) -> None:
    path = tmp_path / "bounce.eml"
    path.write_bytes(dsn_examples.postfix())
    event = json.loads(mailroom("explain", "dsn", str(path)).stdout)
    assert (event["type"], event["subject"]) == ("email.bounced", dsn_examples.MESSAGE_ID)
    dropped = mailroom("explain", "dsn", given="Subject: hello\n\n")
    assert (dropped.exit_code, dropped.stdout) == (0, "")
    assert "dropped" in dropped.stderr


def test_explain_s3_prints_the_good_ones_and_says_what_becomes_of_the_others() -> None:
    good, orphan = s3_examples.record(), s3_examples.record(key="not/ours")
    alone = mailroom("explain", "s3", given=json.dumps(s3_examples.sns({"Records": [good]})))
    assert (alone.exit_code, alone.stderr) == (0, "")
    event = json.loads(alone.stdout)
    assert (event["type"], event["subject"]) == ("file.objectCreated", s3_examples.FILE)
    both = mailroom("explain", "s3", given=json.dumps({"Records": [good, orphan]}))
    assert (both.exit_code, json.loads(both.stdout)) == (1, event)
    assert "record 2 of 2 would be parked: orphan" in both.stderr
    told = json.loads(mailroom("explain", "s3", "--json", "--bucket", "other", given=json.dumps(good)).stdout)
    assert (told["events"], told["refused"]) == ([], True)
    assert "wrongBucket" in told["whyNone"]
    hello = mailroom("explain", "s3", given=json.dumps(s3_examples.TEST_EVENT))
    assert (hello.exit_code, hello.stdout) == (0, "")
    assert "TestEvent" in hello.stderr


def test_templates_are_listed_and_previewed(tmp_path: Path) -> None:
    listed = {each["templateId"]: each for each in json.loads(mailroom("templates", "list", "--json").stdout)}
    assert {"2fa-code", "welcome", "password-reset"} <= listed.keys()
    assert "welcome" in mailroom("templates", "list").stdout
    data = tmp_path / "data.json"
    data.write_text('{"name": "Grace Hopper"}')
    page = tmp_path / "page.html"
    result = mailroom("templates", "preview", "welcome", "--data", str(data), "--out", str(page))
    assert result.exit_code == 0
    assert listed["welcome"]["version"] in result.stdout
    assert "Grace Hopper" in page.read_text()
    text = mailroom("templates", "preview", "welcome", "--as", "text").stdout
    assert "Ada Lovelace" in text
    assert "<" not in text


def test_templates_of_ones_own_are_listed_and_previewed_and_broken_ones_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_own(tmp_path, "receipt")
    monkeypatch.setenv("MAILROOM_TEMPLATES_DIR", str(tmp_path))
    listed = mailroom("templates", "list", "--json")
    assert listed.exit_code == 0
    assert {each["templateId"]: each["own"] for each in json.loads(listed.stdout)} == {
        "2fa-code": False, "password-reset": False, "receipt": True, "welcome": False,
    }  # fmt: skip
    write_own(tmp_path, "reminder", text="{{ nobody }}")
    write_own(tmp_path, "welcome")
    listed = mailroom("templates", "list")
    assert listed.exit_code == 1, "a check before a deployment ends with this"
    assert "receipt" in listed.stdout
    assert "reminder" not in listed.stdout
    assert "reminder, mail.txt: not declared in the manifest's data: nobody" in listed.stderr
    assert "welcome: a template that ships has this id" in listed.stderr
    assert mailroom("templates", "preview", "receipt", "--as", "text").stdout == "Thanks, Ada.\n"
    broken = mailroom("templates", "preview", "reminder")
    assert (broken.exit_code, broken.stdout) == (1, "")
    assert "not declared in the manifest's data: nobody" in broken.stderr
    monkeypatch.setenv("MAILROOM_TEMPLATES_DIR", str(tmp_path / "nowhere"))
    nowhere = mailroom("templates", "list")
    assert nowhere.exit_code == 78
    assert "MAILROOM_TEMPLATES_DIR" in nowhere.stderr


def test_a_preview_of_what_is_not_there_or_cannot_be_rendered_says_why(tmp_path: Path) -> None:
    unknown = mailroom("templates", "preview", "farewell")
    assert unknown.exit_code == 1
    assert "welcome" in unknown.stderr
    data = tmp_path / "data.json"
    data.write_text('{"isClient": "perhaps"}')
    wrong = mailroom("templates", "preview", "welcome", "--data", str(data))
    assert wrong.exit_code == 1
    assert "isClient" in wrong.stderr
    data.write_text("[1]")
    assert mailroom("templates", "preview", "welcome", "--data", str(data)).exit_code == 1


def test_the_published_schemas_are_what_the_models_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert mailroom("contracts", "check").exit_code == 0
    drifted = tmp_path / "asyncapi.json"
    drifted.write_text("{}")
    monkeypatch.setattr("services.cli.asyncapi.FILE", drifted)
    result = mailroom("contracts", "check", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["differs"] == [
        "contracts/schemas/asyncapi.json is not what the models say; run: mailroom contracts export"
    ]
    assert mailroom("contracts", "export").exit_code == 0
    assert mailroom("contracts", "check").exit_code == 0


def test_asyncapi_has_every_topic_and_every_type() -> None:
    from contracts.registry import EVENTS
    from contracts.topics import TOPICS
    from services.cli import asyncapi

    document = asyncapi.document()
    assert document["channels"].keys() == {topic.name for topic in TOPICS}
    assert document["operations"]["email.commands.low"]["action"] == "receive"
    assert document["operations"]["email.events"]["action"] == "send"
    told = json.dumps(document)
    for name in EVENTS:
        assert f'"const": "{name}"' in told
    assert '"const": "email.cancel"' in told


@pytest.mark.parametrize(
    ("reader", "service"), [("email-settler", "email"), ("files-settler", "files"), ("files-commands", "files")]
)
async def test_skip_parks_where_the_reader_looks(monkeypatch: pytest.MonkeyPatch, reader: str, service: str) -> None:
    asked: list[str] = []

    @asynccontextmanager
    async def database(name: str) -> AsyncIterator[None]:
        asked.append(name)
        yield None

    async def nowhere(*_: object) -> set[int]:
        return set()

    monkeypatch.setattr(skip, "database", database)
    monkeypatch.setattr(skip, "_stands", nowhere)
    monkeypatch.setenv("FILE_ENCRYPTION_KEY", SECRET)
    monkeypatch.setattr("services.kit.parking_mongo.MongoParkingLot.__init__", lambda *_: None)
    assert await skip._step_over(reader, Partition("t", 0), 3, skip._InTheWay("a lost head", 4, None)) == (None, True)
    assert asked == [service]


def test_why_says_that_an_attempt_was_made_after_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    log = make.Log()
    again = make.attempted("a2", provider="mailgun", reason="resend")
    history = [make.requested(category="auth"), make.attempted(), make.unknown(), again]
    known: Known = {}
    for offset, each in enumerate(history):
        add(known, read_event(log.raw(each), 0, offset))

    async def read(message_id: str) -> tuple[None, list[Any]]:
        return None, list(known.values())

    monkeypatch.setattr(why, "_read_email", read)
    monkeypatch.setenv("COLUMNS", "160")
    told = mailroom("why", "email_log", make.MESSAGE)
    assert told.exit_code == 0
    words = " ".join(told.stdout.split())
    assert words.count("resend: the outcome of an earlier attempt is unknown") == 1, told.stdout
