"""Addresses as Mailroom compares them: domain lower-case and in IDNA form, local part as given.

RFC 5321 §2.4 makes the local part case-sensitive, the domain not. Local parts outside ASCII need SMTPUTF8 (RFC 6531),
which Amazon SES does not offer, so they are refused with that reason.
"""

from __future__ import annotations

import re
from typing import Annotated

import idna
from pydantic import AfterValidator, WithJsonSchema

_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+(?!\d+$){_LABEL}")


def normalise_address(address: str) -> str:
    """Return the form under which two spellings of one address are equal.

    Args:
        address: `local@domain` without display name.

    Returns:
        The same local part and the domain in lower-case ASCII (IDNA 2008, UTS 46 mapping). Idempotent.

    Raises:
        ValueError: not an address that can be sent to; the message says why.
    """
    local, at, domain = address.strip().rpartition("@")
    if not at:
        raise ValueError("an address has the form name@domain")
    if not local.isascii():
        raise ValueError("the part before the @ must be ASCII: the provider does not support SMTPUTF8")
    if len(local) > 64 or not _LOCAL.fullmatch(local):
        raise ValueError("the part before the @ is not a valid local part")
    if domain.isascii():
        ascii_domain = domain.lower()
    else:
        try:
            ascii_domain = idna.encode(domain, uts46=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError) as error:
            raise ValueError(f"the domain is not a valid internationalised name: {error}") from None
    if len(ascii_domain) > 253 or not _DOMAIN.fullmatch(ascii_domain):
        raise ValueError("the part after the @ is not a valid domain with at least one dot")
    return f"{local}@{ascii_domain}"


Address = Annotated[str, AfterValidator(normalise_address), WithJsonSchema({"type": "string", "format": "email"})]
"""An address in normal form; validating one normalises it."""
