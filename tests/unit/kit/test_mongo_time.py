"""Who is told what when MongoDB stops a query."""

import pytest
from pymongo.errors import AutoReconnect, ExecutionTimeout, OperationFailure

from services.kit.errors import TooMuch, Unavailable
from services.kit.mongo_time import in_time, milliseconds


async def test_a_query_that_the_server_stopped_is_too_much_and_says_of_what() -> None:
    with pytest.raises(TooMuch, match="the page cannot be read within 5 s"), in_time("the page", 5.0):
        raise ExecutionTimeout("operation exceeded time limit", 50)


@pytest.mark.parametrize("error", [AutoReconnect("gone"), OperationFailure("not primary", 10107)])
async def test_a_server_that_is_away_is_no_fault_of_the_query(error: Exception) -> None:
    with pytest.raises(Unavailable), in_time("the page", 5.0):
        raise error


def test_no_time_left_is_not_no_limit() -> None:
    assert milliseconds(2.5) == 2500
    assert milliseconds(0.0) == milliseconds(-1.0) == 1
