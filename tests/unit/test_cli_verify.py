"""`mailroom verify`: the verdict, its reason, and the exit status."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner, Result

from services.cli.app import app
from tests.unit.email_service.signing import (
    MAILGUN_KEY,
    NOW,
    TOPIC,
    certificate,
    mailgun_body,
    mailgun_signature,
    sendgrid_public,
    sendgrid_signed,
    sns_envelope,
    sns_signed,
)

BATCH = b'[{"event":"open"},\r\n{"event":"click"}]\r\n'
AT = ("--at", NOW.strftime("%Y-%m-%dT%H:%M:%S"))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAILROOM_SNS_TOPICS", TOPIC)
    monkeypatch.setenv("MAILROOM_SENDGRID_WEBHOOK_KEYS", f"{sendgrid_public('second')},{sendgrid_public('first')}")
    monkeypatch.setenv("MAILROOM_MAILGUN_WEBHOOK_KEYS", MAILGUN_KEY)


def verify(*words: str, given: bytes) -> Result:
    return CliRunner().invoke(app, ["verify", *words], input=given, prog_name="mailroom")


@pytest.fixture
def headers(tmp_path: Path) -> str:
    """As curl writes them, with the line of the request before."""
    path = tmp_path / "headers"
    lines = [f"{name}: {value}" for name, value in sendgrid_signed(BATCH).items()]
    path.write_text("\r\n".join(["POST /api/webhooks/sendgrid HTTP/1.1", "Host: mail.example.com:443", *lines, "", ""]))
    return str(path)


@pytest.fixture
def pem(tmp_path: Path) -> str:
    path = tmp_path / "sns.pem"
    path.write_bytes(certificate().public_bytes(Encoding.PEM))
    return str(path)


def test_sendgrid(headers: str) -> None:
    good = verify("sendgrid", "--headers", headers, *AT, given=BATCH)
    assert (good.exit_code, good.stdout) == (0, "genuine: ecdsa-p256-sha256, 2 events\n")
    bad = verify("sendgrid", "--headers", headers, *AT, given=BATCH.rstrip())
    assert bad.exit_code == 1
    assert bad.stdout.startswith("forged: badSignature, ")
    other = verify("sendgrid", "--headers", headers, "--key", sendgrid_public("third"), *AT, given=BATCH)
    assert other.exit_code == 1
    assert verify("sendgrid", given=BATCH).exit_code == 1, "without headers there is nothing to verify"


def test_mailgun_and_its_age() -> None:
    assert verify("mailgun", *AT, given=mailgun_body()).exit_code == 0
    old = mailgun_body(mailgun_signature(at=NOW - timedelta(days=3)))
    told = verify("mailgun", "--json", *AT, given=old)
    assert told.exit_code == 1
    assert json.loads(told.stdout)["reason"] == "tooOld"
    assert verify("mailgun", "--any-age", *AT, given=old).exit_code == 0


def test_sns_with_a_certificate_at_hand(pem: str) -> None:
    body = sns_signed(sns_envelope())
    good = verify("sns", "--certificate", pem, *AT, given=body)
    assert (good.exit_code, good.stdout) == (0, "genuine: sns-signature-2, 1 event\n")
    assert "unknownTopic" in verify("sns", "--certificate", pem, "--topic", TOPIC + "x", *AT, given=body).stdout
    later = sns_signed(sns_envelope(Timestamp="2026-11-24T23:00:00.000Z"))
    assert verify("sns", "--certificate", pem, *AT, given=later).exit_code == 3


def test_what_it_needs_is_said(monkeypatch: pytest.MonkeyPatch, headers: str) -> None:
    monkeypatch.delenv("MAILROOM_SENDGRID_WEBHOOK_KEYS")
    told = verify("sendgrid", "--headers", headers, given=BATCH)
    assert told.exit_code == 78
    assert "MAILROOM_SENDGRID_WEBHOOK_KEYS is not set" in told.stderr
    monkeypatch.setenv("MAILROOM_SENDGRID_WEBHOOK_KEYS", b64encode(b"no key").decode())
    assert "not a public key in base64" in verify("sendgrid", "--headers", headers, given=BATCH).stderr
    monkeypatch.delenv("MAILROOM_SENDGRID_WEBHOOK_KEYS")
    assert "PEM" in verify("sns", "--certificate", headers, given=b"{}").stderr
