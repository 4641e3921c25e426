"""Answers that are not sent again: `ETag` and `If-None-Match` of RFC 9110, §8.8.3 and §13.1.2."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Any, Final

from fastapi import Header, Response

IfNoneMatch = Annotated[
    str | None, Header(max_length=4096, description="ETags of answers that the caller has: 304 if it still is one")
]
"""The parameter of every route that answers by `unless_known`."""

NOT_MODIFIED: Final[dict[int | str, dict[str, Any]]] = {304: {"description": "It still is what If-None-Match says"}}
"""For `responses` of such a route."""

_REVALIDATE: Final = "private, no-cache"
_ETAG = re.compile(r'(?:W/)?"[^"]*"|\*')


def unless_known(answer: Response, if_none_match: str | None) -> Response:
    """`answer` with its ETag, a hash of its body; a 304 without a body where the caller has that answer already.

    Answers are somebody's own and change at any time: nobody else may keep them, and each use is asked for again.
    """
    tag = f'"{hashlib.sha256(bytes(answer.body)).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": _REVALIDATE}
    if if_none_match is not None and _matches(if_none_match, tag):
        return Response(status_code=304, headers=headers)
    answer.headers.update(headers)
    return answer


def _matches(if_none_match: str, tag: str) -> bool:
    """Weak comparison with any of the list."""
    given = _ETAG.findall(if_none_match)
    return "*" in given or tag in (each.removeprefix("W/") for each in given)
