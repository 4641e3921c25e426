"""The email service's own parts, put together by its composition root and not started, for commands that need them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from services.kit.errors import PermanentError

if TYPE_CHECKING:
    from services.email.app import Email, Role

PUBLISH_SECONDS: Final = 5.0


@asynccontextmanager
async def email_service(role: Role, *, publishing: bool = False) -> AsyncIterator[Email]:
    """The parts of `role`. Nothing consumes, sends or serves; what is appended is published by the running service's
    relay. `publishing`: the producer runs meanwhile.

    Raises SettingsError, Unavailable.
    """
    from services.email.app import Email
    from services.email.settings import EmailSettings
    from services.kit.settings import load

    async with AsyncExitStack() as stack:
        email = Email(load(EmailSettings), role)
        await email.assemble(stack)
        if publishing:
            await email.publisher.start()
            stack.push_async_callback(email.publisher.stop, PUBLISH_SECONDS)
        yield email


def role_of(consumer: str) -> Role:
    """The role whose process runs this consumer. Raises PermanentError."""
    roles: dict[str, Role] = {
        "email-intake-": "intake",
        "email-translator": "translator",
        "email-settler": "settler",
        "email-files": "settler",
    }
    for prefix, role in roles.items():
        if consumer.startswith(prefix):
            return role
    raise PermanentError("noHandler", f"no part of the email service handles the records of {consumer}")
