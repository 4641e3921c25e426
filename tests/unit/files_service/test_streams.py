"""What an append of a file gives back is what stands in its stream."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from services.files.domain.commands import Request
from services.files.domain.decisions import decide
from services.files.streams import Held
from services.kit.errors import PermanentError
from services.kit.event_store.port import Append, Appended, AppendResult
from tests.unit.files_service.door import Door
from tests.unit.files_service.requests import FILE, requested


async def test_what_is_read_back_and_cannot_be_read_here_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our append stands, its answer was lost, and a newer build has written before it was read back."""
    door = Door()
    append = door.store.append_many

    async def read_back(appends: Sequence[Append]) -> list[AppendResult]:
        (result,) = await append(appends)
        assert isinstance(result, Appended)
        stream = result.stream
        strange = '{"type": "file.uploaded", "dataversion": 99}'
        return [Appended(replace(stream, version=stream.version + 1, wire=(*stream.wire, strange)))]

    monkeypatch.setattr(door.store, "append_many", read_back)
    held = await door.streams.load(FILE)
    decision = decide(held.state, Request(requested()), door.clock.now(), door.streams.policy)
    result = await door.streams.append(held, decision.drafts)
    assert not isinstance(result, Held)
    assert isinstance(result, PermanentError)
