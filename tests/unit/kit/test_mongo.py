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
from services.kit.mongo import classify_bulk, foreign_errors, is_transient, is_unsent

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
    BulkWriteError({"writeErrors": [], "writeConcernErrors": [{"code": 64, "errmsg": "timeout"}]}),
]
NEVER: list[PyMongoError] = [
    DuplicateKeyError("dup", 11000),
    OperationFailure("no such command", 59),
    OperationFailure("unauthorized", 13),
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
        (OperationFailure("unauthorized", 13), "failed"),
    ],
)
def test_a_bulk_that_fails_as_a_whole(error: PyMongoError | None, item: str) -> None:
    assert classify_bulk(error, 3).items == (item,) * 3
