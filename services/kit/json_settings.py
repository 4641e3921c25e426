"""A setting that is a JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def json_object(value: Any, what: str) -> Mapping[str, Any]:
    """The object that a variable holds as JSON, or that was given as one. `what`: its keys and values, for people.

    Raises ValueError, as pydantic expects.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise ValueError("not JSON") from None
    if not isinstance(value, Mapping):
        raise ValueError(f"must be an object: {what}")  # noqa: TRY004 - what pydantic expects
    return value
