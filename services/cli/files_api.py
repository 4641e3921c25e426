"""The files API as the commands use it: plain HTTP behind the gateway, and bytes straight to and from S3."""

from __future__ import annotations

import base64
import hashlib
import json
import mimetypes
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from services.cli.environment import JWT_SECRET, need
from services.kit.errors import PermanentError, Unavailable

if TYPE_CHECKING:
    import httpx

TOKEN: Final = "MAILROOM_TOKEN"  # noqa: S105 - a variable's name
PUBLIC_URL: Final = "MAILROOM_PUBLIC_URL"
SCOPES: Final = ("files:create", "files:read", "files:delete")
CHECKED_BYTES: Final = 100 << 20
"""Up to here a file's checksum is sent along: S3 and the service hold what comes to it."""

PARALLEL: Final = 4
TRIES: Final = 5
CHUNK: Final = 1 << 18

Moved = Callable[[int], None]
"""Told how many bytes went."""


class FilesApi:
    """Calls of one person. `s3`: a client without their token, for signed addresses."""

    def __init__(self, http: httpx.AsyncClient, s3: httpx.AsyncClient) -> None:
        self._http, self.s3 = http, s3

    async def call(self, method: str, path: str, **options: Any) -> Any:
        """The data of a good answer. Raises PermanentError with what the service says; Unavailable."""
        import httpx

        try:
            answer = await self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise Unavailable("Mailroom", f"{self._http.base_url} does not answer: {type(error).__name__}") from error
        body = _json(answer)
        if answer.status_code < 300 and isinstance(body, dict):
            return body.get("data")
        said = str(body.get("error", "")) if isinstance(body, dict) else ""
        details = [_detail(each) for each in (body.get("details", ()) if isinstance(body, dict) else ())]
        why = " ".join([said or f"HTTP {answer.status_code}", *(each for each in details if each)])
        if answer.status_code in (429, 502, 503, 504):
            raise Unavailable("Mailroom", why)
        raise PermanentError("refused", why)


@asynccontextmanager
async def files_api(user: str) -> AsyncIterator[FilesApi]:
    """The API at MAILROOM_PUBLIC_URL, as whoever MAILROOM_TOKEN names; without one, as `user`, with a token that is
    made here with MAILROOM_JWT_SECRET.
    """
    import httpx

    url = need(PUBLIC_URL)[PUBLIC_URL]
    headers = {"Authorization": f"Bearer {_token(user)}"}
    limits = httpx.Timeout(30, read=120)
    async with (
        httpx.AsyncClient(base_url=url, headers=headers, timeout=limits) as http,
        httpx.AsyncClient(timeout=limits) as s3,
    ):
        yield FilesApi(http, s3)


def _token(user: str) -> str:
    from services.kit.auth import mint_token

    given = os.environ.get(TOKEN, "").strip()
    return given or mint_token(need(JWT_SECRET)[JWT_SECRET], user, SCOPES)


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None


def _detail(detail: dict[str, Any]) -> str:
    where, what = detail.get("field"), detail.get("message")
    return f"{where}: {what}." if where and what else ""


# --- uploading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be uploaded, and how."""

    path: Path
    name: str
    category: str
    content_type: str
    is_public: bool
    client_id: str | None
    tags: tuple[str, ...]

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.path.stat().st_size


def content_type_of(name: str) -> str:
    """The type that a name's extension stands for."""
    kind, encoding = mimetypes.guess_type(name, strict=True)
    packed = {"gzip": "application/gzip"}.get(encoding or "")
    return packed or kind or "application/octet-stream"


async def upload(api: FilesApi, wish: Wish, moved: Moved, state: Path) -> dict[str, Any]:
    """Upload one file and wait until it is complete; the File.

    An upload in parts that was broken off goes on from what S3 has: `state` is a folder that remembers its token.
    Raises PermanentError with the service's reason, Unavailable.
    """
    remembered = state / f"{_fingerprint(wish)}.json"
    asked = await _resumed(api, remembered) or await _asked(api, wish)
    if asked.get("file") is not None:
        moved(wish.size)
        return dict(asked["file"])
    body: dict[str, Any] = {"fileId": asked["fileId"], "actualSize": wish.size}
    if asked["method"] == "multipart":
        remembered.parent.mkdir(parents=True, exist_ok=True)
        remembered.write_text(json.dumps(asked | {"parts": []}))
        await _send_parts(api, wish, asked, moved)
        body["uploadToken"] = asked["uploadToken"]
    else:
        await _send_form(api, wish, asked, moved)
    done: dict[str, Any] = await api.call("POST", "/api/files/upload-complete", json=body)
    remembered.unlink(missing_ok=True)
    return done


async def _asked(api: FilesApi, wish: Wish) -> dict[str, Any]:
    metadata: dict[str, Any] = {"tags": list(wish.tags)} if wish.tags else {}
    if wish.size <= CHECKED_BYTES:
        metadata["checksum"] = _checksum(wish.path)
    body = {
        "fileName": wish.name,
        "contentType": wish.content_type,
        "category": wish.category,
        "size": wish.size,
        "isPublic": wish.is_public,
        "metadata": metadata,
    }
    if wish.client_id is not None:
        body["clientId"] = wish.client_id
    asked: dict[str, Any] = await api.call("POST", "/api/files/upload-url", json=body)
    return asked


async def _resumed(api: FilesApi, remembered: Path) -> dict[str, Any] | None:
    """The upload that was broken off, if it can go on."""
    import asyncio

    try:
        asked: dict[str, Any] = json.loads(await asyncio.to_thread(remembered.read_text))
        await api.call("POST", "/api/files/parts/list", json={"uploadToken": asked["uploadToken"]})
    except (OSError, ValueError, KeyError, PermanentError):
        return None
    return asked


async def _send_form(api: FilesApi, wish: Wish, asked: dict[str, Any], moved: Moved) -> None:
    import asyncio

    data = await asyncio.to_thread(wish.path.read_bytes)
    fields = [(name, (None, str(value))) for name, value in asked["fields"].items()]
    await _put(lambda: api.s3.post(asked["uploadUrl"], files=[*fields, ("file", (wish.name, data))]))
    moved(len(data))


async def _send_parts(api: FilesApi, wish: Wish, asked: dict[str, Any], moved: Moved) -> None:
    import asyncio

    token, each = asked["uploadToken"], asked["partSize"]
    here = await api.call("POST", "/api/files/parts/list", json={"uploadToken": token})
    there = {part["partNumber"] for part in here["parts"]}
    moved(sum(part["size"] for part in here["parts"]))
    missing = [number for number in range(1, asked["partCount"] + 1) if number not in there]
    places = asyncio.Semaphore(PARALLEL)

    async def one(number: int) -> None:
        async with places:
            body = {"uploadToken": token, "partNumbers": [number]}
            (part,) = (await api.call("POST", "/api/files/parts", json=body))["parts"]
            data = await asyncio.to_thread(_piece, wish.path, (number - 1) * each, part["size"])
            await _put(lambda: api.s3.put(part["url"], content=data, headers=part["headers"]))
            moved(len(data))

    await asyncio.gather(*(one(number) for number in missing))


async def _put(send: Callable[[], Any]) -> None:
    """Try until S3 takes it; PermanentError where it says no."""
    import asyncio

    import httpx

    for tried in range(1, TRIES + 1):
        try:
            answer = await send()
        except httpx.TransportError as error:
            why = type(error).__name__
        else:
            if answer.status_code < 300:
                return
            why = f"HTTP {answer.status_code}"
            if answer.status_code < 500:
                raise PermanentError("refused", f"S3 does not take it: {why} {answer.text[:300]}")
        if tried == TRIES:
            raise Unavailable("S3", f"does not take it: {why}")
        await asyncio.sleep(0.2 * 2**tried)


def _piece(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "sha256").digest()).decode()


def _fingerprint(wish: Wish) -> str:
    """One name for one file as it is now: changed, it is another upload."""
    stat = wish.path.stat()
    said = [str(wish.path.resolve()), stat.st_size, stat.st_mtime_ns, wish.category, wish.name]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]


# --- downloading --------------------------------------------------------------------------------------------------


async def download(api: FilesApi, file: dict[str, Any], target: Path, moved: Moved) -> None:
    """Fetch a file's verified version into `target`, which appears only once it is whole and right. Raises
    PermanentError where what came is not what the service has verified; Unavailable.
    """
    import httpx

    link = await api.call("GET", f"/api/files/{file['fileId']}/download")
    partial = target.with_name(f".{target.name}.part")
    digest, size = hashlib.sha256(), 0
    try:
        async with api.s3.stream("GET", link["url"]) as answer:
            if answer.status_code >= 300:
                raise PermanentError("refused", f"S3 does not give it: HTTP {answer.status_code}")
            with partial.open("wb") as out:
                async for chunk in answer.aiter_bytes(CHUNK):
                    out.write(chunk)
                    digest.update(chunk)
                    size += len(chunk)
                    moved(len(chunk))
        wanted = file["metadata"].get("checksum")
        if size != file["size"] or (wanted and base64.b64encode(digest.digest()).decode() != wanted):
            raise PermanentError("broken", f"what came is not what was verified ({size} of {file['size']} bytes)")
        partial.replace(target)
    except httpx.TransportError as error:
        raise Unavailable("S3", f"broke off: {type(error).__name__}") from error
    finally:
        partial.unlink(missing_ok=True)
