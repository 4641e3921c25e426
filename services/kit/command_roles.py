"""Which roles a command on Kafka may claim, by topic.

Kafka does not say who wrote a record, so `actor` is a claim, and a command without one counts as a service's. ACLs
decide who may write to a topic; this decides what whoever writes there may claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, get_args

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from contracts.topics import FILES_COMMANDS, LANES
from services.kit.actors import Role, claimed_role
from services.kit.errors import PermanentError
from services.kit.json_settings import json_object

ROLES: Final[tuple[Role, ...]] = get_args(Role)
TOPICS: Final = (*(topic.name for topic in LANES.values()), FILES_COMMANDS.name)

MEANING: Final = (
    'roles that commands may claim, by topic, as JSON: {"files.commands": ["user", "service"]}; '
    "a topic that is not named takes all"
)
"""What the setting means; it is the same one for every service."""


def _checked(value: Any) -> Any:
    """Raises ValueError with everything that is wrong."""
    value = json_object(value, "topic → list of roles")
    wrong: list[str] = []
    for topic, roles in value.items():
        if topic not in TOPICS:
            wrong.append(f"{topic} is no topic of commands; there are {', '.join(TOPICS)}")
        if not isinstance(roles, list | tuple) or not roles or not set(map(str, roles)) <= set(ROLES):
            wrong.append(f"{topic} needs one or more of {', '.join(ROLES)}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return {topic: tuple(roles) for topic, roles in value.items()}


CommandRoles = Annotated[dict[str, tuple[Role, ...]], NoDecode, BeforeValidator(_checked)]
"""Topic → the roles that a command on it may claim. A topic that is not there takes every claim."""


def check_claim(allowed: Mapping[str, tuple[Role, ...]], topic: str, actor: str | None) -> None:
    """Raise PermanentError `roleNotAllowed` when a command on `topic` claims a role that it may not."""
    roles = allowed.get(topic)
    if roles is None or claimed_role(actor) in roles:
        return
    claim = "no actor, which counts as service" if actor is None else f"the role {claimed_role(actor)!r}"
    raise PermanentError("roleNotAllowed", f"it claims {claim}; on {topic} these may be claimed: {', '.join(roles)}")
