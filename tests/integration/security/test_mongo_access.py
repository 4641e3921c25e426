"""A MongoDB that asks for TLS and a user: who is let in, and what the others are told."""

from __future__ import annotations

from datetime import timedelta

from tests.integration.security.mongo import SecuredMongo, told


async def test_a_user_over_tls_is_let_in(secured_mongo: SecuredMongo) -> None:
    client = secured_mongo.authority.signs("mongo-client").both
    assert await told(secured_mongo.url("mailroom-email")) == ""
    with_certificate = f"tls=true&tlsCAFile={secured_mongo.authority.file}&tlsCertificateKeyFile={client}"
    assert await told(secured_mongo.url("mailroom-email", tls=with_certificate)) == ""


async def test_who_is_not_let_in_is_told_the_option_to_mend(secured_mongo: SecuredMongo) -> None:
    url, authority, stranger = secured_mongo.url, secured_mongo.authority, secured_mongo.stranger
    old = authority.signs("mongo-old-client", lasts=timedelta(hours=-1)).both
    untrusted, expired = f"tls=true&tlsCAFile={stranger.file}", f"tls=true&tlsCAFile={authority.file}"
    found = [
        await told(url("mailroom-email", "wrong")),
        await told(url()),
        await told(url("mailroom-files")),
        await told(url("mailroom-email", tls=untrusted)),
        await told(url("mailroom-email", host="localhost").replace("replicaSet=rs0&", "")),
        await told(url("mailroom-email", tls="tls=false")),
        await told(url("mailroom-email", tls=f"{expired}&tlsCertificateKeyFile={old}")),
    ]
    expected = [
        "user or password in MAILROOM_MONGO_URL are refused",
        "the user in MAILROOM_MONGO_URL may not work without a log-in",
        "the user in MAILROOM_MONGO_URL may not find in mailroom_email",
        "is not trusted",
        "is for another name",
        "it may want TLS (tls=true in MAILROOM_MONGO_URL)",
        "another client certificate (tlsCertificateKeyFile)",
    ]
    for words, wanted in zip(found, expected, strict=True):
        assert wanted in words
        assert "\n" not in words
