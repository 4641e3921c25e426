"""Structured logs: one JSON object a line (or coloured text for people), with ids bound and nothing personal
in them.

The standard library's loggers (uvicorn, aiokafka, botocore, PyMongo, warnings) go the same way, so that what
they say is redacted too, and what they repeat is written once in ten seconds. Fields: `timestamp`, `level`, `event`,
`source` (the logger), `service`, `correlation_id`, `aggregate_id`, and what the caller adds; `exception` holds a
traceback, `held_back` how many repetitions were not written.
"""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from services.kit.log_throttle import HELD_BACK, Throttle
from services.kit.redaction import Redactor, redact_text, shorten_address

__all__ = ["Format", "Level", "Logger", "bind_ids", "configure", "get_logger", "redact_text", "shorten_address"]

Logger = FilteringBoundLogger
Level = Literal["debug", "info", "warning", "error"]
Format = Literal["json", "console"]

_TALKATIVE = ("aiobotocore", "aiokafka", "botocore", "faststream", "httpcore", "httpx", "pymongo", "urllib3")
"""Libraries heard from `warning` on only: below that they tell every call, with headers and bodies."""


def configure(
    level: Level = "info",
    fmt: Format = "json",
    *,
    service: str = "",
    secrets: Sequence[str] = (),
    stream: TextIO | None = None,
) -> None:
    """Set up all logging of this process; may be called again.

    Args:
        level: the least that is written.
        fmt: `json`, one object a line, or `console`.
        service: written with every event, for instance `email`.
        secrets: values of settings that must never appear, wherever they turn up.
        stream: where to write; standard output unless given.
    """
    out = stream or sys.stdout
    redactor = Redactor(tuple(secrets))
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _named(service),
        structlog.processors.format_exc_info,
        structlog.processors.StackInfoRenderer(),
        _redacting(redactor),
    ]
    render = _json if fmt == "json" else _console(out)
    structlog.configure(
        processors=[*shared, render],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=False,
    )
    _route_standard_library(out, threshold, shared, render)


def get_logger(name: str) -> Logger:
    """A logger that says where it stands; `name` is the module's. It follows a later `configure`."""
    logger: Logger = structlog.get_logger(source=name)
    return logger


@contextmanager
def bind_ids(correlation_id: str | None = None, aggregate_id: str | None = None) -> Iterator[None]:
    """Put these ids on every event logged inside, in tasks started there too. None leaves what is bound."""
    ids = {"correlation_id": correlation_id, "aggregate_id": aggregate_id}
    with structlog.contextvars.bound_contextvars(**{name: value for name, value in ids.items() if value}):
        yield


def _named(service: str) -> Processor:
    def add_service(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        if service:
            event["service"] = service
        record = event.get("_record")
        if record is not None:
            event["source"] = record.name
            if held_back := getattr(record, HELD_BACK, 0):
                event[HELD_BACK] = held_back
        return event

    return add_service


def _redacting(redactor: Redactor) -> Processor:
    def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        record, structured = event.pop("_record", None), event.pop("_from_structlog", None)
        clean = redactor.event(dict(event))
        if record is not None:
            clean |= {"_record": record, "_from_structlog": structured}
        return clean

    return redact


def _json(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event).decode()
    except TypeError:
        return orjson.dumps(_plain(event)).decode()


def _plain(value: Any) -> Any:
    """`value` without what orjson refuses: integers beyond 64 bits, lone surrogates, types it does not know."""
    if isinstance(value, dict):
        return {str(_plain(str(name))): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if value is None or isinstance(value, float | bool) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    return str(value).encode("utf-8", "replace").decode()


def _console(out: TextIO) -> Processor:
    return structlog.dev.ConsoleRenderer(
        colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, pad_event_to=40
    )


def _route_standard_library(out: TextIO, threshold: int, shared: list[Processor], render: Processor) -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    handler.addFilter(Throttle())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"  # our own access log tells no addresses and no queries
    logging.captureWarnings(capture=True)
