"""The setting of domains that are being warmed up, read from JSON with everything that is wrong told at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Final

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from services.email.domain.warm_up import DEFAULT_DAILY, Ramp, sending_domain
from services.kit.errors import SettingsError
from services.kit.json_settings import json_object

MEANING: Final = (
    "domains being warmed up, by the domain of the sender's address, as JSON: "
    '{"mail.example": {"from": "2026-12-01", "daily": [50, 100, 200]}}; from: the first day, daily: recipients a day '
    "(default: 50, doubled each day to 51,200). A domain that is not named has no limit"
)


def _ramps(value: Any) -> Any:
    """Raises ValueError with everything that is wrong."""
    ramps: dict[str, Ramp] = {}
    wrong: list[str] = []
    for name, said in json_object(value, "domain → its ramp").items():
        try:
            domain, ramp = _domain(name), _ramp(said)
        except ValueError as error:
            wrong.append(f"{name} {error}")
        else:
            if domain in ramps:
                wrong.append(f"{name} is named twice")
            ramps[domain] = ramp
    if wrong:
        raise ValueError("; ".join(wrong))
    return ramps


def _domain(name: str) -> str:
    domain = sending_domain(f"a@{name}")
    if "@" in name or "." not in domain:
        raise ValueError("is no domain, for instance mail.example")
    return domain


def _ramp(said: Any) -> Ramp:
    if isinstance(said, Ramp):
        return said
    if not isinstance(said, Mapping) or not set(said) <= {"from", "daily"} or "from" not in said:
        raise ValueError("needs `from`, and may have `daily`, and nothing else")
    try:
        first = date.fromisoformat(said["from"])
    except (TypeError, ValueError):
        raise ValueError("needs the first day as YYYY-MM-DD in `from`") from None
    return Ramp(first, _daily(said.get("daily", DEFAULT_DAILY)))


def _daily(said: Any) -> tuple[int, ...]:
    if not isinstance(said, list | tuple) or not said or not all(type(each) is int and each > 0 for each in said):
        raise ValueError("needs one or more whole numbers above 0 in `daily`")
    falls = next((day for day in range(1, len(said)) if said[day] < said[day - 1]), None)
    if falls is not None:
        raise ValueError(f"allows less on day {falls + 1} than on the day before: a ramp never falls")
    return tuple(said)


VARIABLE: Final = "MAILROOM_WARM_UP"

Ramps = Annotated[dict[str, Ramp], NoDecode, BeforeValidator(_ramps)]
"""Domain → its ramp."""


def from_environment() -> dict[str, Ramp]:
    """The ramps alone, for commands that need no other setting. Raises SettingsError."""
    said = os.environ.get(VARIABLE, "").strip()
    try:
        found: dict[str, Ramp] = _ramps(said) if said else {}
    except ValueError as error:
        raise SettingsError([f"{VARIABLE} is wrong: {error}"]) from None
    return found
