"""The MongoDB client with the guarantees that all of Mailroom counts on, and its errors in our tree.

Every read and write is `majority` and from the primary: what was acknowledged survives a fail-over, and what was
read was acknowledged. Nothing but adapters sees PyMongo.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pymongo import AsyncMongoClient
from pymongo.asynchronous import pool as _pool
from pymongo.asynchronous import topology as _topology
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from services.kit.cancellation import cancellation_kept, notified
from services.kit.errors import Unavailable
from services.kit.metrics import Metrics
from services.kit.mongo_gate import RETRY_SECONDS, Gate, GateRefused, pools_behind

for _module in (_topology, _pool):
    vars(_module)["_async_cond_wait"] = notified  # where they wait for a server, and for a connection

Document = dict[str, Any]
Client = AsyncMongoClient[Document]
Database = AsyncDatabase[Document]
Collection = AsyncCollection[Document]

SERVER_SELECTION_SECONDS = 3.0
"""How long an operation waits for a primary before it fails as Unavailable."""

PATIENCE_SECONDS = 20.0
"""How long an operation in the background, which has few connections, waits for one."""

CONNECTIONS = 50
"""Connections of a client, and operations under way at a time, at most."""

DUPLICATE_KEY = 11000

_TRANSIENT_CODES = frozenset(
    {
        6,  # HostUnreachable
        7,  # HostNotFound
        50,  # MaxTimeMSExpired
        64,  # WriteConcernTimeout
        89,  # NetworkTimeout
        91,  # ShutdownInProgress
        112,  # WriteConflict
        189,  # PrimarySteppedDown
        262,  # ExceededTimeLimit
        317,  # ConnectionPoolExpired
        9001,  # SocketException
        10107,  # NotWritablePrimary
        11600,  # InterruptedAtShutdown
        11602,  # InterruptedDueToReplStateChange
        13435,  # NotPrimaryNoSecondaryOk
        13436,  # NotPrimaryOrSecondary
    }
)
"""Server codes after which the same operation may succeed (MongoDB's specification of retryable reads and writes, and
time limits).
"""

OF_THE_DOCUMENT = frozenset(
    {
        2,  # BadValue
        9,  # FailedToParse
        22,  # InvalidBSON
        52,  # DollarPrefixedFieldName
        56,  # EmptyFieldName
        57,  # DottedFieldName
        121,  # DocumentValidationFailure
        171,  # CannotIndexParallelArrays
        10334,  # BSONObjectTooLarge
        17280,  # KeyTooLong
        17419,  # the result of an update is too large
        17420,  # likewise
    }
)
"""Server codes that blame one document. Any other one (no space, no right, a database being dropped) blames the server:
nothing may be set aside for it.
"""

_NOT_ALLOWED, _LOGIN_REFUSED = 13, 18
"""Unauthorized and AuthenticationFailed: nothing was done, and all works once an operator has mended the user."""

_REFUSED = re.compile(r"not authorized on (\S+) to execute command \{ (\w+):")

_LOGIN_WORDS = (
    "user or password in MAILROOM_MONGO_URL are refused; its authSource names the database that the user was made in"
)

BulkItem = Literal["done", "duplicate", "failed", "unknown"]
"""What became of one operation of an unordered bulk: acknowledged by a majority; E11000, so its guard or unique key
refused it; refused otherwise, nothing written; written or not, nobody knows (`is_transient` says why).
"""


def check_url(url: str) -> None:
    """Raises ValueError for a URL that no client can be made of: an option that nobody knows or that contradicts
    another, a file that cannot be read or holds no certificate. Asks nobody, and repeats no user or password.
    """
    if not url.startswith(("mongodb://", "mongodb+srv://")):
        raise ValueError("not a MongoDB URL")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # the client only warns of an option that it leaves out, such as tls
            AsyncMongoClient(url)
    except OSError as error:
        raise ValueError(f"{error.filename} cannot be read ({error.strerror})") from None
    except (PyMongoError, ValueError, UserWarning) as error:
        parts = urlsplit(url)
        secret = [unquote(part) for part in (parts.username, parts.password) if part] if "@" in url else []
        told = str(error)
        raise ValueError("not a MongoDB URL" if any(each in told for each in secret) else told.rstrip(".")) from None


def connect(
    url: str,
    *,
    name: str = "mailroom",
    server_selection: float = SERVER_SELECTION_SECONDS,
    operation: float = 20.0,
    pool: int = CONNECTIONS,
    queue: float = SERVER_SELECTION_SECONDS,
    opened: int = 0,
    metrics: Metrics | None = None,
) -> Client:
    """A client for `url`; it connects at first use, so this neither waits nor fails for a server that is away. It
    belongs to the event loop that it is first used in.

    Args:
        url: `mongodb://…`, with user, password and TLS as its options say. Concerns in it are overruled: they are not a
            matter of taste here.
        name: shown in the server's log and `currentOp`.
        server_selection: seconds to look for a primary (see `SERVER_SELECTION_SECONDS`).
        operation: seconds that one reply may take on the socket, and a write may wait for its majority.
        pool: connections at most. Few of them keep bulks from taking a small server for themselves.
        queue: seconds to wait for a free one (`mongo_gate`).
        opened: connections to open within a second or so of the first use, and to keep. A server opens all of them, so
            that a burst finds them there; a command at a terminal opens what it needs.
        metrics: where the gate before the connections is told, under `name`.

    Datetimes come back aware and in UTC, to the millisecond, which is all that BSON dates hold.
    """
    milliseconds = int(operation * 1000)
    gate = Gate(pool, patience=queue, client=name, metrics=metrics)
    return AsyncMongoClient(
        url,
        appname=name,
        w="majority",
        journal=True,
        wTimeoutMS=milliseconds,
        readConcernLevel="majority",
        readPreference="primary",
        retryWrites=True,
        retryReads=True,
        serverSelectionTimeoutMS=int(server_selection * 1000),
        connectTimeoutMS=int(server_selection * 1000),
        socketTimeoutMS=milliseconds + 2000,
        waitQueueTimeoutMS=None,  # never: it can lock the pool for ever, and the gate is waited for instead
        timeoutMS=None,  # it waits for a connection in the same way
        maxPoolSize=pool,
        minPoolSize=opened,
        _pool_class=pools_behind(gate),
        tz_aware=True,
        uuidRepresentation="standard",
    )


def connect_apart(
    url: str, *, name: str, connections: int, serves: bool = True, metrics: Metrics | None = None
) -> tuple[Client, Client]:
    """A client for requests and health checks, and one with few connections for work in the background, which waits for
    them: so that a request never waits behind bulks, and bulks do not take a small server for themselves.

    All their connections are opened in advance, those for requests only where the process `serves` any.
    """
    return (
        connect(url, name=name, opened=CONNECTIONS if serves else 0, metrics=metrics),
        connect(
            url,
            name=f"{name}-background",
            pool=connections,
            queue=PATIENCE_SECONDS,
            opened=connections,
            metrics=metrics,
        ),
    )


async def ping(client: Client, *, timeout: float = 2.0) -> None:
    """Return when the primary answers; raise Unavailable when it does not within `timeout` seconds."""
    with foreign_errors():
        await client.admin.command("ping", maxTimeMS=int(timeout * 1000))


def is_transient(error: BaseException) -> bool:
    """Whether the same operation may succeed later, unchanged."""
    if isinstance(error, BulkWriteError):
        details = error.details or {}
        failures = [*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]
        return bool(failures) and all(failure.get("code") in _TRANSIENT_CODES for failure in failures)
    if isinstance(error, ConnectionFailure | ExecutionTimeout | WTimeoutError | GateRefused):
        return True
    if isinstance(error, OperationFailure):
        return error.code in _TRANSIENT_CODES or error.code in (_NOT_ALLOWED, _LOGIN_REFUSED) or _labelled(error)
    return isinstance(error, PyMongoError) and _labelled(error)


def is_unsent(error: BaseException) -> bool:
    """Whether it is certain that a *single* write never reached a server, so that nothing can have been written.

    PyMongo raises this one before anything goes out; when its own retry of a write cannot find a server it raises the
    first attempt's error instead. A refusal of the gate gives no such certainty, as it may meet the retry.
    """
    return isinstance(error, ServerSelectionTimeoutError)


def is_duplicate(error: BaseException) -> bool:
    """Whether a single write was refused by a unique index (E11000), `_id` included."""
    return isinstance(error, DuplicateKeyError)


@contextmanager
def foreign_errors() -> Iterator[None]:
    """Turn what may work later into Unavailable; everything else passes, since only its caller knows what it means.

    Not for a write whose unknown outcome matters: there, catch PyMongoError and ask `is_unsent` and
    `is_transient`, and await within `cancellation_kept`, as is done here.
    """
    try:
        with cancellation_kept():
            yield
    except PyMongoError as error:
        if is_transient(error):
            after = RETRY_SECONDS if isinstance(error, GateRefused) else None
            raise Unavailable("MongoDB", _explained(error), retry_after=after) from error
        raise


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """What became of each operation of an unordered bulk, by index."""

    items: tuple[BulkItem, ...]
    detail: str
    """For people: the first thing that went wrong, "" when nothing did."""

    def where(self, item: BulkItem) -> list[int]:
        """The indexes at which `item` is the outcome."""
        return [index for index, found in enumerate(self.items) if found == item]


def classify_bulk(error: PyMongoError | None, size: int) -> BulkOutcome:
    """Say for each of the `size` operations of an *unordered* bulk what became of it. `None` = no error.

    A write error names its index. Where the majority's word is missing (a write concern error, a lost
    connection) every operation not named is `unknown`: it may stand on the primary and still be rolled back.
    A server that cannot be found is no exception: PyMongo splits large bulks, and an earlier part may have
    been written.
    """
    if error is None:
        return BulkOutcome(_all("done", size), "")
    if not isinstance(error, BulkWriteError):
        unsure = is_transient(error) or isinstance(error, WriteConcernError)
        return BulkOutcome(_all("unknown", size) if unsure else _all("failed", size), _reason(error))
    details = error.details or {}
    unacknowledged = bool(details.get("writeConcernErrors"))
    items: list[BulkItem] = ["unknown" if unacknowledged else "done"] * size
    for failure in details.get("writeErrors", ()):
        items[failure["index"]] = _write_error(failure)
    return BulkOutcome(tuple(items), _reason(error))


def _all(item: BulkItem, size: int) -> tuple[BulkItem, ...]:
    return (item,) * size


def _write_error(failure: Document) -> BulkItem:
    if failure.get("code") == DUPLICATE_KEY:
        return "duplicate"
    return "unknown" if failure.get("code") in _TRANSIENT_CODES else "failed"


def _labelled(error: PyMongoError) -> bool:
    return error.has_error_label("RetryableWriteError") or error.has_error_label("TransientTransactionError")


def _reason(error: PyMongoError) -> str:
    """The server's words without the values it quotes: an E11000 repeats the key, which may be personal."""
    if isinstance(error, BulkWriteError):
        details = error.details or {}
        failures: Sequence[Document] = [
            *details.get("writeErrors", ()),
            *details.get("writeConcernErrors", ()),
        ]
        codes = sorted({str(failure.get("code")) for failure in failures})
        return f"{len(failures)} of the bulk's operations failed with code {', '.join(codes)}"
    if isinstance(error, OperationFailure):
        return f"code {error.code}"
    if isinstance(error, ServerSelectionTimeoutError):
        return _no_primary(str(error))
    if isinstance(error, AutoReconnect):
        return "the connection was lost"
    return str(error)[:200]


def _explained(error: PyMongoError) -> str:
    if isinstance(error, OperationFailure) and error.code == _LOGIN_REFUSED:
        return _LOGIN_WORDS
    if isinstance(error, OperationFailure) and error.code == _NOT_ALLOWED:
        refused = _REFUSED.search(str(error))  # the command goes on with its values, which may be personal
        what = f"{refused[2]} in {refused[1]}" if refused else "work without a log-in"
        return f"the user in MAILROOM_MONGO_URL may not {what}: docs/operating.md says what each service needs"
    return f"{type(error).__name__}: {_reason(error)}"


def _no_primary(told: str) -> str:
    """Why no primary is to be had, from what the servers or TLS said."""
    certificate = re.search(r"certificate verify failed: ([^(]+?)\.? ?\(", told)
    if certificate is not None and "expired" in certificate[1]:
        return "the server's certificate has expired: renew it there"
    if certificate is not None and "mismatch" in certificate[1]:
        return "the server's certificate is for another name: MAILROOM_MONGO_URL must use its own"
    if certificate is not None:
        remedy = "tlsCAFile in MAILROOM_MONGO_URL must name the certificate of its authority"
        return f"the server's certificate is not trusted ({certificate[1]}): {remedy}"
    if "Authentication failed" in told:
        return _LOGIN_WORDS
    if "WRONG_VERSION_NUMBER" in told or "RECORD_LAYER_FAILURE" in told:
        return "the server does not speak TLS: leave tls out of MAILROOM_MONGO_URL, or switch it on there"
    if "closed" in told or "alert" in told:
        return (
            "the server ends the connection: it may want TLS (tls=true in MAILROOM_MONGO_URL) or another client "
            "certificate (tlsCertificateKeyFile)"
        )
    return "no primary answers: is it running, and is its address right?"
