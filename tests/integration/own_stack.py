"""A stack of a test's own: for tests that stop, kill or reconfigure what all others share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.site import throwaway_site
from deploy.local.stack import Stack
from tests.suite.shared import PREFIX


@contextmanager
def own_stack(*parts: str) -> Iterator[Stack]:
    """Start these parts and what they need on free ports; stop them and delete their data at the end.

    Its folder looks like that of a run, so that the next run stops what a killed process leaves.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    stack = Stack(throwaway_site(folder / "own", os.environ))
    try:
        stack.start(parts)
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)
