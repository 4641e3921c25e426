"""The files service's own parts, put together by its composition root and not started, for commands that need them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from services.kit.errors import PermanentError

if TYPE_CHECKING:
    from services.files.app import FilesService, Role

PUBLISH_SECONDS: Final = 5.0
READERS: Final = "files-"
"""What the names of the service's consumers begin with."""


@asynccontextmanager
async def files_service(role: Role, *, publishing: bool = False) -> AsyncIterator[FilesService]:
    """The parts of `role`. Nothing consumes or serves; what is appended is published by the running service's relay.
    `publishing`: the producer runs meanwhile.

    Raises SettingsError, Unavailable.
    """
    from services.files.app import FilesService
    from services.files.settings import FilesSettings
    from services.kit.settings import load

    async with AsyncExitStack() as stack:
        files = FilesService(load(FilesSettings), role)
        await files.assemble(stack)
        if publishing:
            await files.publisher.start()
            stack.push_async_callback(files.publisher.stop, PUBLISH_SECONDS)
        yield files


def role_of(consumer: str) -> Role:
    """The role whose process runs this consumer. Raises PermanentError."""
    roles: dict[str, Role] = {
        "files-commands": "commands",
        "files-translator": "translator",
        "files-settler": "settler",
    }
    if consumer in roles:
        return roles[consumer]
    raise PermanentError("noHandler", f"no part of the files service handles the records of {consumer}")
