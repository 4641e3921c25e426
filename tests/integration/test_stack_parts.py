"""The parts of a stack, really started, killed and started again."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pymongo
import pytest

from deploy import compose
from deploy.local.__main__ import main
from deploy.local.endpoints import AwsEndpoints
from deploy.local.site import ROOT, StackError, port_setting, throwaway_site
from deploy.local.stack import Stack
from deploy.processes import ACCOUNT, AwsResources
from tests.integration.own_stack import own_stack


@pytest.fixture(scope="module")
def own_mongo() -> Iterator[Stack]:
    """A MongoDB that nobody else uses."""
    with own_stack("mongo") as stack:
        yield stack


def test_starting_what_runs_changes_nothing(own_mongo: Stack) -> None:
    own_mongo.start(["mongo"])
    before = own_mongo.child("mongo")
    own_mongo.start(["mongo"])
    assert own_mongo.child("mongo") == before
    assert own_mongo.ready(["mongo"])


def test_a_killed_part_is_seen_as_down_and_comes_back_with_its_data(own_mongo: Stack) -> None:
    own_mongo.start(["mongo"])
    database = pymongo.MongoClient[dict[str, object]](own_mongo.site.addresses().mongo_url)["stack_parts"]
    database["kept"].insert_one({"_id": "it"})
    before = own_mongo.child("mongo")
    own_mongo.kill("mongo")
    assert own_mongo.problem("mongo") == "not running"
    assert not own_mongo.ready(["mongo"])
    own_mongo.start(["mongo"])
    assert own_mongo.child("mongo") != before
    assert database["kept"].find_one({"_id": "it"}) is not None
    database.client.close()


def test_a_later_stack_of_the_same_site_finds_and_stops_what_an_earlier_one_started(own_mongo: Stack) -> None:
    own_mongo.start(["mongo"])
    child = Stack(own_mongo.site).child("mongo")
    assert child is not None
    Stack(own_mongo.site).stop()
    assert not child.alive()
    Stack(own_mongo.site).stop()


def test_a_port_in_use_is_named_with_its_setting_and_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.stack.PORT_SECONDS", 0.1)
    stack = Stack(throwaway_site(tmp_path, os.environ))
    with socket.create_server(("127.0.0.1", stack.site.ports["kafka"])), pytest.raises(StackError) as raised:
        stack.start(["mongo", "kafka"])
    assert f"port {stack.site.ports['kafka']} for kafka is in use" in str(raised.value)
    assert "MAILROOM_KAFKA_PORT" in str(raised.value)
    assert stack.child("mongo") is None


def test_a_part_that_ends_while_starting_is_reported_with_its_last_words(tmp_path: Path) -> None:
    stack = Stack(throwaway_site(tmp_path, os.environ))
    (stack.site.data_dir("mongo") / "mongod.lock").mkdir(parents=True)
    try:
        with pytest.raises(StackError, match=r"mongo ended while starting(.|\n)*status of lock file"):
            stack.start(["mongo"])
    finally:
        stack.stop()


def test_unknown_parts_are_refused(test_stack: Stack) -> None:
    with pytest.raises(StackError, match="No part is called mysql; there are kafka"):
        test_stack.start(["mysql"])


def test_the_resources_are_named_as_compose_expects_and_can_be_deployed_again(
    test_stack: Stack, aws: AwsEndpoints
) -> None:
    made = test_stack.resources()

    def names(of: AwsResources, url: str, account: str) -> dict[str, str]:
        """But those of the distribution, which the emulator does not make."""
        found = {name: value for name, value in asdict(of).items() if not name.startswith("distribution")}
        return {name: value.replace(url, "").replace(account, "account") for name, value in found.items()}

    expected = names(compose.resources(), compose.ADDRESSES.aws_url, ACCOUNT)
    assert names(made, test_stack.site.url("aws"), aws.account) == expected
    test_stack.start(["resources"])
    assert test_stack.resources() == made


def test_the_command_starts_reports_and_stops_a_stack_and_can_be_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Up and logs as a person runs them, the rest in this process."""
    ports = {port_setting(name): str(port) for name, port in throwaway_site(tmp_path, {}).ports.items()}
    for name, value in {**ports, "MAILROOM_STATE_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)

    def process(*arguments: str) -> str:
        whole = [sys.executable, "-m", "deploy.local", *arguments]
        return subprocess.run(whole, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout

    def command(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        return main(arguments), *capfd.readouterr()

    def state(name: str) -> str:
        return next(str(row["state"]) for row in json.loads(command("status", "--json")[1]) if row["part"] == name)

    try:
        assert "mongo        ready in" in process("up", "mongo")
        assert "mongo        runs already" in command("up", "mongo")[1]
        assert (state("mongo"), state("kafka")) == ("ready", "down")
        assert command("status")[0] == 1
        assert "Waiting for connections" in process("logs", "mongo", "-n", "1000")
        assert command("kill", "mongo")[0] == 0
        assert state("mongo") == "down"
        assert command("kill", "mongo")[2].strip() == "mailroom: mongo is not running."
        assert "mongo        ready in" in command("restart", "mongo")[1]
    finally:
        stopped = command("down")
    assert "mongo        stopped in" in stopped[1]
    assert "Nothing was running." in command("down")[1]


def test_secrets_are_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    site = throwaway_site(tmp_path, os.environ)
    first = Stack(site).env()
    assert Stack(site).env() == first
    assert first["FILE_ENCRYPTION_KEY"] != first["WEBHOOK_SECRET"]
    assert site.secrets_file.stat().st_mode & 0o077 == 0
    assert Stack(throwaway_site(tmp_path / "other", os.environ)).env()["WEBHOOK_SECRET"] != first["WEBHOOK_SECRET"]
