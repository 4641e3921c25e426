"""Reading what was logged, through the real pipeline, redaction included."""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import structlog

from services.kit import logs


class Captured:
    """Everything written to the log inside `captured_logs`."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        """The lines as they would have been written."""
        return self.stream.getvalue()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines as fields, in order."""
        return [orjson.loads(line) for line in self.text.split("\n") if line]

    def named(self, event: str) -> list[dict[str, Any]]:
        """Those whose `event` is this."""
        return [fields for fields in self.events if fields["event"] == event]


@contextmanager
def captured_logs(
    *, level: logs.Level = "debug", service: str = "", secrets: tuple[str, ...] = ()
) -> Iterator[Captured]:
    """Capture all logs of this process as JSON while inside; what was configured before holds again
    afterwards.
    """
    captured = Captured()
    before = structlog.get_config()
    root = logging.getLogger()
    handlers, threshold = list(root.handlers), root.level
    logs.configure(level, "json", service=service, secrets=secrets, stream=captured.stream)
    try:
        yield captured
    finally:
        structlog.configure(**before)
        root.handlers[:] = handlers
        root.setLevel(threshold)
