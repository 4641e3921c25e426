"""Every problem at once, by the variable's name, without a secret's value."""

import pytest
from pydantic import Field, SecretStr

from services.kit.errors import SettingsError
from services.kit.settings import KitSettings, Words, load
from services.kit.testing import captured_logs

GOOD = {
    "MAILROOM_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "MAILROOM_MONGO_URL": "mongodb://user:mongo-password@127.0.0.1:27017",
    "MAILROOM_PUBLIC_URL": "https://Mail.example.com/",
    "FILE_ENCRYPTION_KEY": "e" * 32,
    "MAILROOM_JWT_ALGORITHM": "HS256",
    "MAILROOM_JWT_SECRET": "j" * 32,
}


RS256 = {"MAILROOM_JWT_ALGORITHM": "RS256", "MAILROOM_JWKS_URL": "https://id.example.com/jwks.json"}


class Fuller(KitSettings):
    senders: Words = Field((), alias="MAILROOM_SENDER_ADDRESSES")
    webhook_secret: SecretStr = Field(alias="WEBHOOK_SECRET", description="what webhooks are signed with")


def test_good_settings_load() -> None:
    settings = load(KitSettings, GOOD)
    assert settings.public_url == "https://mail.example.com"
    assert settings.http_host == "127.0.0.1"
    assert settings.key_ring().open(settings.key_ring().seal(b"x", b""), b"") == b"x"


def test_every_problem_is_told_at_once_and_no_value() -> None:
    environ = {
        "MAILROOM_MONGO_URL": "http://value-of-mine",
        "MAILROOM_PUBLIC_URL": "value-of-mine",
        "FILE_ENCRYPTION_KEY": "value-of-mine",
        "MAILROOM_OLD_ENCRYPTION_KEYS": "value-of-mine,value-of-mine",
        "MAILROOM_JWT_ALGORITHM": "HS256",
        "MAILROOM_LOG_LEVEL": "value-of-mine",
        "MAILROOM_TRACES": "otlp",
    }
    with pytest.raises(SettingsError) as caught:
        load(Fuller, environ)
    named = [problem.split(" ")[0] for problem in caught.value.problems]
    assert sorted(named) == [
        "FILE_ENCRYPTION_KEY",
        "MAILROOM_JWT_SECRET",
        "MAILROOM_KAFKA_BOOTSTRAP",
        "MAILROOM_LOG_LEVEL",
        "MAILROOM_MONGO_URL",
        "MAILROOM_OLD_ENCRYPTION_KEYS",
        "MAILROOM_PUBLIC_URL",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "WEBHOOK_SECRET",
    ]
    assert "value-of-mine" not in str(caught.value)
    assert "WEBHOOK_SECRET is not set. Set it to what webhooks are signed with." in caught.value.problems


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"MAILROOM_JWT_ALGORITHM": "RS256"}, "MAILROOM_JWKS_URL is needed"),
        ({"MAILROOM_JWT_ALGORITHM": "RS256", "MAILROOM_JWKS_URL": "http://id.example.com/k"}, "must be https"),
        (RS256, "MAILROOM_JWT_ISSUER is needed"),
        (RS256, "MAILROOM_JWT_CLAIM is needed, because .* MAILROOM_JWT_AUDIENCE is not set either"),
        (RS256 | {"MAILROOM_JWT_CLAIM": "mailroom"}, "MAILROOM_JWT_CLAIM is wrong: not a claim and its value"),
        (RS256 | {"MAILROOM_JWT_CLAIM": "scope=email:read"}, "the claim scope does not tell whom a token is for"),
        ({"MAILROOM_JWT_ALGORITHM": "none"}, "MAILROOM_JWT_ALGORITHM is wrong"),
        ({"MAILROOM_JWT_SECRET": "short"}, "MAILROOM_JWT_SECRET is wrong: too short"),
        ({"MAILROOM_PUBLIC_URL": "https://a.example/path"}, "not an origin"),
        ({"MAILROOM_CORS_ORIGINS": "https://a.example,*"}, "MAILROOM_CORS_ORIGINS is wrong"),
        ({"MAILROOM_KAFKA_BOOTSTRAP": "  "}, "MAILROOM_KAFKA_BOOTSTRAP is not set"),
    ],
)
def test_rules(changes: dict[str, str], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        load(KitSettings, GOOD | changes)


@pytest.mark.parametrize(
    ("given", "claims"),
    [
        ({"MAILROOM_JWT_AUDIENCE": "mailroom"}, {"aud": "mailroom"}),
        ({"MAILROOM_JWT_CLAIM": "client_id = 7abc=="}, {"client_id": "7abc=="}),
        ({"MAILROOM_JWT_AUDIENCE": "m", "MAILROOM_JWT_CLAIM": "azp=crm"}, {"aud": "m", "azp": "crm"}),
    ],
)
def test_rs256_starts_with_an_issuer_and_one_claim_that_names_us(given: dict[str, str], claims: dict[str, str]) -> None:
    settings = load(KitSettings, GOOD | RS256 | {"MAILROOM_JWT_ISSUER": "https://id.example.com"} | given)
    assert settings.token_claims() == claims


def test_lists_and_secrets() -> None:
    old = "o" * 32
    environ = GOOD | {
        "MAILROOM_SENDER_ADDRESSES": "a@x.de, b@y.de,",
        "MAILROOM_OLD_ENCRYPTION_KEYS": old,
        "WEBHOOK_SECRET": "hush-hush",
    }
    settings = load(Fuller, environ)
    assert settings.senders == ("a@x.de", "b@y.de")
    assert {"e" * 32, old, "j" * 32, "hush-hush", GOOD["MAILROOM_MONGO_URL"]} == set(settings.secret_values())
    assert not any(secret in repr(settings) for secret in settings.secret_values())


def test_strange_variables_are_warned_of_with_what_was_meant() -> None:
    environ = GOOD | {"MAILROOM_LOG_LEVLE": "debug", "MAILROOM_EVENTS_PORT": "1", "MAILROOM_XYZZY": "2", "PATH": "/bin"}
    with captured_logs() as captured:
        load(KitSettings, environ, others=["MAILROOM_EVENTS_PORT"])
    told = {event["variable"]: event["meant"] for event in captured.events}
    assert told == {"MAILROOM_LOG_LEVLE": "MAILROOM_LOG_LEVEL", "MAILROOM_XYZZY": None}


def test_whom_we_believe_about_who_calls_is_named_by_address() -> None:
    assert load(KitSettings, GOOD).trusted_proxies == ()
    trusted = load(KitSettings, {**GOOD, "MAILROOM_TRUSTED_PROXIES": "10.0.0.7, 10.0.1.0/24,2001:DB8::7"})
    assert trusted.trusted_proxies == ("10.0.0.7", "10.0.1.0/24", "2001:db8::7")
    for wrong in ("*", "gateway", "10.0.1.9/24", "10.0.0.7,gateway"):
        with pytest.raises(SettingsError, match="MAILROOM_TRUSTED_PROXIES is wrong: not an address or a network"):
            load(KitSettings, {**GOOD, "MAILROOM_TRUSTED_PROXIES": wrong})
