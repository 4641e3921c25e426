"""Who a recipient is: addresses in normal form, and the key under which suppression and consent are kept.

The normal form (domain lower-case and IDNA, local part as given) is `contracts.addresses.normalise_address`: two
spellings of one address. The key goes further and lower-cases everything, since hardly any provider tells mailboxes
apart by case, and suppressing one too many is the better error.
"""

import hmac
from hashlib import sha256
from typing import Any

from pymongo.errors import DuplicateKeyError

from contracts.addresses import LONGEST_EVER, normalise_address
from services.kit.crypto import KeyRing
from services.kit.errors import SettingsError
from services.kit.mongo import Database, foreign_errors

__all__ = ["RecipientKeys", "normalise_address", "recipient_keys"]

_CANARY = "recipient-key canary"
_CANARY_ID = "recipientKey"
_CHANGED = (
    "MAILROOM_ADDRESS_KEY does not match the key that this database's recipient keys were made with, so no suppression "
    "would be found. Set it to its former value; where it was never set, unset it and give FILE_ENCRYPTION_KEY's "
    "former value in MAILROOM_OLD_ENCRYPTION_KEYS; or start on a new database."
)


class RecipientKeys:
    """Makes recipient keys: HMAC-SHA256, hexadecimal, under a key that is never rotated in place."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def key(self, address: str) -> str:
        """The recipient key of an address, equal for all spellings of it. ValueError when it is no address.

        One that is longer than commands may have now has a key: earlier versions took it, and it stands in streams.
        """
        return self._mac(normalise_address(address, longest=LONGEST_EVER).lower())

    def canary(self) -> str:
        """What this key makes of a fixed text; it tells two keys apart and gives neither away."""
        return self._mac(_CANARY)

    def _mac(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), sha256).hexdigest()


def candidate_keys(address_key: str | None, ring: KeyRing) -> list[RecipientKeys]:
    """MAILROOM_ADDRESS_KEY alone if set; else what FILE_ENCRYPTION_KEY gives, then what its former values gave."""
    secrets = [address_key.encode()] if address_key else ring.derive_all("recipient key")
    return [RecipientKeys(secret) for secret in secrets]


async def recipient_keys(database: Database, address_key: str | None, ring: KeyRing) -> RecipientKeys:
    """The recipient keys that this database was started with; the first start leaves a canary that says which.

    Raises SettingsError when the settings do not give them (the service must not start: it would send to everybody
    who is suppressed), Unavailable when the database cannot be asked.
    """
    candidates = candidate_keys(address_key, ring)
    canaries = database["canaries"]
    with foreign_errors():
        try:
            await canaries.insert_one({"_id": _CANARY_ID, "canary": candidates[0].canary()})
        except DuplicateKeyError:
            found: dict[str, Any] = await canaries.find_one({"_id": _CANARY_ID}) or {}
        else:
            return candidates[0]
    for keys in candidates:
        if hmac.compare_digest(str(found.get("canary")), keys.canary()):
            return keys
    raise SettingsError([_CHANGED])
