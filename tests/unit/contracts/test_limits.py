"""What a command may hold is bounded by what everything behind it can: a record that passes cannot break a consumer."""

import json
from typing import Any

import pytest

from contracts.email.values import MAX_FREE_DATA_DEPTH
from contracts.errors import ContractError
from contracts.registry import command_from_wire, read_json

MESSAGE = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d1c0b"


def nested(depth: int) -> dict[str, Any]:
    """An object of so many levels."""
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"in": value}
    return value


def send(**data: Any) -> None:
    """What the intake does with a record."""
    mail = {"messageId": MESSAGE, "to": "a@b.example", "subject": "s", "text": "t", "category": "system", "userId": "u"}
    wire = {"specversion": "1.0", "id": "1", "source": "/t", "type": "email.send", "subject": MESSAGE}
    command_from_wire(read_json(json.dumps({**wire, "data": {**mail, **data}}).encode()))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("customData", nested(MAX_FREE_DATA_DEPTH)),
        ("customData", {"n": [2**63 - 1, -(2**63), True, None, 1.5, "\x00"]}),
        ("sendAt", "9000-12-31T23:59:59Z"),
    ],
)
def test_up_to_the_limit_it_is_taken(field: str, value: object) -> None:
    send(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("customData", nested(MAX_FREE_DATA_DEPTH + 1)),
        ("customData", {"list": [[[nested(MAX_FREE_DATA_DEPTH - 3)]]]}),
        ("customData", {"n": 2**63}),
        ("customData", {"in": {"a\x00b": 1}}),
        ("tags", {"a\x00b": "c"}),
        ("templateData", nested(MAX_FREE_DATA_DEPTH + 1)),
        ("sendAt", "9999-12-31T23:59:59Z"),
        ("sendAt", "9999-12-31T23:59:59-14:00"),
        ("expiresAt", "0001-01-01T00:00:00+14:00"),
    ],
)
def test_beyond_it_the_command_is_invalid_and_the_field_named(field: str, value: object) -> None:
    with pytest.raises(ContractError, match=field) as refused:
        send(**{field: value})
    assert refused.value.reason == "invalid"
