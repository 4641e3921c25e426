"""`mailroom topics acls`: from the tables that the consumers and producers are made of."""

from __future__ import annotations

import itertools
import json
import shlex

from typer.testing import CliRunner

from contracts.topics import FILES_EVENTS, LANES, TOPICS
from services.cli.app import app
from services.cli.topics import acls_of, as_commands
from services.email import kafka_access as email
from services.files import kafka_access as files

GROUPS = {
    "email-intake-urgent",
    "email-intake-high",
    "email-intake-normal",
    "email-intake-low",
    "email-translator",
    "email-settler",
    "email-files",
    "files-commands",
    "files-translator",
    "files-settler",
    "events.email_log",
    "events.file",
}


def names(process: str, operation: str, resource: str = "topic") -> set[str]:
    return {acl.name for acl in acls_of(process) if acl.resource == resource and operation in acl.operations}


def test_every_group_and_every_topic_is_somebodys() -> None:
    services = ("email", "files", "events")
    assert {group for each in services for group in names(each, "Read", "group")} == GROUPS
    used = {topic for each in services for operation in ("Read", "Write") for topic in names(each, operation)}
    assert used == {topic.name for topic in TOPICS}


def test_a_role_is_allowed_less_than_its_service() -> None:
    assert names("email-http", "Write") == {
        *(topic.name for topic in LANES.values()),
        "email.events",
        "email.notifications",  # what webhooks bring
        "recipients.events",
    }
    assert names("email-http", "Read") == set()
    assert names("email-lanes", "Read", "group") == {f"email-intake-{lane}" for lane in LANES}
    assert names("email-settler", "Read") == {"email.events", "files.events"}
    for service, roles in (("email", email.ROLES), ("files", files.ROLES)):
        for role in roles:
            found = acls_of(f"{service}-{role}")
            for acl in found:
                (whole,) = [each for each in acls_of(service) if (each.resource, each.name) == (acl.resource, acl.name)]
                assert set(acl.operations) <= set(whole.operations), (service, role, acl)


def test_the_reading_side_writes_nothing_and_callers_read_nothing() -> None:
    assert names("events", "Write") == set()
    assert names("callers", "Write") == {*(topic.name for topic in LANES.values()), "files.commands"}
    assert names("callers", "Read") == set()


def test_operators_may_do_what_they_retry_and_look_after_topics() -> None:
    assert names("operator", "Create") == {topic.name for topic in TOPICS}
    assert names("operator", "Read", "group") == GROUPS
    assert FILES_EVENTS.name in names("operator", "Write")


def test_commands_say_the_same_as_the_list() -> None:
    told = set()
    for line in as_commands("User:a b", acls_of("email")):
        words = shlex.split(line)
        options = list(itertools.pairwise(words))
        assert ("--allow-principal", "User:a b") in options
        operations = [value for name, value in options if name == "--operation"]
        for kind in ("topic", "group"):
            told |= {
                (kind, value, operation) for name, value in options if name == f"--{kind}" for operation in operations
            }
    assert told == {(acl.resource, acl.name, each) for acl in acls_of("email") for each in acl.operations}


def test_principals_are_given_by_options() -> None:
    run = CliRunner().invoke
    result = run(app, ["topics", "acls", "email", "events", "--principal", "events=User:CN=reader", "--json"])
    assert result.exit_code == 0
    principals = {each["process"]: each["principal"] for each in json.loads(result.stdout)}
    assert principals == {"email": "User:mailroom-email", "events": "User:CN=reader"}
    for wrong in ("files=User:x", "events", "events=nobody", "events=User:it's"):
        assert run(app, ["topics", "acls", "email", "events", "--principal", wrong]).exit_code == 2, wrong
    assert run(app, ["topics", "acls", "email-nobody"]).exit_code == 2
