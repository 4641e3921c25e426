"""SendEmail's request as SES v2 reads it: checked, and with the envelope worked out."""

import re
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from deploy.local.simulator import mime
from deploy.local.simulator.errors import bad_request

MAX_MESSAGE = 40 * 1024 * 1024
MAX_RECIPIENTS = 50
MAX_TAGS = 50

_TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")
_ADDRESS = re.compile(r"[!-?A-~]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Submission:
    """One mail as it would go out: `destination` is the envelope, whatever the headers say."""

    source: str
    destination: tuple[str, ...]
    configuration_set: str | None
    tags: dict[str, str]
    raw: bytes
    parsed: mime.Parsed


def read_send_email(body: bytes) -> Submission:
    """Read the body of `POST /v2/email/outbound-emails`.

    Raises SesError (BadRequestException) as SES does: tags outside `[A-Za-z0-9_-]`, more than 50 recipients or
    tags, more than 40 MB, MIME that cannot be read, no or bad addresses. Templates are not simulated.
    """
    request = _object(_json(body), "the request")
    content = _object(request.get("Content"), "Content")
    destination = _object(request.get("Destination") or {}, "Destination")
    source = request.get("FromEmailAddress")
    if "Raw" in content:
        raw = _base64(_object(content["Raw"], "Content.Raw").get("Data"))
    elif "Simple" in content:
        if not source:
            raise bad_request("FromEmailAddress is required.")
        reply_to = _strings(request.get("ReplyToAddresses"), "ReplyToAddresses")
        raw = mime.compose(str(source), destination, reply_to, _object(content["Simple"], "Content.Simple"))
    else:
        raise bad_request("Content must have Raw or Simple; the simulator knows no templates.")
    if len(raw) > MAX_MESSAGE:
        raise bad_request(f"Message length is more than {MAX_MESSAGE} bytes long: '{len(raw)}'.")
    parsed = mime.parse(raw)
    source = str(source or parsed.first("from"))
    _check_address(mime.bare_address(source))
    configuration_set = request.get("ConfigurationSetName") or parsed.first("x-ses-configuration-set")
    return Submission(
        source=source,
        destination=_recipients(destination, parsed),
        configuration_set=str(configuration_set) if configuration_set else None,
        tags=_tags(request.get("EmailTags"), parsed),
        raw=raw,
        parsed=parsed,
    )


def _recipients(destination: Json, parsed: mime.Parsed) -> tuple[str, ...]:
    named = [
        address
        for key in ("ToAddresses", "CcAddresses", "BccAddresses")
        for address in _strings(destination.get(key), key)
    ]
    if not named:
        lists = (parsed.first(name) for name in ("to", "cc", "bcc"))
        named = [address for value in lists if value for address in mime.split_addresses(value)]
    addresses = tuple(mime.bare_address(address) for address in named)
    if not addresses:
        raise bad_request("No recipients.")
    if len(addresses) > MAX_RECIPIENTS:
        raise bad_request(f"Recipient count exceeds {MAX_RECIPIENTS}.")
    for address in addresses:
        _check_address(address)
    return addresses


def _check_address(address: str) -> None:
    if read_address(address) is None:
        raise bad_request("Illegal address.")


def read_address(address: str) -> str | None:
    """The address, None where it is none that a provider takes."""
    return address if _ADDRESS.fullmatch(address) and ".." not in address else None


def _tags(given: object, parsed: mime.Parsed) -> dict[str, str]:
    pairs: list[tuple[str, str]] = []
    header = parsed.first("x-ses-message-tags")
    if header:
        for pair in header.split(","):
            name, _, value = pair.partition("=")
            pairs.append((name.strip(), value.strip()))
    for tag in given if isinstance(given, list) else ():
        entry = _object(tag, "EmailTags")
        pairs.append((str(entry.get("Name", "")), str(entry.get("Value", ""))))
    if len(pairs) > MAX_TAGS:
        raise bad_request(f"More than {MAX_TAGS} message tags.")
    for name, value in pairs:
        if not _TAG.fullmatch(name) or not _TAG.fullmatch(value):
            raise bad_request("Message tag names and values take 1 to 256 of A-Z, a-z, 0-9, _ and - only.")
    if len({name for name, _ in pairs}) != len(pairs):
        raise bad_request("Duplicate message tag name.")
    return dict(pairs)


def _json(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise bad_request("The request is not JSON.") from None


def _base64(value: object) -> bytes:
    try:
        return b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        raise bad_request("Content.Raw.Data is not base64.") from None


def _object(value: object, name: str) -> Json:
    if not isinstance(value, dict):
        raise bad_request(f"{name} is missing or not an object.")
    return value


def _strings(value: object, name: str) -> Sequence[str]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise bad_request(f"{name} is not a list of strings.")
    return value
