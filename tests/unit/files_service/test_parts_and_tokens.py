"""How an upload in parts is cut, what its token binds, and how CloudFront's addresses are signed."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from services.files.adapters.cloudfront import CloudFront
from services.files.domain.parts import LEAST, MOST_PARTS, part_count, part_size, size_of
from services.files.entrypoints.upload_tokens import UploadTokens
from services.files.ports import UploadTicket
from services.kit.errors import Gone, InvalidRequest, SettingsError, TransientError

NOW = datetime(2026, 11, 29, 10, tzinfo=UTC)
TICKET = UploadTicket("f1", "up", "a/b", "u1", NOW + timedelta(hours=1))
KEYS = [b"n" * 32, b"o" * 32]


@given(st.integers(1, 48 << 40))
def test_parts_make_up_the_file_and_s3_takes_them(size: int) -> None:
    count = part_count(size)
    assert count <= MOST_PARTS
    assert part_size(size) >= LEAST
    sizes = {number: size_of(number, size) for number in {1, count, max(1, count - 1)}}
    assert part_size(size) * (count - 1) + sizes[count] == size
    assert 0 < sizes[count] <= part_size(size)
    for number in (0, count + 1, -1):
        with pytest.raises(ValueError, match="no part"):
            size_of(number, size)


def test_a_token_gives_back_what_it_binds_also_under_an_old_key() -> None:
    for keys in (KEYS, KEYS[::-1]):
        assert UploadTokens(keys).verify(UploadTokens(KEYS[:1]).issue(TICKET), NOW) == TICKET


def test_a_token_that_is_not_ours_or_too_old_is_refused() -> None:
    tokens = UploadTokens(KEYS)
    token = tokens.issue(TICKET)
    head, body, mac = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    other = base64.urlsafe_b64encode(json.dumps(claims | {"sub": "u2"}).encode()).rstrip(b"=").decode()
    nothing = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    for forged in (
        f"{head}.{other}.{mac}",
        f"{nothing}.{body}.",
        "",
        "x",
        token[:-2],
        jwt.encode(_claims(token), b"x" * 32, algorithm="HS256"),
        jwt.encode(_claims(token), b"x" * 32, algorithm="HS256", headers={"kid": "no key id"}),
    ):
        with pytest.raises(InvalidRequest):
            tokens.verify(forged, NOW)
    with pytest.raises(Gone):
        tokens.verify(token, TICKET.expires_at)


def test_a_token_under_a_key_that_another_process_has_already_is_asked_for_again() -> None:
    token = UploadTokens([b"x" * 32, *KEYS]).issue(TICKET)
    with pytest.raises(TransientError, match="MAILROOM_OLD_ENCRYPTION_KEYS"):
        UploadTokens(KEYS).verify(token, NOW)
    assert UploadTokens([*KEYS, b"x" * 32]).verify(token, NOW) == TICKET


def test_a_token_of_an_earlier_version_names_no_key() -> None:
    token = jwt.encode(_claims(UploadTokens(KEYS).issue(TICKET)), KEYS[1], algorithm="HS256")
    assert "kid" not in jwt.get_unverified_header(token)
    assert UploadTokens(KEYS).verify(token, NOW) == TICKET


def _claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def test_cloudfront_signs_the_address_exactly_as_it_is_fetched() -> None:
    key = rsa.generate_private_key(65537, 2048)
    made = CloudFront("d1.cloudfront.net", "K1", pem(key), lambda: NOW)
    disposition = "attachment; filename=\"a_.pdf\"; filename*=UTF-8''%C3%A4.pdf"
    link = made.download("c/1/ä b", "v+1/2", content_type="application/pdf", disposition=disposition, expires_at=NOW)
    address, _, signed = link.url.partition("&Expires=")
    parts = urlsplit(address)
    assert unquote(parts.path) == "/c/1/ä b"
    query = parse_qs(parts.query)
    assert (query["versionId"], query["response-content-disposition"]) == (["v+1/2"], [disposition])
    fields = parse_qs(f"Expires={signed}")
    assert fields["Key-Pair-Id"] == ["K1"]
    signature = base64.b64decode(fields["Signature"][0].translate(str.maketrans("-_~", "+=/")))
    end = int(NOW.timestamp())
    policy = f'{{"Statement":[{{"Resource":"{address}","Condition":{{"DateLessThan":{{"AWS:EpochTime":{end}}}}}}}]}}'
    key.public_key().verify(signature, policy.encode(), padding.PKCS1v15(), hashes.SHA1())  # noqa: S303
    assert json.loads(policy)["Statement"][0]["Resource"] == address


@pytest.mark.parametrize("bad", ["", "no key", pem(ec.generate_private_key(ec.SECP256R1()))])
def test_a_key_that_cloudfront_does_not_take_is_refused_at_the_start(bad: str) -> None:
    with pytest.raises(SettingsError, match="MAILROOM_CLOUDFRONT_PRIVATE_KEY"):
        CloudFront("d1.cloudfront.net", "K1", bad, lambda: NOW)


def test_a_public_file_is_found_without_a_signature_on_the_way_that_asks_for_none() -> None:
    made = CloudFront("d1.cloudfront.net", "K1", pem(rsa.generate_private_key(65537, 2048)), lambda: NOW)
    assert made.address("c/1/a", "v1") == "https://d1.cloudfront.net/public/c/1/a?versionId=v1"
