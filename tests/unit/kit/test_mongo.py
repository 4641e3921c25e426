"""What MongoDB's errors mean, by class, code and index."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymongo.errors import (
    AutoReconnect,
    BulkWriteError,
    DuplicateKeyError,
    ExecutionTimeout,
    InvalidOperation,
    NetworkTimeout,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteConcernError,
    WTimeoutError,
)

from services.kit.errors import Unavailable
from services.kit.mongo import check_url, classify_bulk, foreign_errors, is_transient, is_unsent

AGAIN: list[PyMongoError] = [
    AutoReconnect("lost"),
    NetworkTimeout("slow"),
    NotPrimaryError("stepped down"),
    ServerSelectionTimeoutError("none"),
    WaitQueueTimeoutError("full"),
    ExecutionTimeout("slow", 50),
    WTimeoutError("slow", 64),
    OperationFailure("stepped down", 189),
    OperationFailure("write conflict", 112),
    OperationFailure("unauthorized", 13),
    OperationFailure("Authentication failed", 18),
    BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64, "errmsg": "timeout"}]}),
]
NEVER: list[PyMongoError] = [
    DuplicateKeyError("dup", 11000),
    OperationFailure("no such command", 59),
    InvalidOperation("bad"),
    BulkWriteError({"writeErrors": [{"index": 0, "code": 11000}], "writeConcernErrors": []}),
    BulkWriteError({"writeErrors": [{"index": 0, "code": 11000}], "writeConcernErrors": [{"code": 64}]}),
]


@pytest.mark.parametrize("error", AGAIN, ids=lambda error: type(error).__name__)
async def test_what_may_work_later(error: PyMongoError) -> None:
    assert is_transient(error)
    with pytest.raises(Unavailable) as caught, foreign_errors():
        raise error
    assert caught.value.dependency == "MongoDB"


@pytest.mark.parametrize("error", NEVER, ids=lambda error: type(error).__name__)
async def test_what_will_not(error: PyMongoError) -> None:
    assert not is_transient(error)
    with pytest.raises(type(error)), foreign_errors():
        raise error


def test_labels_of_the_server_count() -> None:
    labelled = OperationFailure("x", 1, {"errorLabels": ["RetryableWriteError"]})
    assert is_transient(labelled)


def test_only_a_server_never_found_is_certain_to_have_got_nothing() -> None:
    assert [error for error in AGAIN if is_unsent(error)] == [AGAIN[3]]


async def test_a_value_quoted_by_the_server_is_not_told() -> None:
    error = OperationFailure("dup key: { address: 'alice@example.com' }", 189)
    with pytest.raises(Unavailable) as caught, foreign_errors():
        raise error
    assert "alice" not in str(caught.value)
    bulk = BulkWriteError({"writeErrors": [{"index": 0, "code": 11000, "errmsg": "alice@example.com"}]})
    assert "alice" not in classify_bulk(bulk, 1).detail


@given(
    size=st.integers(1, 20),
    failures=st.dictionaries(st.integers(0, 19), st.sampled_from([11000, 121, 189])),
    unacknowledged=st.booleans(),
)
def test_a_bulk_is_told_by_index(size: int, failures: dict[int, int], unacknowledged: bool) -> None:
    failures = {index: code for index, code in failures.items() if index < size}
    error = BulkWriteError(
        {
            "writeErrors": [{"index": index, "code": code} for index, code in failures.items()],
            "writeConcernErrors": [{"code": 64}] if unacknowledged else [],
        }
    )
    outcome = classify_bulk(error, size)
    names = {11000: "duplicate", 121: "failed", 189: "unknown"}
    others = "unknown" if unacknowledged else "done"
    assert outcome.items == tuple(names[failures[i]] if i in failures else others for i in range(size))
    assert outcome.where("duplicate") == [i for i, code in sorted(failures.items()) if code == 11000]


@pytest.mark.parametrize(
    ("error", "item"),
    [
        (None, "done"),
        (AutoReconnect("lost"), "unknown"),
        (ServerSelectionTimeoutError("none"), "unknown"),
        (WriteConcernError("x", 100), "unknown"),
        (OperationFailure("unauthorized", 13), "unknown"),
        (OperationFailure("no such command", 59), "failed"),
    ],
)
def test_a_bulk_that_fails_as_a_whole(error: PyMongoError | None, item: str) -> None:
    assert classify_bulk(error, 3).items == (item,) * 3


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://h", "not a MongoDB URL"),
        ("mongodb://h/?tls=maybe", "The value of tls must be 'true' or 'false'"),
        ("mongodb://h/?nonsense=1", "Unknown option: nonsense"),
        ("mongodb://h/?tlsCAFile=/no/ca.pem", "/no/ca.pem cannot be read (No such file or directory)"),
        (f"mongodb://h/?tls=false&tlsCAFile={__file__}", "TLS has not been enabled but the following tls parameters"),
        (f"mongodb://h/?tls=true&tlsCertificateKeyFile={__file__}", "Private key doesn't match certificate"),
        ("mongodb://who:pass:word@h/", "Username and password must be escaped"),
        ("mongodb://h:port-of-mine/", "Port contains non-digit characters"),
    ],
)
def test_a_url_of_which_no_client_can_be_made(url: str, told: str) -> None:
    """Where the client would only warn, and leave TLS out, the process does not start."""
    with pytest.raises(ValueError) as caught:
        check_url(url)
    assert str(caught.value).startswith(told)


def test_a_url_with_a_user_and_tls() -> None:
    check_url("mongodb://who:pass%3Aword@a:1,b:2/?tls=true&replicaSet=rs0&authSource=admin")
    check_url("mongodb+srv://who:word@cluster.example/?tls=true")  # and no name is looked up


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OperationFailure("Authentication failed.", 18), "user or password in MAILROOM_MONGO_URL are refused"),
        (
            OperationFailure(
                'not authorized on mailroom_x to execute command { find: "m", filter: { to: "a@b" } }', 13
            ),
            "the user in MAILROOM_MONGO_URL may not find in mailroom_x: docs/operating.md",
        ),
        (OperationFailure("command insert requires authentication", 13), "may not work without a log-in: docs/"),
        (
            ServerSelectionTimeoutError(
                "h:1: [SSL: X] certificate verify failed: certificate has expired (_ssl.c:1006)"
            ),
            "the server's certificate has expired",
        ),
        (
            ServerSelectionTimeoutError("h:1: [SSL: X] certificate verify failed: IP address mismatch, x. (_ssl.c:1)"),
            "the server's certificate is for another name",
        ),
        (ServerSelectionTimeoutError("h:1: [Errno 111] Connect call failed"), "no primary answers: is it running"),
    ],
)
async def test_who_is_not_let_in_is_told_why(error: PyMongoError, told: str) -> None:
    with pytest.raises(Unavailable) as caught, foreign_errors():
        raise error
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
