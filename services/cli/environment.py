"""What commands read from the environment. A command asks for what it needs, and is told of everything that lacks."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from services.kit.crypto import KeyRing
    from services.kit.kafka_settings import KafkaSettings
    from services.kit.mongo import Client, Database

T = TypeVar("T")

MONGO: Final = "MAILROOM_MONGO_URL"
ENCRYPTION: Final = "FILE_ENCRYPTION_KEY"
OLD_ENCRYPTION: Final = "MAILROOM_OLD_ENCRYPTION_KEYS"
JWT_SECRET: Final = "MAILROOM_JWT_SECRET"  # noqa: S105 - a variable's name

DATABASES: Final = {
    "email": ("MAILROOM_EMAIL_DATABASE", "mailroom_email"),
    "events": ("MAILROOM_EVENTS_DATABASE", "mailroom_events"),
    "files": ("MAILROOM_FILES_DATABASE", "mailroom_files"),
}
"""Service → (variable, default) of its database's name."""

_MEANT: Final = {
    MONGO: "MongoDB's address, for instance mongodb://127.0.0.1:27017/?replicaSet=rs0",
    ENCRYPTION: "the secret that the services encrypt with",
    JWT_SECRET: "the secret that the services check tokens with",
}


def need(*names: str) -> Mapping[str, str]:
    """The values of these variables. Raises SettingsError naming every one that is not set."""
    from services.kit.errors import SettingsError

    found = {name: os.environ.get(name, "").strip() for name in names}
    missing = [f"{name} is not set. Set it to {_MEANT[name]}." for name, value in found.items() if not value]
    if missing:
        raise SettingsError(missing)
    return found


def kafka(*names: str) -> KafkaSettings:
    """Where Kafka is and as whom it is called; `names`: variables that the command needs beside. Raises SettingsError
    naming everything that is missing or wrong.
    """
    from services.kit.errors import SettingsError
    from services.kit.kafka_settings import KafkaSettings
    from services.kit.settings import load

    problems: list[str] = []
    try:
        need(*names)
    except SettingsError as error:
        problems += error.problems
    try:
        settings = load(KafkaSettings, others=os.environ)
    except SettingsError as error:
        raise SettingsError([*error.problems, *problems]) from None
    if problems:
        raise SettingsError(problems)
    return settings


def database_name(service: str) -> str:
    """The name of a service's database."""
    variable, default = DATABASES[service]
    return os.environ.get(variable, "").strip() or default


@asynccontextmanager
async def mongo() -> AsyncIterator[Client]:
    """A client of MongoDB, for as long as the block runs. Raises SettingsError, and Unavailable when it is away."""
    from services.kit.mongo import connect, ping

    client = connect(need(MONGO)[MONGO])
    try:
        await ping(client)
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def database(service: str) -> AsyncIterator[Database]:
    """A service's database."""
    async with mongo() as client:
        yield client[database_name(service)]


def key_ring() -> KeyRing:
    """The keys that parked records are encrypted with."""
    from services.kit.crypto import KeyRing

    old = [value.strip() for value in os.environ.get(OLD_ENCRYPTION, "").split(",") if value.strip()]
    return KeyRing.from_secret(need(ENCRYPTION)[ENCRYPTION], old)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work. What libraries log is left out unless MAILROOM_LOG_LEVEL is debug: errors are told once."""
    with _logging_to_stderr():
        return asyncio.run(work)


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    import logging

    import structlog

    from services.kit.logs import configure

    root, before = logging.getLogger(), structlog.get_config()
    handlers, level, disabled = root.handlers[:], root.level, root.manager.disable
    debug = os.environ.get("MAILROOM_LOG_LEVEL") == "debug"
    configure("debug" if debug else "error", "console", service="cli", stream=sys.stderr)
    logging.disable(logging.NOTSET if debug else logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(disabled)
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.configure(**before)


def actor() -> str:
    """Who acts, for the audit of what is discarded, resolved or retried."""
    import getpass

    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = "unknown"
    return f"operator:{name}"
