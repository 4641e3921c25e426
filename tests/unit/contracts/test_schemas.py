"""The published schemas take what Mailroom takes, and refuse what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import contracts
from contracts.errors import ContractError
from contracts.registry import COMMANDS, EVENTS, command_from_wire

ROOT = Path(contracts.__file__).parent
EXAMPLES = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "examples").glob("*.json"))}
REAL = {name: example for name, example in EXAMPLES.items() if example["type"] in COMMANDS}
MESSAGE = "0198c0de-0000-7000-8000-000000000001"

BY_HAND: dict[str, Any] = {
    "specversion": "1.0",
    "id": "17",
    "source": "/crm/billing",
    "type": "email.send",
    "subject": MESSAGE,
    "data": {
        "messageId": MESSAGE,
        "to": ["success@inbox.example"],
        "subject": "Your receipt",
        "text": "Thank you.",
        "category": "notification",
        "userId": "user-1",
    },
}
"""As the guide for callers has it."""


def errors(schema: str, wire: dict[str, Any]) -> list[str]:
    found = json.loads((ROOT / "schemas" / schema).read_text())
    Draft202012Validator.check_schema(found)
    return [each.message for each in Draft202012Validator(found).iter_errors(wire)]


@pytest.mark.parametrize("wire", [*REAL.values(), BY_HAND], ids=[*REAL, "by hand"])
def test_the_envelope_of_commands_takes_real_ones(wire: dict[str, Any]) -> None:
    assert command_from_wire(wire).type == wire["type"]
    assert errors("envelope.command.json", wire) == []
    assert errors(f"{wire['type']}.v{wire.get('dataversion', 1)}.json", wire["data"]) == []


@pytest.mark.parametrize("name", [name for name, example in EXAMPLES.items() if example["type"] in EVENTS])
def test_the_envelope_of_events_takes_real_ones(name: str) -> None:
    assert errors("envelope.event.json", EXAMPLES[name]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "email.explode"},
        {"type": "email.cancel"},
        {"dataversion": 2},
        {"data": {**BY_HAND["data"], "colour": "red"}},
        {"data": {**BY_HAND["data"], "to": None}},
        {"data": None},
        {"source": ""},
        {"specversion": "0.3"},
    ],
    ids=repr,
)
def test_the_envelope_of_commands_refuses_what_is_refused(changes: dict[str, Any]) -> None:
    wire = {**BY_HAND, **changes}
    with pytest.raises(ContractError):
        command_from_wire(wire)
    assert errors("envelope.command.json", wire) != []
