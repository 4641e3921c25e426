"""What the files service's settings become."""

from __future__ import annotations

import pytest

from services.files.domain.quotas import Quota
from services.files.settings import FilesSettings
from services.kit.errors import SettingsError
from services.kit.request_limits import Limit
from services.kit.settings import load

GOOD = {
    "AWS_REGION": "eu-central-1",
    "AWS_S3_BUCKET": "bucket",
    "MAILROOM_FILES_QUEUE_URL": "http://127.0.0.1/queue",
    "MAILROOM_KAFKA_BOOTSTRAP": "127.0.0.1:9092",
    "MAILROOM_MONGO_URL": "mongodb://127.0.0.1/?replicaSet=rs0",
    "MAILROOM_PUBLIC_URL": "https://mail.example.com",
    "MAILROOM_JWT_ALGORITHM": "HS256",
    "MAILROOM_JWT_SECRET": "s" * 32,
    "FILE_ENCRYPTION_KEY": "k" * 32,
}


def test_quotas_are_on_and_each_can_be_set_or_switched_off() -> None:
    settings = load(FilesSettings, GOOD)
    assert settings.user_quota() == Quota(1_000, 10**12)
    assert settings.client_quota() == Quota(5_000, 5 * 10**12)
    off = dict.fromkeys(("MAILROOM_UPLOADS_OPEN_PER_USER", "MAILROOM_UPLOAD_BYTES_PER_USER"), "0")
    settings = load(FilesSettings, GOOD | off | {"MAILROOM_UPLOADS_OPEN_PER_CLIENT": "7"})
    assert not settings.user_quota().limits
    assert settings.client_quota() == Quota(7, 5 * 10**12)
    with pytest.raises(SettingsError, match="MAILROOM_UPLOADS_OPEN_PER_USER is wrong"):
        load(FilesSettings, GOOD | {"MAILROOM_UPLOADS_OPEN_PER_USER": "20000"})


def test_uploads_have_a_limit_of_requests_of_their_own() -> None:
    assert load(FilesSettings, GOOD).limits().keys() == {"read", "operate", "public", "unauthenticated", "upload"}
    assert load(FilesSettings, GOOD | {"MAILROOM_LIMIT_UPLOAD": "9/3"}).limits()["upload"] == Limit(9, 3)
