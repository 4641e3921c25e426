"""MongoDB as a replica set of one."""

import contextlib
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure

from deploy.local import provision
from deploy.local.provision import Progress
from deploy.local.site import HOST, Site
from deploy.processes import MONGO_OPTIONS

_NOT_YET_INITIALIZED = 94
_ALREADY_INITIALIZED = 23


def command(site: Site, progress: Progress) -> list[str]:
    """How to start the server."""
    folder = site.data_dir("mongo")
    folder.mkdir(parents=True, exist_ok=True)
    return [
        str(provision.mongod(site.cache_dir, progress)),
        *MONGO_OPTIONS,
        f"--bind_ip={HOST}",
        f"--port={site.ports['mongo']}",
        f"--dbpath={folder}",
        f"--wiredTigerCacheSizeGB={site.mongo_cache_gb}",
        "--setParameter=diagnosticDataCollectionEnabled=false",
        "--nounixsocket",
        "--quiet",
    ]


def answers(site: Site) -> None:
    """Return if the server is primary; initiate the replica set, or move it to the port of today, if it is not."""
    url = f"mongodb://{HOST}:{site.ports['mongo']}/?directConnection=true"
    client: MongoClient[dict[str, Any]] = MongoClient(
        url, serverSelectionTimeoutMS=1000, connectTimeoutMS=1000, socketTimeoutMS=5000
    )
    with client:
        member = f"{HOST}:{site.ports['mongo']}"
        try:
            config = client.admin.command("replSetGetConfig")["config"]
        except OperationFailure as error:
            if error.code != _NOT_YET_INITIALIZED:
                raise
            _initiate(client, member)
            raise ConnectionError("the replica set has just been initiated") from None
        if config["members"][0]["host"] != member:
            config["members"][0]["host"] = member
            config["version"] += 1
            client.admin.command("replSetReconfig", config, force=True)
        if not client.admin.command("hello")["isWritablePrimary"]:
            raise ConnectionError("the server is not primary yet")


def _initiate(client: MongoClient[dict[str, Any]], member: str) -> None:
    with contextlib.suppress(OperationFailure):
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": [{"_id": 0, "host": member}]})
