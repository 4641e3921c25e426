"""Kafka's storage is formatted whatever the id of its cluster happens to be."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID

import pytest

from deploy.local import kafka
from deploy.local.site import throwaway_site


def test_an_id_may_begin_with_a_hyphen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in sixty-four does: as a word of its own it was taken for an option."""
    monkeypatch.setattr("uuid.uuid4", lambda: UUID(bytes=b"\xf8" * 16))
    site = throwaway_site(tmp_path, os.environ)
    kafka.command(site, lambda line: None)
    assert "cluster.id=-" in (site.data_dir("kafka") / "log" / "meta.properties").read_text()
