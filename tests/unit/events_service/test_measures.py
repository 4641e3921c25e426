"""Sums that were made by other rules are not told as if they were made by these."""

from __future__ import annotations

import hashlib
import json

import pytest

from services.events.analytics import MEASURES

SUMS = {
    ("email_log", 1): "e3dbf6457340033e",
    ("file", 1): "01b283700eb17c15",
}
"""What each version stands for. A change of the measures fails here: raise `version` and write its digest down."""


@pytest.mark.parametrize("projection", sorted(MEASURES))
def test_measures_change_with_their_version(projection: str) -> None:
    measures = MEASURES[projection]
    told = [measures.statuses, dict(measures.sums), dict(measures.beside), dict(measures.by)]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    assert SUMS.get((projection, measures.version)) == digest
