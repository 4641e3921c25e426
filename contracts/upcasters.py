"""Old event shapes become new ones when they are read: pure functions, one per (type, version), chained.

Version n of a type is turned into version n + 1 by `UPCASTERS[type, n]`. Every version ever published has a stored
example in `contracts/examples/` that a test decodes through this chain. No type has a second version yet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from contracts.errors import ContractError

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
Upcasters = Mapping[tuple[str, int], Upcaster]

UPCASTERS: Upcasters = {}


def upcast(name: str, version: int, current: int, data: Any, upcasters: Upcasters = UPCASTERS) -> Any:
    """Bring `data` of `name` from `version` to `current`; the input is not changed.

    Raises:
        ContractError: `unknownVersion`: newer than this build, below 1, or a link of the chain is missing.
    """
    if version == current:
        return data
    if not 1 <= version < current:
        raise ContractError("unknownVersion", f"{name} v{version} is not known here (current is v{current})")
    if not isinstance(data, dict):
        raise ContractError("invalid", "data is not an object")
    for step in range(version, current):
        up = upcasters.get((name, step))
        if up is None:
            raise ContractError("unknownVersion", f"no way from {name} v{step} to v{step + 1}")
        data = up(dict(data))
    return data
