"""The files API as the commands use it: plain HTTP behind the gateway, and bytes straight to and from S3."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import mimetypes
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

from services.cli.environment import JWT_SECRET, need
from services.cli.packing import packed
from services.kit.errors import PermanentError, Unavailable
from services.kit.gzip_streams import Unpacking

if TYPE_CHECKING:
    import httpx

TOKEN: Final = "MAILROOM_TOKEN"  # noqa: S105 - a variable's name
PUBLIC_URL: Final = "MAILROOM_PUBLIC_URL"
SCOPES: Final = ("files:create", "files:read", "files:delete")
WHOLE_BYTES: Final = 100 << 20
"""Up to here a file's checksum is that of the whole; above, of its parts."""

PART_BYTES: Final = 8 << 20
"""Of every part but the last, up to 80 GB, which is more than any category takes."""

PARALLEL: Final = 4
TRIES: Final = 5
AT_S3: Final = 0.2
"""Seconds of the first pause, of what S3 does not take or give."""

CHUNK: Final = 1 << 18

REMEMBERED_FOR: Final = 8 * 24 * 3600
"""Seconds after which what is remembered of an upload is thrown away: no upload may take longer."""

Told = TypeVar("Told")
Moved = Callable[[int], None]
"""Told how many bytes went."""

Bars = Callable[[str, int], AbstractContextManager[Moved]]
"""Shows how a piece of work goes: its name, and how many bytes it has."""


class FilesApi:
    """Calls of one person. `s3`: a client without their token, for signed addresses."""

    def __init__(self, http: httpx.AsyncClient, s3: httpx.AsyncClient) -> None:
        self._http, self.s3 = http, s3
        self._compressible: dict[str, list[str]] | None = None

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

    async def compresses(self, category: str, content_type: str) -> bool:
        """Whether the category takes files of the type as gzip streams, by the service's word."""
        if self._compressible is None:
            told = (await self.call("GET", "/api/files/categories"))["categories"]
            self._compressible = {each["name"]: each["compressibleTypes"] for each in told}
        plain = content_type.partition(";")[0].strip().lower()
        return any(fnmatchcase(plain, each) for each in self._compressible.get(category, ()))


@asynccontextmanager
async def files_api(user: str) -> AsyncIterator[FilesApi]:
    """The API at MAILROOM_PUBLIC_URL, as whoever MAILROOM_TOKEN names; without one, as `user`, with a token that is
    made here with MAILROOM_JWT_SECRET.
    """
    import httpx

    url = need(PUBLIC_URL)[PUBLIC_URL]
    headers = {"Authorization": f"Bearer {_token(user)}"}
    limits = httpx.Timeout(30, read=310)  # S3 may take minutes to make one object of its parts; the gateway waits five
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
    compress: bool = True

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.path.stat().st_size


@dataclass(frozen=True, slots=True)
class Sent:
    """The bytes that go up: the file's own, or a gzip stream of them; then `original_size` is the file's."""

    path: Path
    size: int
    original_size: int | None = None


def content_type_of(name: str) -> str:
    """The type that a name's extension stands for."""
    kind, encoding = mimetypes.guess_type(name, strict=True)
    packed = {"gzip": "application/gzip"}.get(encoding or "")
    return packed or kind or "application/octet-stream"


async def upload(api: FilesApi, wish: Wish, bars: Bars, state: Path) -> dict[str, Any]:
    """Upload one file and wait until it is complete; the File.

    It goes up compressed where the category takes that and it pays. What was broken off, at any point and by whatever,
    goes on: `state` is a folder that remembers the Idempotency-Key that a file was asked for with, and its bytes where
    they are packed; asked again, the service gives the same file, and S3 tells which parts it has. Raises
    PermanentError with the service's reason, Unavailable.
    """
    _made_ready(state)
    name = _fingerprint(wish)
    remembered, pack = state / f"{name}.key", state / f"{name}.gz"
    sent = await _prepared(api, wish, pack, bars)
    asked = await _asked(api, wish, sent, remembered)
    try:
        with bars(wish.name, sent.size) as moved:
            done = await _send(api, wish.name, sent, asked, moved)
    except PermanentError:
        _forget(remembered, pack)
        raise
    _forget(remembered, pack)
    return done


async def _send(api: FilesApi, name: str, sent: Sent, asked: dict[str, Any], moved: Moved) -> dict[str, Any]:
    if asked.get("file") is not None:
        moved(sent.size)
        return dict(asked["file"])
    body: dict[str, Any] = {"fileId": asked["fileId"], "actualSize": sent.size}
    if asked["method"] == "multipart":
        await _send_parts(api, sent, asked, moved)
        body["uploadToken"] = asked["uploadToken"]
    else:
        await _send_form(api, name, sent, asked, moved)
    return await _patiently(lambda: api.call("POST", "/api/files/upload-complete", json=body))


async def _patiently(call: Callable[[], Awaitable[Told]], pause: float = 0.5) -> Told:
    """What may be repeated is, for as long as it may work later; `pause` in seconds, doubled each time."""
    for tried in range(1, TRIES):
        try:
            return await call()
        except Unavailable:
            await asyncio.sleep(pause * 2**tried)
    return await call()


async def _prepared(api: FilesApi, wish: Wish, pack: Path, bars: Bars) -> Sent:
    """What is to go up: the file as it is, or packed into `pack`."""
    plain = Sent(wish.path, wish.size)
    if not wish.compress or not await api.compresses(wish.category, wish.content_type):
        return plain
    if _size(pack) is None:  # one that is there is of the same file: its name says so
        with bars(f"compressing {wish.name}", wish.size) as moved:
            if not await packed(wish.path, pack, moved):
                return plain
    return Sent(pack, _size(pack) or 0, wish.size)


def _forget(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _size(path: Path) -> int | None:
    """Its bytes; None where it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _made_ready(state: Path) -> None:
    """The folder, without what was never gone on with."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in state.iterdir():
        if path.stat().st_mtime < time.time() - REMEMBERED_FOR:
            path.unlink(missing_ok=True)


async def _asked(api: FilesApi, wish: Wish, sent: Sent, remembered: Path) -> dict[str, Any]:
    """The upload that was broken off, if it can go on, else a new one."""
    body = await asyncio.to_thread(_request, wish, sent)
    former = _read(remembered)
    if former is not None:
        try:
            asked = await _patiently(lambda: _ask(api, body, former))
        except PermanentError:
            pass  # it ran out, or was for other bytes
        else:
            if asked.get("file") is None or asked["file"]["status"] == "completed":
                return asked
    key = secrets.token_urlsafe(16)
    await asyncio.to_thread(remembered.write_text, key)
    return await _patiently(lambda: _ask(api, body, key))


async def _ask(api: FilesApi, body: dict[str, Any], key: str) -> dict[str, Any]:
    asked: dict[str, Any] = await api.call("POST", "/api/files/upload-url", json=body, headers={"Idempotency-Key": key})
    return asked


def _request(wish: Wish, sent: Sent) -> dict[str, Any]:
    metadata: dict[str, Any] = {"tags": list(wish.tags)} if wish.tags else {}
    metadata["checksum"] = _checksum(sent.path) if sent.size <= WHOLE_BYTES else _checksum_of_parts(sent.path)
    body = {
        "fileName": wish.name,
        "contentType": wish.content_type,
        "category": wish.category,
        "size": sent.size,
        "isPublic": wish.is_public,
        "metadata": metadata,
    }
    if sent.original_size is not None:
        body |= {"contentEncoding": "gzip", "originalSize": sent.original_size}
    if wish.client_id is not None:
        body["clientId"] = wish.client_id
    return body


def _read(remembered: Path) -> str | None:
    try:
        return remembered.read_text().strip() or None
    except FileNotFoundError:
        return None


async def _send_form(api: FilesApi, name: str, sent: Sent, asked: dict[str, Any], moved: Moved) -> None:
    fields: list[tuple[str, Any]] = [(field, (None, str(value))) for field, value in asked["fields"].items()]

    async def post() -> Any:
        with sent.path.open("rb") as file:
            counted, good = _Counted(file, moved), False
            try:
                form = [*fields, ("file", (name, counted))]
                answer = await api.s3.post(asked["uploadUrl"], files=form)
                good = answer.status_code < 300
            finally:
                if not good:
                    counted.take_back()
            return answer

    await _put(post)


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: BinaryIO, moved: Moved) -> None:
        self._file, self._moved, self._told = file, moved, 0

    def read(self, size: int = -1) -> bytes:
        """As of any file."""
        data = self._file.read(size)
        self._told += len(data)
        self._moved(len(data))
        return data

    def fileno(self) -> int:
        """By which its length is known beforehand."""
        return self._file.fileno()

    def take_back(self) -> None:
        """What was read was to no avail."""
        self._moved(-self._told)
        self._told = 0


async def _send_parts(api: FilesApi, sent: Sent, asked: dict[str, Any], moved: Moved) -> None:
    token, each = asked["uploadToken"], asked["partSize"]
    here = await api.call("POST", "/api/files/parts/list", json={"uploadToken": token})
    there = {part["partNumber"] for part in here["parts"]}
    moved(sum(part["size"] for part in here["parts"]))
    missing = [number for number in range(1, asked["partCount"] + 1) if number not in there]
    places = asyncio.Semaphore(PARALLEL)

    async def one(number: int) -> None:
        async with places:
            data = await asyncio.to_thread(_piece, sent.path, (number - 1) * each, each)
            body = {"uploadToken": token, "partNumbers": [number]}
            if sent.size > WHOLE_BYTES:
                body["checksums"] = [_base64(hashlib.sha256(data).digest())]
            (part,) = (await api.call("POST", "/api/files/parts", json=body))["parts"]
            await _put(lambda: api.s3.put(part["url"], content=data, headers=part["headers"]))
            moved(len(data))

    await asyncio.gather(*(one(number) for number in missing))


async def _put(send: Callable[[], Awaitable[httpx.Response]]) -> None:
    """Try until S3 takes it; PermanentError where it says no."""
    import httpx

    async def put() -> None:
        try:
            answer = await send()
        except httpx.TransportError as error:
            raise Unavailable("S3", f"does not take it: {type(error).__name__}") from error
        if answer.status_code >= 500:
            raise Unavailable("S3", f"does not take it: HTTP {answer.status_code}")
        if answer.status_code >= 300:
            why = f"HTTP {answer.status_code} {answer.text[:300]}"
            raise PermanentError("refused", f"S3 does not take it: {why}")

    await _patiently(put, AT_S3)


def _piece(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(size)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return _base64(hashlib.file_digest(file, "sha256").digest())


def _checksum_of_parts(path: Path) -> str:
    digest = DigestOfParts()
    with path.open("rb") as file:
        while data := file.read(PART_BYTES):
            digest.update(data)
    return digest.told()


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


class DigestOfParts:
    """SHA-256 of the parts' SHA-256, as S3 spells it: base64, and `-N` of N parts. Bytes may come in any pieces."""

    def __init__(self) -> None:
        self._done: list[bytes] = []
        self._part, self._room = hashlib.sha256(), PART_BYTES

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        rest = memoryview(data)
        while rest:
            if not self._room:
                self._done.append(self._part.digest())
                self._part, self._room = hashlib.sha256(), PART_BYTES
            now, rest = rest[: self._room], rest[self._room :]
            self._part.update(now)
            self._room -= len(now)

    def told(self) -> str:
        """Of all that came."""
        digests = [*self._done, self._part.digest()]
        return f"{_base64(hashlib.sha256(b''.join(digests)).digest())}-{len(digests)}"


def _fingerprint(wish: Wish) -> str:
    """One name for one file as it is now: changed, it is another upload."""
    stat = wish.path.stat()
    said = [str(wish.path.resolve()), stat.st_size, stat.st_mtime_ns, wish.category, wish.name, wish.compress]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:32]


# --- downloading --------------------------------------------------------------------------------------------------


async def download(api: FilesApi, file: dict[str, Any], target: Path, moved: Moved) -> None:
    """Fetch a file's verified version into `target`, which appears only once it is whole and right: decoded, where it
    is stored encoded. Raises PermanentError where what came is not what the service has verified; Unavailable.
    """
    partial = target.with_name(f".{target.name}.part")
    wanted = file["metadata"].get("checksum")
    whole, parts, size = hashlib.sha256(), DigestOfParts(), 0
    digest = parts if wanted and "-" in wanted else whole
    unpacking = _unpacking(file)
    try:
        with partial.open("wb") as out:

            async def rest() -> None:
                nonlocal size
                async for chunk in _stored(api, file["fileId"], size):
                    out.writelines((chunk,) if unpacking is None else unpacking.take(chunk))
                    digest.update(chunk)
                    size += len(chunk)
                    moved(len(chunk))

            await _patiently(rest, AT_S3)
        told = parts.told() if digest is parts else _base64(whole.digest())
        if size != file["size"] or (wanted and told != wanted):
            raise PermanentError("broken", f"what came is not what was verified ({size} of {file['size']} bytes)")
        if unpacking is not None and not (unpacking.is_whole and unpacking.size == file["originalSize"]):
            raise PermanentError("broken", f"decoded it is not the {file['originalSize']} bytes that were declared")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


async def _stored(api: FilesApi, file_id: str, start: int) -> AsyncIterator[bytes]:
    """The bytes from `start` on, as they are stored: what was verified is that. Nobody on the way is to encode them
    again. Raises Unavailable, also where the connection breaks; PermanentError.
    """
    import httpx

    link = await api.call("GET", f"/api/files/{file_id}/download")
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        async with api.s3.stream("GET", link["url"], headers=headers) as answer:
            if answer.status_code >= 500:
                raise Unavailable("S3", f"does not give it: HTTP {answer.status_code}")
            if answer.status_code != (206 if start else 200):
                raise PermanentError("refused", f"S3 does not give it: HTTP {answer.status_code}")
            async for chunk in answer.aiter_raw(CHUNK):
                yield chunk
    except httpx.TransportError as error:
        raise Unavailable("S3", f"broke off: {type(error).__name__}") from error


def _unpacking(file: dict[str, Any]) -> Unpacking | None:
    match file.get("contentEncoding"):
        case None:
            return None
        case "gzip":
            return Unpacking(file["originalSize"])
        case other:
            raise PermanentError("unknownEncoding", f"it is stored encoded as {other}, which cannot be decoded here")
