"""A MongoDB that asks for TLS and a user."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from deploy.local.site import HOST, ROOT
from services.kit.errors import Unavailable
from services.kit.mongo import connect, foreign_errors, ping
from tests.integration.certificates import Authority
from tests.integration.nodes import Place, until

_COMMAND = re.compile(r'^db\.getSiblingDB\("(\w+)"\)\.runCommand\((\{.*\})\)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SecuredMongo:
    """The server, with the users of docs/operating.md."""

    port: int
    authority: Authority
    stranger: Authority

    def url(self, user: str | None = None, password: str = "change-me", *, host: str = HOST, tls: str = "") -> str:
        """The URL of a client; `tls`: its options for that."""
        who = "" if user is None else f"{user}:{password}@"
        return f"mongodb://{who}{host}:{self.port}/?replicaSet=rs0&{tls or f'tls=true&tlsCAFile={self.authority.file}'}"


def documented() -> list[tuple[str, dict[str, Any]]]:
    """The commands that docs/operating.md has administrators give."""
    found = _COMMAND.findall((ROOT / "docs/operating.md").read_text())
    return [(database, json.loads(command)) for database, command in found]


def started(here: Place) -> SecuredMongo:
    """One server, and the users and roles of docs/operating.md in it."""
    authority, stranger = Authority(here.folder, "mongo-authority"), Authority(here.folder, "mongo-stranger")
    server, keys = authority.signs("mongo-server"), here.folder / "keyfile"
    keys.write_text("k" * 64)
    keys.chmod(0o400)
    tls = [f"--tlsCertificateKeyFile={server.both}", f"--tlsCAFile={authority.file}", "--tlsMode=requireTLS"]
    options = [*tls, "--tlsAllowConnectionsWithoutCertificates", "--auth", f"--keyFile={keys}"]
    (node,) = here.mongo(1, options=options)
    secured = SecuredMongo(node.port, authority, stranger)
    with MongoClient[dict[str, Any]](f"{secured.url().replace('replicaSet=rs0', 'directConnection=true')}") as client:
        member = {"_id": 0, "host": f"{HOST}:{node.port}"}
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": [member]})
        until(lambda: bool(client.admin.command("hello")["isWritablePrimary"]), "primary", PyMongoError)
        client.admin.command("createUser", "root", pwd="change-me", roles=["root"])
    with MongoClient[dict[str, Any]](secured.url("root")) as client:
        for database, command in documented():
            client[database].command(command)
    return secured


async def told(url: str, database: str = "mailroom_email") -> str:
    """What a service is told that finds this at its start; "" = it is let in."""
    client = connect(url, server_selection=2.0)
    try:
        with foreign_errors():
            await ping(client)
            await client[database]["messages"].find_one({})
    except Unavailable as refused:
        return str(refused)
    finally:
        await client.close()
    return ""
