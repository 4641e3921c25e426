"""How Kafka's security is set: contradictions are told all at once, and every client takes what is set."""

from __future__ import annotations

import ast
import ssl
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from aiokafka.conn import collect_hosts

from deploy.local.site import ROOT
from services.kit.errors import SettingsError
from services.kit.kafka.broker import build_broker
from services.kit.kafka.msk import MskTokens, NoToken
from services.kit.kafka_settings import SIGNER, KafkaSettings
from services.kit.settings import load
from tests.integration.certificates import Authority

BOOTSTRAP = {"MAILROOM_KAFKA_BOOTSTRAP": "kafka.example:9092"}
SCRAM = {
    "MAILROOM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "MAILROOM_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "MAILROOM_KAFKA_USERNAME": "mailroom",
    "MAILROOM_KAFKA_PASSWORD": "a-password",
}
MSK = {
    "MAILROOM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "MAILROOM_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
    "MAILROOM_KAFKA_AWS_REGION": "eu-central-1",
}


def loaded(environ: dict[str, str]) -> KafkaSettings:
    return load(KafkaSettings, {**BOOTSTRAP, **environ})


def problems(environ: dict[str, str]) -> list[str]:
    """What is wrong, as `variable: beginning of the words`."""
    with pytest.raises(SettingsError) as caught:
        loaded(environ)
    assert "a-password" not in str(caught.value)
    return [problem.removeprefix("MAILROOM_KAFKA_") for problem in caught.value.problems]


@pytest.fixture
def signer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The vendor's package, as far as it is called."""

    class MSKAuthTokenProvider:
        fails: Exception | None = None

        @classmethod
        def generate_auth_token(cls, region: str) -> tuple[str, int]:
            if cls.fails is not None:
                raise cls.fails
            return f"token-for-{region}", 0

    module = ModuleType(SIGNER)
    module.MSKAuthTokenProvider = MSKAuthTokenProvider  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, SIGNER, module)
    monkeypatch.setattr("services.kit.kafka_settings.find_spec", lambda name: module if name == SIGNER else None)
    return MSKAuthTokenProvider


def test_without_settings_there_is_neither_tls_nor_a_login() -> None:
    assert loaded({}).kafka.arguments("c") == {"bootstrap_servers": "kafka.example:9092", "client_id": "c"}


def test_a_login_over_tls() -> None:
    arguments = loaded(SCRAM).kafka.arguments("c")
    context = arguments["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert {name: value for name, value in arguments.items() if name.startswith("s") and name != "ssl_context"} == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "mailroom",
        "sasl_plain_password": "a-password",
    }


def test_all_clients_of_a_process_share_what_they_trust() -> None:
    settings = loaded(SCRAM)
    assert settings.kafka.security["ssl_context"] is settings.kafka.security["ssl_context"]


def test_a_password_is_shown_nowhere() -> None:
    settings = loaded(SCRAM)
    assert "a-password" not in repr(settings) + repr(settings.kafka)


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", None, "OAUTHBEARER"])
def test_the_producers_broker_is_given_the_same(mechanism: str | None, signer: Any) -> None:
    environ = {**SCRAM, "MAILROOM_KAFKA_SASL_MECHANISM": mechanism or ""}
    if mechanism is None:
        environ = {"MAILROOM_KAFKA_SECURITY_PROTOCOL": "SSL"}
    if mechanism == "OAUTHBEARER":
        environ = MSK
    connection = loaded(environ).kafka
    given = build_broker(connection)._connection_kwargs
    assert {name: given[name] for name in connection.security} == connection.security


def test_the_producer_finds_each_of_several_addresses() -> None:
    connection = load(
        KafkaSettings, {"MAILROOM_KAFKA_BOOTSTRAP": "a.example:9092,b.example:9093, c.example:9094"}
    ).kafka
    given = build_broker(connection)._connection_kwargs["bootstrap_servers"]
    assert [f"{host}:{port}" for host, port, _ in collect_hosts(given, randomize=False)] == [
        "a.example:9092",
        "b.example:9093",
        "c.example:9094",
    ]


def test_contradictions_are_told_all_at_once() -> None:
    assert problems(
        {
            "MAILROOM_KAFKA_SECURITY_PROTOCOL": "SSL",
            "MAILROOM_KAFKA_SASL_MECHANISM": "PLAIN",
            "MAILROOM_KAFKA_CA_FILE": "/nowhere/ca.pem",
            "MAILROOM_KAFKA_CERTIFICATE_FILE": "/nowhere/certificate.pem",
        }
    ) == [
        "SASL_MECHANISM is set, but MAILROOM_KAFKA_SECURITY_PROTOCOL is SSL, without a log-in: set that to SASL_SSL or "
        "unset this.",
        "CA_FILE is wrong: /nowhere/ca.pem cannot be read (No such file or directory). Set it to a PEM file of the "
        "authorities that sign the brokers' certificates (default: the system's).",
        "CERTIFICATE_FILE is wrong: /nowhere/certificate.pem cannot be read (No such file or directory). Set it to a "
        "PEM file with the client's certificate and its chain.",
    ]


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"MAILROOM_KAFKA_SECURITY_PROTOCOL": "TLS"}, ["SECURITY_PROTOCOL is wrong"]),
        ({"MAILROOM_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, ["SASL_MECHANISM is needed"]),
        ({"MAILROOM_KAFKA_USERNAME": "x", "MAILROOM_KAFKA_PASSWORD": "y"}, ["USERNAME is set, but", "PASSWORD is set"]),
        (
            {**SCRAM, "MAILROOM_KAFKA_USERNAME": "", "MAILROOM_KAFKA_PASSWORD": ""},
            ["USERNAME is need", "PASSWORD is need"],
        ),
        ({**SCRAM, "MAILROOM_KAFKA_AWS_REGION": "eu-central-1"}, ["AWS_REGION is set, but"]),
        ({"MAILROOM_KAFKA_CA_FILE": __file__}, ["CA_FILE is set, but MAILROOM_KAFKA_SECURITY_PROTOCOL is PLAINTEXT"]),
        ({**SCRAM, "MAILROOM_KAFKA_CA_FILE": __file__}, [f"CA_FILE is wrong: {__file__} holds no certificate in PEM"]),
        (
            {**SCRAM, "MAILROOM_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "MAILROOM_KAFKA_SASL_MECHANISM": "PLAIN"},
            ["SASL_MECHANISM is wrong: PLAIN over SASL_PLAINTEXT shows the password to the network"],
        ),
        (MSK, ["SASL_MECHANISM is wrong: OAUTHBEARER takes the package aws-msk-iam-sasl-signer-python, which is not"]),
    ],
)
def test_contradiction(environ: dict[str, str], told: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.kit.kafka_settings.find_spec", lambda name: None)
    found = problems(environ)
    assert len(found) == len(told), found
    assert all(problem.startswith(begins) for problem, begins in zip(found, told, strict=True)), found


def test_a_password_may_go_in_clear_on_this_machine() -> None:
    here = {"MAILROOM_KAFKA_BOOTSTRAP": "127.0.0.1:9092,localhost:9093,[::1]:9094"}
    clear = {"MAILROOM_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "MAILROOM_KAFKA_SASL_MECHANISM": "PLAIN"}
    assert load(KafkaSettings, {**SCRAM, **here, **clear}).kafka.protocol == "SASL_PLAINTEXT"


def test_msk_needs_a_region_and_no_user(signer: Any) -> None:
    found = problems({**SCRAM, "MAILROOM_KAFKA_SASL_MECHANISM": "OAUTHBEARER"})
    assert [problem.split(" is ")[0] for problem in found] == ["USERNAME", "PASSWORD", "AWS_REGION"]


async def test_a_token_is_signed_for_each_connection(signer: Any) -> None:
    tokens = loaded(MSK).kafka.security["sasl_oauth_token_provider"]
    assert isinstance(tokens, MskTokens)
    assert await tokens.token() == "token-for-eu-central-1"
    signer.fails = AttributeError("'NoneType' object has no attribute 'access_key'")
    with pytest.raises(NoToken, match="no AWS credentials are found"):
        await tokens.token()


class TestFiles:
    TLS: ClassVar = {"MAILROOM_KAFKA_SECURITY_PROTOCOL": "SSL"}

    def environ(self, certificate: Path | None = None, key: Path | None = None) -> dict[str, str]:
        given = {"MAILROOM_KAFKA_CERTIFICATE_FILE": certificate, "MAILROOM_KAFKA_KEY_FILE": key}
        return self.TLS | {name: str(path) for name, path in given.items() if path is not None}

    def test_a_pair_is_loaded(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        pair = authority.signs("client")
        environ = self.environ(pair.certificate, pair.key) | {"MAILROOM_KAFKA_CA_FILE": str(authority.file)}
        context = loaded(environ).kafka.security["ssl_context"]
        assert [each["subject"] for each in context.get_ca_certs()] == [((("commonName", "authority"),),)]

    def test_half_a_pair(self, tmp_path: Path) -> None:
        pair = Authority(tmp_path).signs("client")
        assert problems(self.environ(certificate=pair.certificate))[0].startswith("KEY_FILE is needed, because")
        assert problems(self.environ(key=pair.key))[0].startswith("KEY_FILE is set, but MAILROOM_KAFKA_CERT")

    def test_a_key_of_another_certificate(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path)
        (told,) = problems(self.environ(authority.signs("a").certificate, authority.signs("b").key))
        assert "does not belong to the certificate" in told

    def test_a_certificate_that_has_expired(self, tmp_path: Path) -> None:
        pair = Authority(tmp_path).signs("client", lasts=timedelta(hours=-1))
        (told,) = problems(self.environ(pair.certificate, pair.key))
        assert told.startswith("CERTIFICATE_FILE is wrong: the certificate in ")
        assert "has expired on" in told

    def test_what_is_no_key(self, tmp_path: Path) -> None:
        pair = Authority(tmp_path).signs("client")
        (told,) = problems(self.environ(pair.certificate, pair.certificate))
        assert "holds no private key in PEM that is not encrypted" in told


CLIENTS = {
    "AIOKafkaConsumer",
    "AIOKafkaProducer",
    "AIOKafkaAdminClient",
    "AIOKafkaClient",
    "KafkaBroker",
    "create_conn",
}


def test_every_client_is_made_from_a_connection() -> None:
    """Whoever makes a client gives it the arguments of a `Connection`, and no address of its own: one without its
    security would talk to nobody on a cluster that asks for some.
    """
    made: list[str] = []
    for path in sorted((ROOT / "services").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in CLIENTS):
                continue
            where = f"{path.relative_to(ROOT)}:{call.lineno} {call.func.id}"
            made.append(where)
            names = {keyword.arg for keyword in call.keywords}
            if call.func.id == "KafkaBroker":
                assert "security" in names, where
            elif not where.startswith("services/kit/kafka/diagnosis.py"):  # tries other protocols on purpose
                spread = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg is None]
                assert spread, where
                assert "bootstrap_servers" not in names, where
    assert len(made) >= 12, made


def test_no_service_or_command_takes_the_addresses_alone() -> None:
    """`Where` may be addresses alone, for tests; whatever runs with settings passes the `Connection` that they make."""
    for path in sorted((ROOT / "services").rglob("*.py")):
        if path.name != "kafka_settings.py":
            text = path.read_text()
            assert "kafka_bootstrap" not in text, path
            assert '"MAILROOM_KAFKA_BOOTSTRAP"' not in text, path
