"""The email service's settings: every problem at once and by name, and what they become."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from services.cli.token import SCOPES
from services.email.settings import SCOPED, EmailSettings
from services.email.webhook_settings import secrets
from services.kit.errors import SettingsError
from services.kit.request_limits import Limit
from services.kit.settings import load
from tests.unit.email_service.signing import TOPIC, sendgrid_public

GOOD = {
    "AWS_REGION": "eu-central-1",
    "AWS_S3_BUCKET": "bucket",
    "SES_CONFIGURATION_SET": "mailroom",
    "AWS_SES_FROM_EMAIL": "CRM <crm@Example.com>",
    "AWS_SES_REPLY_TO": "help@example.com",
    "MAILROOM_SENDER_ADDRESSES": "sales@example.com, news@example.com",
    "MAILROOM_NOTIFICATIONS_QUEUE_URL": "http://127.0.0.1/queue",
    "MAILROOM_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "MAILROOM_MONGO_URL": "mongodb://127.0.0.1/?replicaSet=rs0",
    "MAILROOM_PUBLIC_URL": "https://mail.example.com",
    "MAILROOM_JWT_ALGORITHM": "HS256",
    "MAILROOM_JWT_SECRET": "s" * 32,
    "FILE_ENCRYPTION_KEY": "k" * 32,
}


def test_everything_that_is_missing_or_wrong_is_told_at_once() -> None:
    bad = {"AWS_SES_FROM_EMAIL": "nobody", "MAILROOM_SENDER_ADDRESSES": "a@example.com,oops", "AWS_REGION": ""}
    with pytest.raises(SettingsError) as caught:
        load(EmailSettings, GOOD | bad | {"MAILROOM_EMAIL_PORT": "99999"})
    told = " ".join(caught.value.problems)
    for name in (*bad, "MAILROOM_EMAIL_PORT"):
        assert name in told
    assert len(caught.value.problems) == 4


def test_limits_of_requests_are_on_and_each_can_be_set_or_switched_off() -> None:
    limits = load(EmailSettings, GOOD).limits()
    assert set(limits) == {"read", "operate", "public", "unauthenticated", "send", "unsubscribe"}
    assert None not in limits.values()
    changed = load(EmailSettings, GOOD | {"MAILROOM_LIMIT_SEND": "100/1", "MAILROOM_LIMIT_UNSUBSCRIBE": "off"}).limits()
    assert (changed["send"], changed["unsubscribe"]) == (Limit(100, 1), None)
    with pytest.raises(SettingsError, match="MAILROOM_LIMIT_SEND is wrong: not a limit: requests/seconds such as"):
        load(EmailSettings, GOOD | {"MAILROOM_LIMIT_SEND": "100"})


def test_scopes_of_their_own_are_demanded_for_nothing_unless_named() -> None:
    assert load(EmailSettings, GOOD).scoped == ()
    assert load(EmailSettings, GOOD | {"MAILROOM_EMAIL_SCOPES": "auth, urgent"}).scoped == ("auth", "urgent")
    assert {f"email:create:{name}" for name in SCOPED} <= set(SCOPES), "each can be minted for development"
    with pytest.raises(SettingsError, match=r"MAILROOM_EMAIL_SCOPES is wrong: of auth, .*, urgent"):
        load(EmailSettings, GOOD | {"MAILROOM_EMAIL_SCOPES": "auth,high"})


def test_no_webhook_is_set_up_unless_its_provider_is_named() -> None:
    settings = load(EmailSettings, GOOD)
    assert (settings.sns_topics, settings.sendgrid_keys, settings.mailgun_keys) == ((), (), ())
    keys = [sendgrid_public(which) for which in ("first", "second")]
    named = {
        "MAILROOM_SNS_TOPICS": f"{TOPIC}, {TOPIC}-2",
        "MAILROOM_SENDGRID_WEBHOOK_KEYS": ",".join(keys),
        "MAILROOM_MAILGUN_WEBHOOK_KEYS": f"{'a' * 32},{'b' * 32}",
        "MAILROOM_MAILGUN_WEBHOOK_MAX_AGE_HOURS": "12.5",
    }
    settings = load(EmailSettings, GOOD | named)
    assert settings.sns_topics == (TOPIC, f"{TOPIC}-2")
    assert settings.sendgrid_keys == tuple(keys)
    assert secrets(settings.mailgun_keys) == [b"a" * 32, b"b" * 32]
    assert {"a" * 32, "b" * 32} <= set(settings.secret_values()), "no log tells them"
    assert settings.mailgun_max_age == timedelta(hours=12.5)


def test_all_that_is_wrong_about_webhooks_is_told_at_once() -> None:
    """Ages are long enough for what the providers repeat, and short enough to mean something."""
    key = sendgrid_public("first")
    bad = {
        "MAILROOM_SNS_TOPICS": (f"{TOPIC},mailroom", "not ARNs of SNS topics"),
        "MAILROOM_SNS_MAX_AGE_HOURS": ("0", "greater than 0"),
        "MAILROOM_SENDGRID_WEBHOOK_KEYS": (f"{key},{key},{key}", "3 keys, at most 2 are taken"),
        "MAILROOM_SENDGRID_WEBHOOK_MAX_AGE_HOURS": ("1000", "less than or equal to 336"),
        "MAILROOM_MAILGUN_WEBHOOK_KEYS": ("short", "too short"),
        "MAILROOM_MAILGUN_WEBHOOK_MAX_AGE_HOURS": ("soon", "valid number"),
    }
    with pytest.raises(SettingsError) as caught:
        load(EmailSettings, GOOD | {name: value for name, (value, _) in bad.items()})
    assert len(caught.value.problems) == len(bad)
    for name, (value, reason) in bad.items():
        (told,) = [problem for problem in caught.value.problems if problem.startswith(f"{name} ")]
        assert reason in told
        assert len(value) < 8 or value not in told
    with pytest.raises(SettingsError, match="MAILROOM_SENDGRID_WEBHOOK_KEYS is wrong: not a public key in base64"):
        load(EmailSettings, GOOD | {"MAILROOM_SENDGRID_WEBHOOK_KEYS": "nonsense"})


@pytest.mark.parametrize("bad", ["urgent,fast", ","])
def test_lanes_that_do_not_exist_are_refused(bad: str) -> None:
    with pytest.raises(SettingsError, match=r"MAILROOM_EMAIL_LANES.*urgent, high, normal, low"):
        load(EmailSettings, GOOD | {"MAILROOM_EMAIL_LANES": bad})


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ("user", "not JSON"),
        ("[]", "must be an object"),
        (
            '{"email.commands.fast": ["user"]}',
            r"email.commands.fast is no topic of commands; there are .*files.commands",
        ),
        ('{"files.commands": []}', "files.commands needs one or more of user, admin, service"),
        ('{"files.commands": ["root"], "nowhere": ["user"]}', "files.commands needs one .*; nowhere is no topic"),
        ('{"files.commands": "user"}', "files.commands needs one or more"),
    ],
)
def test_roles_by_topic_that_do_not_exist_are_refused(bad: str, told: str) -> None:
    with pytest.raises(SettingsError, match=f"MAILROOM_COMMAND_ROLES is wrong: .*{told}"):
        load(EmailSettings, GOOD | {"MAILROOM_COMMAND_ROLES": bad})


def test_roles_may_be_narrowed_by_topic() -> None:
    assert load(EmailSettings, GOOD).command_roles == {}
    found = load(EmailSettings, GOOD | {"MAILROOM_COMMAND_ROLES": '{"email.commands.low": ["user", "service"]}'})
    assert found.command_roles == {"email.commands.low": ("user", "service")}


def test_lanes_come_in_the_order_of_their_urgency() -> None:
    assert load(EmailSettings, GOOD).lanes == ("urgent", "high", "normal", "low")
    assert load(EmailSettings, GOOD | {"MAILROOM_EMAIL_LANES": "low, urgent"}).lanes == ("urgent", "low")


def test_the_bucket_for_contents_has_a_variable_of_its_own_and_the_old_one_stands_in() -> None:
    assert load(EmailSettings, GOOD).bucket == "bucket"
    assert load(EmailSettings, GOOD | {"MAILROOM_CONTENT_BUCKET": "contents"}).bucket == "contents"
    with pytest.raises(SettingsError, match="MAILROOM_CONTENT_BUCKET is needed, because AWS_S3_BUCKET is not set"):
        load(EmailSettings, GOOD | {"AWS_S3_BUCKET": ""})


def test_the_largest_request_must_fit_into_the_bodies_that_are_taken() -> None:
    load(EmailSettings, GOOD | {"MAILROOM_MAX_ATTACHMENT_BYTES": "25000000"})
    with pytest.raises(SettingsError, match=r"MAILROOM_MAX_ATTACHMENT_BYTES is wrong.*MAILROOM_BODY_BYTES_IN_FLIGHT"):
        load(EmailSettings, GOOD | {"MAILROOM_BODY_BYTES_IN_FLIGHT": "30000000"})


def test_what_they_become() -> None:
    settings = load(EmailSettings, GOOD | {"MAILROOM_UNKNOWN_AFTER_AUTH_MINUTES": "5"})
    assert settings.identity.verified == {"crm@example.com", "sales@example.com", "news@example.com"}
    assert settings.identity.default == "CRM <crm@Example.com>"
    assert settings.policy.unknown_after_auth == timedelta(minutes=5)
    assert settings.account.region == "eu-central-1"
    assert "k" * 32 in settings.secret_values()


def test_the_directory_of_templates_has_to_be_one(tmp_path: Path) -> None:
    assert load(EmailSettings, GOOD).templates_directory is None
    found = load(EmailSettings, GOOD | {"MAILROOM_TEMPLATES_DIR": str(tmp_path)})
    assert found.templates_directory == tmp_path
    with pytest.raises(SettingsError, match="MAILROOM_TEMPLATES_DIR is wrong"):
        load(EmailSettings, GOOD | {"MAILROOM_TEMPLATES_DIR": str(tmp_path / "nowhere")})


def test_ses_alone_carries_mail_unless_others_are_named_and_each_needs_what_it_needs() -> None:
    assert load(EmailSettings, GOOD).providers == ("ses",)
    with pytest.raises(SettingsError) as caught:
        load(EmailSettings, GOOD | {"MAILROOM_PROVIDERS": "mailgun, sendgrid, smtp"})
    told = " ".join(caught.value.problems)
    for name in ("SENDGRID_API_KEY", "MAILGUN_API_KEY", "MAILGUN_DOMAIN", "MAILROOM_SMTP_HOST"):
        assert f"{name} is needed, because MAILROOM_PROVIDERS names" in told
    assert len(caught.value.problems) == 4
    all_of_them = {
        "MAILROOM_PROVIDERS": "mailgun,ses,sendgrid,smtp", "SENDGRID_API_KEY": "SG.x", "MAILGUN_API_KEY": "key",
        "MAILGUN_DOMAIN": "mg.example.com", "MAILROOM_SMTP_HOST": "smtp.example.com",
    }  # fmt: skip
    assert load(EmailSettings, GOOD | all_of_them).providers == ("mailgun", "ses", "sendgrid", "smtp")


TWO = {"MAILROOM_PROVIDERS": "ses,sendgrid", "SENDGRID_API_KEY": "SG.x"}
RESEND = {"MAILROOM_UNKNOWN_AUTH": "resend"}


def test_nothing_is_sent_once_more_unless_that_is_set_and_then_auth_mail_alone() -> None:
    assert load(EmailSettings, GOOD | TWO).policy.resend == frozenset()
    waits = {"MAILROOM_RESEND_AFTER_SECONDS": "90", "MAILROOM_RESEND_AFTER_URGENT_SECONDS": "30"}
    policy = load(EmailSettings, GOOD | TWO | RESEND | waits).policy
    assert policy.resend == {"auth"}
    assert policy.resend_after == timedelta(seconds=90)
    assert policy.resend_after_urgent == timedelta(seconds=30)


def test_mail_cannot_be_sent_once_more_through_the_only_provider() -> None:
    with pytest.raises(SettingsError, match="MAILROOM_UNKNOWN_AUTH is wrong: resend needs a second provider"):
        load(EmailSettings, GOOD | RESEND)


def test_mail_that_has_ended_as_unknown_is_not_sent_once_more() -> None:
    early = {"MAILROOM_UNKNOWN_AFTER_AUTH_MINUTES": "0.5"}
    load(EmailSettings, GOOD | TWO | early)
    with pytest.raises(SettingsError) as caught:
        load(EmailSettings, GOOD | TWO | RESEND | early)
    assert [told.partition(" ")[0] for told in caught.value.problems] == [
        "MAILROOM_RESEND_AFTER_URGENT_SECONDS",
        "MAILROOM_RESEND_AFTER_SECONDS",
    ]


@pytest.mark.parametrize("named", ["pigeons", "ses,ses", "ses,pigeons", ","])
def test_providers_that_there_are_not_or_twice_are_refused(named: str) -> None:
    with pytest.raises(SettingsError, match="MAILROOM_PROVIDERS is wrong: one or more of ses, sendgrid, mailgun, smtp"):
        load(EmailSettings, GOOD | {"MAILROOM_PROVIDERS": named})


@pytest.mark.parametrize(
    "wrong",
    [
        {"MAILROOM_SMTP_TLS": "off", "MAILROOM_SMTP_USERNAME": "u", "MAILROOM_SMTP_PASSWORD": "p"},
        {"MAILROOM_SMTP_USERNAME": "u"},
        {"MAILROOM_SMTP_PASSWORD": "p"},
    ],
)
def test_a_password_for_smtp_comes_with_its_user_and_never_in_the_clear(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        load(EmailSettings, GOOD | {"MAILROOM_PROVIDERS": "smtp", "MAILROOM_SMTP_HOST": "h"} | wrong)
