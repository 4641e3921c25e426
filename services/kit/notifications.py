"""Reading what AWS writes: JSON objects and times, strict about what its documentation promises."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic_core import from_json

from services.kit.errors import PermanentError


def read_object(raw: bytes | str) -> dict[str, Any]:
    """The JSON object that `raw` holds. Raises PermanentError: `notJson` (bad syntax, or too deep), `notAnObject`."""
    try:
        value = from_json(raw)
    except ValueError as error:
        raise PermanentError("notJson", str(error)) from None
    if not isinstance(value, dict):
        raise PermanentError("notAnObject", "a notification is a JSON object")
    return value


def is_sns_envelope(value: Mapping[str, Any]) -> bool:
    """Whether it is what SNS puts around a message (Amazon SNS Developer Guide, "Message formats")."""
    return isinstance(value.get("Message"), str) and "Type" in value


def parse_time(text: object) -> datetime:
    """Read a time as AWS writes it: `2017-08-05T00:41:02.669Z`, `2018-10-08T14:05:45 +0000`, `…-07:00`.

    A time without an offset is UTC, as AWS documents all of its times to be.

    Raises:
        PermanentError: `badTime`.
    """
    if not isinstance(text, str):
        raise PermanentError("badTime", f"expected a time as text, found {type(text).__name__}")
    try:
        value = datetime.fromisoformat(text.strip().replace(" ", ""))
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError):
        raise PermanentError("badTime", "a time is not in a form that AWS documents") from None
