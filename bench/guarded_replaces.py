"""What MongoDB allows here: bulks of guarded replaces of real documents with the declared indexes, and nothing else."""

from __future__ import annotations

import multiprocessing
import time
from itertools import islice
from typing import Any

from pymongo import IndexModel, MongoClient, ReplaceOne

from bench.generate import records
from services.events.adapters.mongo_documents import to_document
from services.events.ports import Write
from services.events.projections.known import Known, add
from services.events.projections.projection import EMAIL_LOG
from services.events.reader import read_event

PROCESSES = 2
BULK = 500
_EVENTS = 40_000


def replaces_per_second(url: str, database: str, seconds: float) -> float:
    """Documents replaced a second by two processes together, each over documents of its own, guarded by `_rev`."""
    client: MongoClient[dict[str, Any]] = MongoClient(url)
    client.drop_database(database)
    client[database]["documents"].create_indexes([IndexModel(list(index)) for index in EMAIL_LOG.indexes])
    context = multiprocessing.get_context("spawn")
    with context.Pool(PROCESSES) as pool:
        counts = pool.starmap(_replace, [(url, database, number, seconds) for number in range(PROCESSES)])
    client.drop_database(database)
    client.close()
    return sum(counts)


def _replace(url: str, database: str, number: int, seconds: float) -> float:
    client: MongoClient[dict[str, Any]] = MongoClient(url, w="majority", journal=True)
    collection = client[database]["documents"]
    documents = _documents(number)
    collection.insert_many(documents)
    done, at, began = 0, 0, time.monotonic()
    while time.monotonic() < began + seconds:
        part = documents[at : at + BULK]
        operations = []
        for document in part:
            guard = {"_id": document["_id"], "_rev": document["_rev"]}
            document["_rev"] = type(document["_rev"])(document["_rev"] + 1)
            operations.append(ReplaceOne(guard, document, upsert=True))
        collection.bulk_write(operations, ordered=False)
        done += len(part)
        at = at + BULK if at + BULK < len(documents) else 0
    rate = done / (time.monotonic() - began)
    client.close()
    return rate


def _documents(number: int) -> list[dict[str, Any]]:
    """Documents as live projection writes them."""
    aggregates: dict[bytes, Known] = {}
    for offset, (key, value) in enumerate(islice(records(_EVENTS, seed=number + 2), _EVENTS)):
        add(aggregates.setdefault(key, {}), read_event(value, 0, offset))
    found: list[dict[str, Any]] = []
    for key, known in aggregates.items():
        ordered = sorted(known.values())
        body = EMAIL_LOG.fold(ordered, ())
        found.append(to_document(Write(f"{number}-{key.decode()}", 0, ordered, (), has_rows=False, body=body)))
    return found
