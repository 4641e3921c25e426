"""Downloads through CloudFront: signed URLs with a canned policy.

Source: Amazon CloudFront Developer Guide, "Create a signed URL using a canned policy": the policy names the encoded URL
exactly as it is fetched, and is signed with RSA, PKCS #1 v1.5 and SHA-1.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import datetime
from urllib.parse import quote, urlencode

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from services.files.ports import SignedUrl
from services.kit.errors import SettingsError

_URL_SAFE = bytes.maketrans(b"+=/", b"-_~")


class CloudFront:
    """Signs addresses of one distribution. Raises SettingsError for a key that is no RSA key in PEM."""

    def __init__(self, domain: str, key_pair_id: str, private_key: str, now: Callable[[], datetime]) -> None:
        self._domain, self._key_pair_id, self._now = domain, key_pair_id, now
        self._key = _load(private_key)

    def download(
        self, key: str, version_id: str, *, content_type: str, disposition: str, expires_at: datetime
    ) -> SignedUrl:
        """An address for GET of exactly this version."""
        address = self._address(key, version_id, content_type=content_type, disposition=disposition)
        end = int(expires_at.timestamp())
        policy = (
            f'{{"Statement":[{{"Resource":"{address}","Condition":{{"DateLessThan":{{"AWS:EpochTime":{end}}}}}}}]}}'
        )
        signature = self._key.sign(policy.encode(), padding.PKCS1v15(), hashes.SHA1())  # noqa: S303 - CloudFront's rule
        signed = base64.b64encode(signature).translate(_URL_SAFE).decode()
        url = f"{address}&Expires={end}&Signature={signed}&Key-Pair-Id={self._key_pair_id}"
        return SignedUrl(url, datetime.fromtimestamp(end, expires_at.tzinfo))

    def address(self, key: str, version_id: str) -> str:
        """The unsigned address of a version that is tagged as public, on the way that asks for no signature. It comes
        as it is stored: with its type, without its name.
        """
        return f"https://{self._domain}/public/{quote(key)}?{urlencode({'versionId': version_id}, quote_via=quote)}"

    def _address(self, key: str, version_id: str, *, content_type: str, disposition: str) -> str:
        asked = {
            "response-content-disposition": disposition,
            "response-content-type": content_type,
            "versionId": version_id,
        }
        return f"https://{self._domain}/{quote(key)}?{urlencode(asked, quote_via=quote)}"


def _load(private_key: str) -> RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(private_key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise SettingsError(["MAILROOM_CLOUDFRONT_PRIVATE_KEY: must be an RSA private key in PEM"]) from error
    if not isinstance(key, RSAPrivateKey):
        raise SettingsError(["MAILROOM_CLOUDFRONT_PRIVATE_KEY: must be an RSA key, CloudFront takes no other here"])
    return key
