"""Export the JSON Schemas, or check that what is stored is what the models say.

Usage: `python -m contracts.schemas` writes; `python -m contracts.schemas --check` exits 1 and names what drifted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from contracts.envelope import CommandEnvelope, Envelope
from contracts.registry import COMMANDS, EVENTS
from contracts.views import EmailLog, File

HERE = Path(__file__).parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, Any]]:
    """File name → JSON Schema of every envelope, event, command and view."""
    found: dict[str, dict[str, Any]] = {
        "envelope.event.json": Envelope.model_json_schema(mode="serialization"),
        "envelope.command.json": _command_schema(),
        "view.email_log.json": EmailLog.model_json_schema(mode="serialization"),
        "view.file.json": File.model_json_schema(mode="serialization"),
    }
    for name, event in EVENTS.items():
        found[f"{name}.v{event.version}.json"] = event.model.model_json_schema(mode="serialization")
    for name, command in COMMANDS.items():
        found[f"{name}.v{command.version}.json"] = command.model.model_json_schema(mode="validation")
    return {file: {"$schema": DIALECT, **schema} for file, schema in found.items()}


def _command_schema() -> dict[str, Any]:
    """The envelope with the data that belongs to each type: by itself it allows none, since its data is the base of all
    commands, which has no fields and refuses unknown ones.
    """
    schema = CommandEnvelope.model_json_schema(mode="validation")
    data, definitions = models_json_schema([(each.model, "validation") for each in COMMANDS.values()])
    schema["$defs"] = definitions["$defs"]
    schema["properties"]["type"] = {"enum": sorted(COMMANDS), "title": "Type", "type": "string"}
    schema["properties"]["data"] = {"title": "Data", "type": "object"}
    schema["allOf"] = [
        {
            "if": {"properties": {"type": {"const": name}}},
            "then": {
                "properties": {"data": data[command.model, "validation"], "dataversion": {"const": command.version}}
            },
        }
        for name, command in sorted(COMMANDS.items())
    ]
    return schema


def main(arguments: list[str]) -> int:
    """Write the schemas, or with `--check` compare; returns the exit status."""
    wanted = {file: json.dumps(schema, indent=2, sort_keys=True) + "\n" for file, schema in schemas().items()}
    stored = {path.name: path.read_text() for path in HERE.glob("*.json") if path.name != "asyncapi.json"}
    drifted = sorted(file for file in wanted.keys() | stored.keys() if wanted.get(file) != stored.get(file))
    if "--check" in arguments:
        for file in drifted:
            sys.stderr.write(f"contracts/schemas/{file} is not what the models say; run: python -m contracts.schemas\n")
        return 1 if drifted else 0
    for file in drifted:
        if file in wanted:
            (HERE / file).write_text(wanted[file])
        else:
            (HERE / file).unlink()
    sys.stdout.write(f"{len(wanted)} schemas, {len(drifted)} changed\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
