"""The AsyncAPI document of all topics, from the same registry and broker that the services use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, Literal, Union

from faststream.specification import AsyncAPI
from pydantic import BaseModel, create_model

import contracts.schemas
from contracts.envelope import CommandEnvelope, Envelope
from contracts.registry import COMMANDS, EVENTS
from contracts.topics import (
    COMMANDS_URGENT,
    EMAIL_NOTIFICATIONS,
    FILES_COMMANDS,
    FILES_NOTIFICATIONS,
    LANES,
    TOPICS,
    Topic,
)
from services.kit.kafka.broker import build_broker

FILE: Final = Path(contracts.schemas.__file__).parent / "asyncapi.json"
VERSION: Final = "1.0.0"
_RAW: Final = (EMAIL_NOTIFICATIONS, FILES_NOTIFICATIONS)
"""What lies on these is the providers' to shape."""
_COMMANDS: Final[dict[Topic, list[str]]] = {
    **{topic: ["email.send"] for topic in LANES.values()},
    COMMANDS_URGENT: ["email.send", "email.cancel"],
    FILES_COMMANDS: ["file.delete", "file.restore", "file.update"],
}


def document() -> dict[str, Any]:
    """The document, AsyncAPI 3.0: each topic with its key and what its messages look like."""
    broker = build_broker("kafka.invalid:9092")  # never connected
    for topic in TOPICS:
        schema = Union[tuple(_messages(topic))] if topic not in _RAW else dict[str, Any]  # noqa: UP007
        broker.publisher(topic.name, title=topic.name, description=_description(topic), schema=schema)
    specification = AsyncAPI(
        broker,
        title="Mailroom",
        version=VERSION,
        description="Commands that Mailroom takes and events that it publishes, as CloudEvents 1.0 in JSON.",
        schema_version="3.0.0",
    )
    made: dict[str, Any] = specification.to_specification().to_jsonable()
    made.pop("servers", None)  # an installation's own
    for channel in made["channels"].values():
        channel.pop("servers", None)
    for topic in _COMMANDS:
        made["operations"][topic.name]["action"] = "receive"
    return made


def text() -> str:
    """What is stored in `FILE`; the same for the same contracts."""
    return json.dumps(document(), indent=2, sort_keys=True) + "\n"


def _messages(topic: Topic) -> list[type[BaseModel]]:
    if topic in _COMMANDS:
        models = [COMMANDS[name] for name in _COMMANDS[topic]]
        return [_message(each.name, CommandEnvelope, each.model, each.version) for each in models]
    events = [event for event in EVENTS.values() if event.topic is topic]
    return [_message(event.name, Envelope, event.model, event.version) for event in events]


def _message(name: str, envelope: type[BaseModel], data: type[BaseModel], version: int) -> type[BaseModel]:
    fields: dict[str, Any] = {"type": (Literal[name], ...), "data": (data, ...)}
    return create_model(f"{name}.v{version}", __base__=envelope, __doc__=data.__doc__, **fields)


def _description(topic: Topic) -> str:
    keep = "for ever" if topic.retention_ms == "forever" else f"{topic.retention_ms // 86_400_000} days"
    return f"Key: {topic.key}. {topic.partitions} partitions, kept {keep}."
