"""A service's own parts, put together by its composition root and not started, for commands that need them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    from services.kit.kafka.publisher import KafkaPublisher

PUBLISH_SECONDS: Final = 5.0


class Assembled(Protocol):
    """A composition root."""

    publisher: KafkaPublisher

    async def assemble(self, stack: AsyncExitStack) -> Any:
        """Connect and build; what is opened is closed with `stack`."""


S = TypeVar("S", bound=Assembled)


@asynccontextmanager
async def assembled(service: S, *, publishing: bool) -> AsyncIterator[S]:
    """The service's parts. Nothing consumes, sends or serves; what is appended is published by the running service's
    relay. `publishing`: the producer runs meanwhile. Raises SettingsError, Unavailable.
    """
    async with AsyncExitStack() as stack:
        await service.assemble(stack)
        if publishing:
            await service.publisher.start()
            stack.push_async_callback(service.publisher.stop, PUBLISH_SECONDS)
        yield service
