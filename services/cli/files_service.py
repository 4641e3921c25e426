"""The files service's own parts, put together by its composition root and not started, for commands that need them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, cast

from services.kit.errors import PermanentError

if TYPE_CHECKING:
    from services.files.app import FilesService, Role


def files_service(role: Role, *, publishing: bool = False) -> AbstractAsyncContextManager[FilesService]:
    """The parts of `role`; see `assembled`."""
    from services.cli.assembling import assembled
    from services.files.app import FilesService
    from services.files.settings import FilesSettings
    from services.kit.settings import load

    return assembled(FilesService(load(FilesSettings), role), publishing=publishing)


def role_of(consumer: str) -> Role:
    """The role whose process runs this consumer. Raises PermanentError."""
    from services.files.kafka_access import READS

    for role, readings in READS.items():
        if consumer in {reading.group for reading in readings}:
            return cast("Role", role)
    raise PermanentError("noHandler", f"no part of the files service handles the records of {consumer}")
