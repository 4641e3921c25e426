"""Addresses as Mailroom compares them: domain lower-case and in IDNA form, local part as given.

A local part in quotes that needs none is written without. RFC 5321 §2.4 makes the local part case-sensitive, the domain
not. Local parts outside ASCII need SMTPUTF8 (RFC 6531), which Amazon SES does not offer, so they are refused with that
reason.
"""

from __future__ import annotations

import re
from typing import Annotated

import idna
from pydantic import AfterValidator, WithJsonSchema

_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_QUOTED = re.compile(r'"(?:[ !#-\[\]-~]|\\[ -~])*"')
"""RFC 5321 §4.1.2, Quoted-string: printable ASCII, with a backslash before a quote or a backslash."""

LONGEST = 254
"""Octets of an address: what a path of 256 leaves (RFC 5321 §4.5.3.1.3; RFC 3696, erratum 1690)."""

LONGEST_EVER = 64 + 1 + 253
"""Octets of an address that earlier versions took: such addresses stand in streams, and in mail that waits."""

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}\.)+(?!\d+$){_LABEL}")


def normalise_address(address: str, *, longest: int = LONGEST) -> str:
    """Return the form under which two spellings of one address are equal.

    Args:
        address: `local@domain` without display name; the local part may be a quoted string.
        longest: octets that are taken.

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
    if _QUOTED.fullmatch(local):
        local = _least_quoted(local)
    elif not _LOCAL.fullmatch(local):
        raise ValueError("the part before the @ is not a valid local part")
    if len(local) > 64:
        raise ValueError("the part before the @ has more than 64 characters")
    if domain.isascii():
        ascii_domain = domain.lower()
    else:
        try:
            ascii_domain = idna.encode(domain, uts46=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError) as error:
            raise ValueError(f"the domain is not a valid internationalised name: {error}") from None
    if len(ascii_domain) > 253 or not _DOMAIN.fullmatch(ascii_domain):
        raise ValueError("the part after the @ is not a valid domain with at least one dot")
    if len(local) + 1 + len(ascii_domain) > longest:
        raise ValueError(f"an address has at most {longest} octets")
    return f"{local}@{ascii_domain}"


def _least_quoted(local: str) -> str:
    """A quoted local part in the one spelling that all of its spellings share."""
    content = re.sub(r"\\(.)", r"\1", local[1:-1])
    if _LOCAL.fullmatch(content):
        return content
    return '"' + re.sub(r'(["\\])', r"\\\1", content) + '"'


Address = Annotated[str, AfterValidator(normalise_address), WithJsonSchema({"type": "string", "format": "email"})]
"""An address in normal form; validating one normalises it."""
