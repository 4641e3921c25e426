"""Clients that only ask: opened for a question, closed after it, and what goes wrong is told as Unavailable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from services.kit.kafka.bounded import bounded
from services.kit.kafka.connection import Where, connection
from services.kit.kafka.diagnosis import unreachable

SECONDS: Final = 10.0
"""How long one step may take."""


def consumer(where: Where, client_id: str, **options: Any) -> AbstractAsyncContextManager[Any]:
    """A consumer without a group. `options`: further ones of aiokafka's."""
    arguments = connection(where).arguments(client_id, enable_auto_commit=False, auto_offset_reset="none", **options)
    made = AIOKafkaConsumer(**arguments)
    return _opened(where, made, made.start, made.stop)


def admin(where: Where, client_id: str) -> AbstractAsyncContextManager[Any]:
    """An admin client."""
    made = AIOKafkaAdminClient(**connection(where).arguments(client_id))
    return _opened(where, made, made.start, made.close)


def client(where: Where, client_id: str) -> AbstractAsyncContextManager[Any]:
    """A client for requests that the others have no method for."""
    made = AIOKafkaClient(**connection(where).arguments(client_id))
    return _opened(where, made, made.bootstrap, made.close)


@asynccontextmanager
async def _opened(
    where: Where, made: Any, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]
) -> AsyncIterator[Any]:
    try:
        await bounded(start(), SECONDS)
        yield made
    except (KafkaError, OSError, TimeoutError) as failure:
        raise await unreachable(where, failure) from failure
    finally:
        await bounded(stop(), SECONDS)
