"""Clients of a broker that asks for TLS and a log-in: let in where the settings are right, and told why where not."""

from __future__ import annotations

import base64
import json
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from contracts.topics import DAY_MS, Topic
from services.cli.app import app
from services.cli.topics import acls_of
from services.events.adapters.kafka_log import KafkaLog
from services.kit.errors import MailroomError, Unavailable
from services.kit.kafka.access import Access, Acl, Reading, acls
from services.kit.kafka.component import loop_report, publisher_report
from services.kit.kafka.connection import Connection
from services.kit.kafka.consumer_loop import ConsumerLoop
from services.kit.kafka.group_lags import group_lags
from services.kit.kafka.msk import MskTokens
from services.kit.kafka.publisher import KafkaPublisher, Outgoing
from services.kit.kafka.records import Partition
from services.kit.kafka.stepping_over import fetch_batch, first_offset, standing, why_unreadable
from services.kit.kafka.topics_admin import apply, verify
from services.kit.testing import captured_logs
from services.kit.testing.parking import MemoryParkingLot
from tests.integration.kafka.harness import SHORT, Ledger, running, until
from tests.integration.security.conftest import PASSWORD, SecuredKafka


def topic() -> Topic:
    return Topic(f"t-{uuid4().hex[:8]}", 2, 3 * DAY_MS, "any")


LET_IN: list[tuple[str, dict[str, Any]]] = [
    ("main", {}),
    ("main", {"SASL_MECHANISM": "SCRAM-SHA-256"}),
    ("main", {"SASL_MECHANISM": "PLAIN", "USERNAME": "plain"}),
    ("login", {}),
    ("login", {"SASL_MECHANISM": "PLAIN", "USERNAME": "plain"}),
    ("tls", {}),
    ("mutual", {}),
    ("clear", {}),
]


@pytest.mark.parametrize(("listener", "changed"), LET_IN)
async def test_right_settings_are_let_in(secured: SecuredKafka, listener: str, changed: dict[str, Any]) -> None:
    assert (await verify(secured.connection(listener, **changed), [])).brokers == 1


WRONG_PASSWORD = "refuses user or password: look at MAILROOM_KAFKA_USERNAME and MAILROOM_KAFKA_PASSWORD"
SPEAKS_TLS = "speaks TLS: MAILROOM_KAFKA_SECURITY_PROTOCOL is PLAINTEXT, that listener needs SSL or SASL_SSL"
IN_CLEAR: dict[str, Any] = {
    "SECURITY_PROTOCOL": "PLAINTEXT",
    "SASL_MECHANISM": None,
    "USERNAME": None,
    "PASSWORD": None,
    "CA_FILE": None,
}

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("main", {"PASSWORD": "wrong"}, WRONG_PASSWORD),
    ("main", {"USERNAME": "eve"}, WRONG_PASSWORD),
    ("main", {"SASL_MECHANISM": "PLAIN", "USERNAME": "plain", "PASSWORD": "wrong"}, WRONG_PASSWORD),
    (
        "main",
        {"CA_FILE": "stranger.pem"},
        "is not trusted (unable to get local issuer certificate): MAILROOM_KAFKA_CA_FILE",
    ),
    ("main", {"BOOTSTRAP": "localhost"}, "is for another name: MAILROOM_KAFKA_BOOTSTRAP must use its own"),
    ("expired", {}, "has expired: renew it there"),
    ("main", IN_CLEAR, SPEAKS_TLS),
    ("tls", IN_CLEAR, SPEAKS_TLS),
    ("clear", {"SECURITY_PROTOCOL": "SSL", "CA_FILE": "authority.pem"}, "is SSL, that listener needs PLAINTEXT"),
    (
        "main",
        {"SECURITY_PROTOCOL": "SSL", "SASL_MECHANISM": None, "USERNAME": None, "PASSWORD": None},
        "ends the connection of clients that do not log in: MAILROOM_KAFKA_SECURITY_PROTOCOL must be SASL_SSL",
    ),
    (
        "tls",
        {
            "SECURITY_PROTOCOL": "SASL_SSL",
            "SASL_MECHANISM": "SCRAM-SHA-512",
            "USERNAME": "admin",
            "PASSWORD": PASSWORD,
        },
        "takes no log-in: MAILROOM_KAFKA_SECURITY_PROTOCOL must be SSL",
    ),
    (
        "mutual",
        {"CERTIFICATE_FILE": None, "KEY_FILE": None},
        "refuses our certificate (certificate required): look at MAILROOM_KAFKA_CERTIFICATE_FILE",
    ),
    (
        "mutual",
        {"CERTIFICATE_FILE": "strange-client-certificate.pem", "KEY_FILE": "strange-client-key.pem"},
        "refuses our certificate (certificate unknown): look at MAILROOM_KAFKA_CERTIFICATE_FILE",
    ),
]


@pytest.mark.parametrize(("listener", "changed", "told"), REFUSED)
async def test_what_is_refused_is_told_with_its_setting(
    secured: SecuredKafka, listener: str, changed: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line of a command, as of everything that reaches Kafka."""
    secured.stranger.signs("strange-client")
    folder = secured.authority.file.parent
    given: dict[str, Any] = {n: folder / str(v) if str(v).endswith(".pem") else v for n, v in changed.items()}
    if "BOOTSTRAP" in given:
        given["BOOTSTRAP"] = f"{given['BOOTSTRAP']}:{secured.ports[listener]}"
    with pytest.raises(Unavailable) as caught:
        await verify(secured.connection(listener, **given), [])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_commands_tell_it_in_one_line(secured: SecuredKafka, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in secured.environ(PASSWORD="wrong").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MAILROOM_MONGO_URL", "mongodb://127.0.0.1:1")
    for words in (["topics", "verify"], ["topics", "apply"], ["lag"]):
        result = CliRunner().invoke(app, words, prog_name="mailroom")
        assert result.exit_code == 3, result.output
        assert result.stderr.startswith("mailroom: Kafka: the broker 127.0.0.1:")
        assert result.stderr.endswith(f"{WRONG_PASSWORD}\n")
        assert result.stderr.count("\n") == 1


def test_a_client_certificate_that_has_expired_is_found_at_the_start(secured: SecuredKafka) -> None:
    old = secured.authority.signs("old-client", lasts=timedelta(hours=-1))
    with pytest.raises(MailroomError, match=r"MAILROOM_KAFKA_CERTIFICATE_FILE is wrong: .* has expired on"):
        secured.connection("mutual", CERTIFICATE_FILE=old.certificate, KEY_FILE=old.key)


async def test_everything_that_is_refused_says_so_in_its_health_and_log(secured: SecuredKafka) -> None:
    """A wrong password, and everything of ours that reaches Kafka: nobody tries for ever without a word."""
    wrong = secured.connection(PASSWORD="wrong")
    where = Partition("any", 0)
    for call in (
        lambda: group_lags(wrong),
        lambda: apply(wrong),
        lambda: first_offset(wrong, where),
        lambda: standing(wrong, "any", where),
        lambda: fetch_batch(wrong, where, 0),
        lambda: why_unreadable(wrong, where, 0),
        KafkaLog(wrong, "any").start,
    ):
        with pytest.raises(Unavailable, match="refuses user or password"):
            await call()
    publisher = KafkaPublisher(wrong)
    loop = ConsumerLoop(wrong, "any", ["any"], Ledger().handler, MemoryParkingLot(), limits=SHORT)
    with captured_logs() as logs:
        await publisher.start(timeout=0.1)
        async with running(loop):
            await until(lambda: WRONG_PASSWORD in publisher.trouble, what="the producer says why")
            await until(lambda: WRONG_PASSWORD in str(loop.health().reasons), what="the consumer says why")
            report, looped = publisher_report(publisher), loop_report(loop.health())
            (answer,) = await publisher.publish([Outgoing("any", None, b"x")])
        await publisher.stop()
    assert (report.live, report.ready) == (True, False)
    assert WRONG_PASSWORD in str(report.detail)
    assert (looped.live, looped.ready) == (True, False)
    assert WRONG_PASSWORD in str(answer)
    told = {each["event"] for each in logs.events if WRONG_PASSWORD in str(each.get("error"))}
    assert told == {"Kafka does not answer the producer", "consumer failed, a new one begins"}


async def works(connection: Connection, wanted: Topic, group: str) -> None:
    """Publish, consume and commit, read by offset, and what `skip` and `lag` ask."""
    publisher = KafkaPublisher(connection, publishes=[wanted])
    ledger = Ledger()
    await publisher.start()
    try:
        items = [Outgoing(wanted.name, b"k%d" % n, b"%d" % n) for n in range(20)]
        assert await publisher.publish(items) == [None] * 20
    finally:
        await publisher.stop()
    loop = ConsumerLoop(connection, group, [wanted.name], ledger.handler, MemoryParkingLot(), limits=SHORT)
    async with running(loop):
        await until(lambda: ledger.handled == 20 and loop.health().caught_up, what=str(loop.health()))
    log = KafkaLog(connection, wanted.name, group=group)
    await log.start()
    try:
        ends = {partition: end for partition, (_, end) in (await log.bounds()).items()}
    finally:
        await log.stop()
    assert sum(ends.values()) == 20
    partition = Partition(wanted.name, max(ends, key=lambda each: ends[each]))
    assert await standing(connection, group, partition) == ends[partition.partition]
    assert (await fetch_batch(connection, partition, 0)).first == 0
    assert await why_unreadable(connection, partition, 0) == ""
    assert {each.group for each in await group_lags(connection, [wanted.name])} == {group}


async def test_a_user_with_its_acls_works_and_another_is_refused(secured: SecuredKafka) -> None:
    wanted, other = topic(), topic()
    group = f"g-{uuid4().hex[:8]}"
    made = await apply(secured.connection(), [wanted, other])
    assert made.differs == ()
    await secured.allow("email", *acls(Access((Reading(group, wanted.name),), (wanted,))))
    await works(secured.connection(user="email"), wanted, group)

    publisher = KafkaPublisher(secured.connection(user="email"))
    await publisher.start()
    try:
        mine, theirs = await publisher.publish([Outgoing(wanted.name, None, b"x"), Outgoing(other.name, None, b"x")])
    finally:
        await publisher.stop()
    assert mine is None
    assert "the broker refuses this user (TopicAuthorizationFailed" in str(theirs)
    assert str(theirs).endswith("see `mailroom topics acls`")

    loop = ConsumerLoop(
        secured.connection(user="nobody"), group, [wanted.name], Ledger().handler, MemoryParkingLot(), limits=SHORT
    )
    async with running(loop):
        await until(lambda: "the broker refuses this user" in str(loop.health().reasons), what=str(loop.health()))


async def test_an_operator_with_its_acls_looks_after_topics(secured: SecuredKafka) -> None:
    wanted = topic()
    with pytest.raises(Unavailable):
        await apply(secured.connection(user="operator"), [wanted])
    operations = {acl.operations for acl in acls_of("operator") if acl.name == "recipients.events"}
    assert operations == {("AlterConfigs", "Create", "DescribeConfigs", "Write")}
    await secured.allow("operator", Acl("topic", wanted.name, *operations))
    mine = secured.connection(user="operator")
    assert [each.what for each in (await apply(mine, [wanted])).mended] == ["missing"]
    changed = replace(wanted, retention_ms=DAY_MS)
    assert [each.what for each in (await apply(mine, [changed])).mended] == ["retention.ms"]
    assert (await verify(mine, [changed])).differs == ()


class Unsigned(MskTokens):
    """Tokens as Kafka's own validator for tests takes them, in the place of AWS's."""

    def _sign(self) -> str:
        now = int(time.time())
        claims = {"sub": "admin", "iat": now, "exp": now + 900}
        parts = [base64.urlsafe_b64encode(json.dumps(each).encode()).rstrip(b"=") for each in ({"alg": "none"}, claims)]
        return b".".join([*parts, b""]).decode()


async def test_a_token_is_a_login_too(secured: SecuredKafka) -> None:
    security = dict(secured.connection().security)
    for name in ("sasl_plain_username", "sasl_plain_password"):
        del security[name]
    bootstrap = secured.connection().bootstrap
    with_token = security | {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_provider": Unsigned("nowhere")}
    wanted = topic()
    connection = Connection(bootstrap, with_token)
    await apply(connection, [wanted])
    await works(connection, wanted, f"g-{uuid4().hex[:8]}")

    class Wrong(MskTokens):
        def _sign(self) -> str:
            return "none"

    with pytest.raises(Unavailable, match=r"refuses our token: .* MAILROOM_KAFKA_AWS_REGION"):
        await verify(Connection(bootstrap, with_token | {"sasl_oauth_token_provider": Wrong("nowhere")}), [])
