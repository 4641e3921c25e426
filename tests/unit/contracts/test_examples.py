"""Every version ever published decodes: one stored example each, never edited, only added to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import contracts
from contracts.base import UnknownData
from contracts.email.events import EmailDelivered
from contracts.errors import ContractError
from contracts.registry import COMMANDS, EVENTS, command_from_wire, event_from_wire, read_json
from contracts.upcasters import UPCASTERS, upcast

EXAMPLES = sorted((Path(contracts.__file__).parent / "examples").glob("*.json"))
PUBLISHED = {f"{event.name}.v{n}" for event in EVENTS.values() for n in range(1, event.version + 1)} | {
    f"{command.name}.v{command.version}" for command in COMMANDS.values()
}


def test_every_published_version_has_an_example() -> None:
    assert {path.stem for path in EXAMPLES} == PUBLISHED


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_example_decodes_and_keeps_every_field(path: Path) -> None:
    stored = json.loads(path.read_text())
    wire = read_json(path.read_bytes())
    name = stored["type"]
    decoded = event_from_wire(wire) if name in EVENTS else command_from_wire(wire)
    assert not isinstance(decoded.data, UnknownData)
    again = json.loads(decoded.to_bytes())
    if name not in EVENTS or stored["dataversion"] == EVENTS[name].version:
        assert stored.items() <= {**again, "data": stored["data"]}.items()
        assert stored["data"].items() <= {**decoded.data.to_wire()}.items()


def test_an_old_version_climbs_the_whole_chain() -> None:
    def one_to_two(data: dict[str, object]) -> dict[str, object]:
        first = data.pop("first")
        return {**data, "second": first}

    chain = {("x", 1): one_to_two, ("x", 2): lambda data: {**data, "third": True}}
    original = {"first": 1}
    assert upcast("x", 1, 3, original, chain) == {"second": 1, "third": True}
    assert original == {"first": 1}


@pytest.mark.parametrize("version", [0, 2, -1, "1", True, None])
def test_an_unknown_version_is_refused(version: object) -> None:
    wire = read_json((Path(contracts.__file__).parent / "examples" / "email.delivered.v1.json").read_bytes())
    with pytest.raises(ContractError) as refused:
        event_from_wire({**wire, "dataversion": version})
    assert refused.value.reason == "unknownVersion"


def test_a_gap_in_the_chain_is_refused() -> None:
    with pytest.raises(ContractError, match="no way"):
        upcast("x", 1, 3, {}, {("x", 1): lambda data: data})


def test_nothing_is_upcast_yet() -> None:
    assert dict(UPCASTERS) == {}
    assert all(event.version == 1 for event in EVENTS.values())


def test_an_unknown_type_is_kept_whole() -> None:
    wire = read_json((Path(contracts.__file__).parent / "examples" / "email.delivered.v1.json").read_bytes())
    event = event_from_wire({**wire, "type": "email.teleported", "dataversion": 7, "extra": "kept"})
    assert isinstance(event.data, UnknownData)
    assert json.loads(event.to_bytes())["data"] == wire["data"]
    assert json.loads(event.to_bytes())["extra"] == "kept"


def test_unknown_fields_of_an_event_are_kept_and_of_a_command_refused() -> None:
    folder = Path(contracts.__file__).parent / "examples"
    wire = read_json((folder / "email.delivered.v1.json").read_bytes())
    event = event_from_wire({**wire, "data": {**wire["data"], "brandNew": 1}})
    assert isinstance(event.data, EmailDelivered)
    assert event.data.to_wire()["brandNew"] == 1
    command = read_json((folder / "email.send.v1.json").read_bytes())
    with pytest.raises(ContractError, match="brandNew"):
        command_from_wire({**command, "data": {**command["data"], "brandNew": 1}})


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, "nullValue"),
        (b"", "notJson"),
        (b"\xff\xfe", "notJson"),
        (b"[" * 100_000, "notJson"),
        (b"[1]", "notAnObject"),
        (b"null", "notAnObject"),
    ],
)
def test_what_is_no_object_is_refused(raw: bytes | None, reason: str) -> None:
    with pytest.raises(ContractError) as refused:
        read_json(raw)
    assert refused.value.reason == reason
