"""`python -m services.files ROLE`: one process of the files service, with its settings from the environment."""

from __future__ import annotations

import sys
from typing import cast

from services.files.app import ROLES, Role, run
from services.files.settings import FilesSettings
from services.kit.lifecycle import main
from services.kit.settings import load

USAGE = f"usage: python -m services.files {'|'.join(ROLES)}\n"


async def _application(role: Role) -> int:
    return await run(role, load(FilesSettings))


if __name__ == "__main__":
    arguments = sys.argv[1:] or ["all"]
    if len(arguments) != 1 or arguments[0] not in ROLES:
        sys.stderr.write(USAGE)
        raise SystemExit(64)
    main(lambda: _application(cast("Role", arguments[0])))
