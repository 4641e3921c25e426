"""Encryption at rest under keys that can be replaced, and keys for other uses derived from the same secret.

Sealed bytes are `version (1) | key id (8) | nonce (12) | ciphertext and tag`, AES-256-GCM (NIST SP 800-38D).
The header
and the caller's context are authenticated, so that sealed bytes moved to another place do not open there.
Nonces are random: one key is good for 2³² seals (section 8.3 there); replace the secret long before.
"""

import os
from base64 import b64decode
from collections.abc import Sequence
from typing import Protocol, Self

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import load_der_public_key

from services.kit.errors import KeyUnknown, PermanentError

SHORTEST_SECRET = 32
"""Characters a secret needs at least: what 32 random bytes have when each is one character."""

_VERSION = b"\x01"
_KEY_ID_BYTES = 8
_NONCE_BYTES = 12
_HEADER_BYTES = 1 + _KEY_ID_BYTES + _NONCE_BYTES
_TAG_BYTES = 16

OVERHEAD = _HEADER_BYTES + _TAG_BYTES
"""How many bytes sealing adds."""


class Cipher(Protocol):
    """Seals bytes so that only the holder of the secret can read them, and only under the context they were
    sealed for.
    """

    def seal(self, plain: bytes, context: bytes) -> bytes:
        """Encrypt. `context` says what this is and whose (a message id, …); the same must be given to `open`."""
        ...

    def open(self, sealed: bytes, context: bytes) -> bytes:
        """Decrypt. Raises PermanentError `sealedBroken` (changed, cut short, other context), KeyUnknown where another
        process may have the key.
        """
        ...


class KeyRing:
    """The current key, with which is sealed, and others, which open: old ones, and the next one before it is the
    current one. A `Cipher`.
    """

    def __init__(self, current: bytes, old: Sequence[bytes] = ()) -> None:
        """`current` and `old` are secrets as bytes; keys are derived from them, never the secrets themselves
        used.
        """
        for secret in (current, *old):
            if len(secret) < SHORTEST_SECRET:
                raise ValueError(f"an encryption secret needs at least {SHORTEST_SECRET} characters")
        self._secrets = (current, *old)
        self._key_id = _key_id(current)
        self._ciphers = {_key_id(secret): AESGCM(_derive(secret, "seal")) for secret in (*old, current)}

    @classmethod
    def from_secret(cls, secret: str, old: Sequence[str] = ()) -> Self:
        """From FILE_ENCRYPTION_KEY and the other secrets it had or will have. ValueError when one is too short."""
        return cls(secret.encode(), [s.encode() for s in old])

    def seal(self, plain: bytes, context: bytes) -> bytes:
        header = _VERSION + self._key_id + os.urandom(_NONCE_BYTES)
        nonce = header[-_NONCE_BYTES:]
        return header + self._ciphers[self._key_id].encrypt(nonce, plain, header + context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        if len(sealed) < OVERHEAD or sealed[:1] != _VERSION:
            raise PermanentError("sealedBroken", "these are not sealed bytes, or they were cut short")
        header, body = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES:]
        key_id = header[1 : 1 + _KEY_ID_BYTES]
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise KeyUnknown(key_id.hex())
        try:
            return cipher.decrypt(header[-_NONCE_BYTES:], body, header + context)
        except InvalidTag:
            raise PermanentError("sealedBroken", "changed since it was sealed, or sealed for another place") from None

    def derive(self, label: str) -> bytes:
        """32 bytes for another use, from the current secret: one label gives one key, other labels unrelated ones."""
        return self.derive_all(label)[0]

    def derive_all(self, label: str) -> list[bytes]:
        """The same from every secret, the current one first, for what must outlive a change of the secret."""
        return [_derive(secret, f"derive {label}") for secret in self._secrets]


def p256_key(text: str) -> EllipticCurvePublicKey:
    """The public key on the curve P-256 that `text` holds: a SubjectPublicKeyInfo (RFC 5280) in base64. Raises
    ValueError.
    """
    try:
        key = load_der_public_key(b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("not a public key in base64 (DER, SubjectPublicKeyInfo)") from None
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return key
    raise ValueError("not a key on the curve P-256")


def _derive(secret: bytes, label: str, length: int = 32) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=f"mailroom {label}".encode()).derive(secret)


def _key_id(secret: bytes) -> bytes:
    return _derive(secret, "key id", _KEY_ID_BYTES)
