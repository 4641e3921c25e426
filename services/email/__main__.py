"""`python -m services.email ROLE`: one process of the email service, with its settings from the environment."""

from __future__ import annotations

import sys
from typing import cast

from services.email.app import ROLES, Role, run
from services.email.settings import EmailSettings
from services.kit.lifecycle import main
from services.kit.settings import load

USAGE = f"usage: python -m services.email {'|'.join(ROLES)}\n"

OTHERS = (
    "MAILROOM_EVENTS_DATABASE",
    "MAILROOM_EVENTS_PORT",
    "MAILROOM_EVENTS_PARKED_PER_MINUTE",
    "MAILROOM_GRACE_HOURS",
    "MAILROOM_REBUILD_WORKERS",
    "MAILROOM_EMAIL_EVENTS_TOPIC",
    "MAILROOM_FILES_DATABASE",
    "MAILROOM_FILES_PORT",
    "MAILROOM_FILES_QUEUE_URL",
)
"""Variables that the other services read: one environment may serve all."""


async def _application(role: Role) -> int:
    return await run(role, load(EmailSettings, others=OTHERS))


if __name__ == "__main__":
    arguments = sys.argv[1:] or ["all"]
    if len(arguments) != 1 or arguments[0] not in ROLES:
        sys.stderr.write(USAGE)
        raise SystemExit(64)
    main(lambda: _application(cast("Role", arguments[0])))
