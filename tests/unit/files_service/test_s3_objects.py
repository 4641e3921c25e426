"""Whose word it is that a version, an object or an upload is not there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import MagicMock

import pytest
from botocore.exceptions import ClientError

from services.files.adapters.s3_objects import S3Objects
from services.kit.errors import Unavailable

CALLS: dict[str, Callable[[S3Objects], Awaitable[object]]] = {
    "inspect": lambda objects: objects.inspect("k", "v", sniff=False, checksum=None),
    "parts": lambda objects: objects.parts("k", "u"),
    "complete_multipart": lambda objects: objects.complete_multipart("k", "u", []),
    "abort_multipart": lambda objects: objects.abort_multipart("k", "u"),
    "tag_public": lambda objects: objects.tag_public("k", "v", True),
    "versions": lambda objects: objects.versions("k"),
    "mark": lambda objects: objects.mark("k"),
    "delete": lambda objects: objects.delete("k", ["v"]),
}


def answering(status: int, code: str, *, by_s3: bool) -> S3Objects:
    """Every call is answered with this; only S3's own answers carry a request id."""
    metadata = {"HTTPStatusCode": status, "RequestId": "4442587FB7D0A2F9" if by_s3 else ""}
    client = MagicMock()

    async def refuse(**_: Any) -> None:
        raise ClientError({"Error": {"Code": code, "Message": ""}, "ResponseMetadata": metadata}, "Any")

    for name in (
        "head_object", "get_object_tagging", "put_object_tagging", "list_parts", "complete_multipart_upload",
        "abort_multipart_upload", "list_object_versions", "delete_object", "delete_objects",
    ):  # fmt: skip
        setattr(client, name, refuse)
    return S3Objects(client, "bucket")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", [404, 405])
async def test_what_a_proxy_says_is_waited_out(call: str, status: int) -> None:
    with pytest.raises(Unavailable):
        await CALLS[call](answering(status, str(status), by_s3=False))


@pytest.mark.parametrize(
    ("call", "status", "code"),
    [
        ("inspect", 404, "404"),  # HEAD: S3 has no body to name a code in
        ("inspect", 405, "405"),
        ("inspect", 404, "NoSuchVersion"),
        ("parts", 404, "NoSuchUpload"),
        ("tag_public", 405, "MethodNotAllowed"),
    ],
)
async def test_what_s3_says_is_not_there_is_not(call: str, status: int, code: str) -> None:
    assert await CALLS[call](answering(status, code, by_s3=True)) is None
