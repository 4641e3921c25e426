"""Whose word it is that an object is not there."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from services.email.adapters.objects import Objects
from services.kit.errors import Unavailable
from services.kit.testing import FakeClock


class Refusing:
    """S3's client where every call is answered with this error."""

    def __init__(self, status: int, code: str) -> None:
        answer = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}
        self._error = ClientError(answer, "GetObject")

    async def get_object(self, **_: Any) -> None:
        raise self._error


@pytest.mark.parametrize("code", ["NoSuchKey", "NoSuchVersion"])
async def test_s3_says_that_an_object_is_not_there(code: str) -> None:
    assert await Objects(Refusing(404, code), "b", FakeClock()).get("name") is None


@pytest.mark.parametrize(("status", "code"), [(404, "404"), (403, "403"), (407, "407"), (421, "421"), (408, "408")])
async def test_what_a_proxy_says_is_waited_out(status: int, code: str) -> None:
    with pytest.raises(Unavailable):
        await Objects(Refusing(status, code), "b", FakeClock()).get("name")
