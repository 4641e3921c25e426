"""The files service as browsers meet it, over the fake S3: the API of uploads, with the real rules of categories."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from services.files.domain.categories import DEFAULT_SIZE, DEFAULTS, POST_LIMIT, problems
from tests.e2e.js_client.fake_http import Cut, Handler
from tests.e2e.js_client.fake_s3 import FakeS3, Refused, StoredObject
from tests.e2e.js_client.faults import Fault, Faults

Json = dict[str, Any]
COOKIE = "mailroom_session"
BATCH = 2
"""Parts that are signed with the ticket."""


class NotDone(Exception):
    """A refusal in the envelope."""

    def __init__(self, status: int, error: str, *details: Json) -> None:
        super().__init__(error)
        self.status, self.error, self.details = status, error, list(details)


@dataclass
class Known:
    """One file."""

    file_id: str
    request: Json
    key: str
    status: str = "uploading"
    reason: str | None = None
    upload_id: str | None = None
    upload_token: str | None = None
    part_size: int = 0

    @property
    def size(self) -> int:
        """As declared."""
        return int(self.request.get("size") or self.limit)

    @property
    def limit(self) -> int:
        """As asked for."""
        return int(self.request.get("maxSizeBytes") or DEFAULT_SIZE)

    @property
    def part_count(self) -> int:
        """How many the file has."""
        return -(-self.size // self.part_size)

    def part_bytes(self, number: int) -> int:
        """How long a part is."""
        return min(self.part_size, self.size - (number - 1) * self.part_size)


class FakeService:
    """State and rules. `handler` serves browsers."""

    def __init__(self, s3: FakeS3, faults: Faults, part_size: int) -> None:
        self.s3, self.faults, self.part_size = s3, faults, part_size
        self.s3_origin = ""
        self.token = secrets.token_urlsafe(16)
        self.files: dict[str, Known] = {}
        self.sniffs: dict[str, str] = {}
        """SHA-256 of contents that are not what they are declared to be → what they look like."""
        self._keys: dict[str, tuple[str, str]] = {}

    def by_token(self, body: Json) -> Known:
        """The upload whose token it is."""
        for known in self.files.values():
            if known.upload_token is not None and known.upload_token == body.get("uploadToken"):
                if known.status != "uploading":
                    raise NotDone(410, "This upload is over.", {"reason": known.reason or known.status})
                return known
        raise NotDone(400, "The request is not valid.", {"field": "uploadToken", "message": "is not one of ours"})

    def end(self, known: Known, status: str, reason: str | None = None) -> None:
        """Settle it."""
        known.status, known.reason = status, reason
        if known.upload_id:
            self.s3.abort(known.upload_id)
        if status == "failed":
            self.s3.objects.pop(known.key, None)

    # --- routes ---

    def upload_url(self, body: Json, key: str | None) -> Json:
        known = self._repeated(body, key) or self._new(body, key)
        answer: Json = {"fileId": known.file_id, "fileKey": known.key, "expiresAt": _in(hours=1)}
        if known.status != "uploading":
            return answer | {"method": "multipart" if known.upload_id else "post", "file": self.view(known)}
        if known.upload_id:
            first = range(1, min(BATCH, known.part_count) + 1)
            return answer | {
                "method": "multipart",
                "uploadId": known.upload_id,
                "uploadToken": known.upload_token,
                "partSize": known.part_size,
                "partCount": known.part_count,
                "parts": [self._signed(known, number) for number in first],
            }
        url, fields = self.s3.presigned_post(
            self.s3_origin, known.key, body["contentType"], (1, known.limit), {"file-id": known.file_id}
        )
        return answer | {"method": "post", "uploadUrl": url, "fields": fields}

    def parts(self, body: Json) -> Json:
        known = self.by_token(body)
        numbers = body["partNumbers"]
        if not numbers or not all(1 <= number <= known.part_count for number in numbers):
            raise NotDone(400, "The request is not valid.", {"field": "partNumbers", "message": "out of range"})
        return {"parts": [self._signed(known, number) for number in numbers], "expiresAt": _in(minutes=15)}

    def parts_list(self, body: Json) -> Json:
        known = self.by_token(body)
        there = self.s3.uploads[known.upload_id or ""].parts
        parts = [{"partNumber": n, "size": part.size, "etag": part.etag} for n, part in sorted(there.items())]
        counts = {"partSize": known.part_size, "partCount": known.part_count}
        return {"parts": parts, **counts, "expiresAt": _in(hours=1)}

    def complete(self, body: Json) -> Json:
        known = self.files.get(body["fileId"])
        if known is None:
            raise NotDone(404, "Not found.")
        if known.status == "completed":
            return self.view(known)
        if known.status != "uploading":
            raise NotDone(410 if known.reason in ("expired", "aborted") else 409, "This upload has failed.",
                          {"reason": known.reason})  # fmt: skip
        if known.upload_id and "parts" in body:
            try:
                self.s3.complete(known.upload_id, [(part["partNumber"], part["etag"]) for part in body["parts"]])
            except Refused as refused:
                raise NotDone(400, refused.message) from refused
        found = self.s3.objects.get(known.key)
        if found is None:
            raise NotDone(409, "Nothing has arrived yet.")
        self._verify(known, found, body["actualSize"])
        self.end(known, "completed")
        return self.view(known)

    def abort(self, known: Known) -> Json:
        self.end(known, "deleted" if known.status == "completed" else "failed", "aborted")
        return self.view(known)

    def view(self, known: Known) -> Json:
        """The File."""
        request, stored = known.request, self.s3.objects.get(known.key)
        now = datetime.now(UTC).isoformat()
        failure = {"failure": {"reason": known.reason}} if known.status == "failed" else {}
        return {
            "fileId": known.file_id,
            "key": known.key,
            "fileName": request["fileName"].replace('"', "_"),
            "originalName": request["fileName"],
            "contentType": request["contentType"],
            **({"size": stored.size} if stored else {}),
            "category": request["category"],
            "status": known.status,
            "scanStatus": "pending",
            "isPublic": request.get("isPublic", False),
            "userId": "ann",
            "metadata": {"uploadedBy": "ann", "tags": (request.get("metadata") or {}).get("tags", [])},
            "s3Info": {"bucket": "bucket", "region": "eu-central-1"},
            "access": {"downloadCount": 0},
            **failure,
            "createdAt": now,
            "updatedAt": now,
        }

    def _verify(self, known: Known, found: StoredObject, claimed: int) -> None:
        checksum = (known.request.get("metadata") or {}).get("checksum")
        looks_like = self.sniffs.get(found.sha256)
        if looks_like is not None:
            self.end(known, "failed", "typeMismatch")
            told = f"declared {found.content_type}, looks like {looks_like}"
            raise NotDone(409, "The file is not what it is declared to be.",
                          {"reason": "typeMismatch", "message": told})  # fmt: skip
        if claimed != found.size or found.metadata != {"file-id": known.file_id}:
            self.end(known, "failed", "sizeMismatch")
            raise NotDone(409, "The size is not what was declared.", {"reason": "sizeMismatch"})
        if checksum is not None and bytes.fromhex(found.sha256) != base64.b64decode(checksum):
            self.end(known, "failed", "checksumMismatch")
            raise NotDone(409, "The checksum is not what was declared.", {"reason": "checksumMismatch"})

    def _repeated(self, body: Json, key: str | None) -> Known | None:
        if key is None or key not in self._keys:
            return None
        digest, file_id = self._keys[key]
        if digest != _digest(body):
            raise NotDone(409, "This Idempotency-Key was used for another request.")
        return self.files[file_id]

    def _new(self, body: Json, key: str | None) -> Known:
        rules = DEFAULTS.get(body.get("category", ""))
        if rules is None:
            raise NotDone(400, "The request is not valid.", {"field": "category", "message": "there is no such"})
        limit = int(body.get("maxSizeBytes") or DEFAULT_SIZE)
        found = problems(rules, body["fileName"], body["contentType"], limit, body.get("isPublic", False))
        if found:
            raise NotDone(400, "The request is not valid.", *({"field": field, "message": why} for field, why in found))
        file_id = secrets.token_hex(8)
        known = Known(file_id, body, f"{body['category']}/2026/01/{file_id}/{secrets.token_hex(8)}")
        by_size = "multipart" if int(body.get("size") or limit) > POST_LIMIT else "post"
        if (body.get("method") or by_size) == "multipart":
            known.part_size, known.upload_token = self.part_size, secrets.token_urlsafe(24)
            known.upload_id = self.s3.create(known.key, body["contentType"], self.part_size, {"file-id": file_id})
        self.files[file_id] = known
        if key is not None:
            self._keys[key] = (_digest(body), file_id)
        return known

    def _signed(self, known: Known, number: int) -> Json:
        size = known.part_bytes(number)
        url = self.s3.presigned_part(self.s3_origin, known.upload_id or "", number, size)
        return {"partNumber": number, "size": size, "url": url, "headers": {"Content-Length": str(size)}}

    def listed(self) -> Json:
        """What is completed, newest first."""
        done = [each for each in self.files.values() if each.status == "completed"]
        return {"files": [self.view(each) for each in reversed(done)], "total": len(done)}

    def download(self, known: Known) -> Json:
        """A link; nothing is behind it."""
        return {"url": f"{self.s3_origin}/bucket/{known.file_id}", "expiresAt": _in(minutes=5)}

    def handler(self, origin: str) -> type[Handler]:
        """Serves browsers."""
        return type("ServiceHandler", (_ServiceHandler,), {"service": self, "origin": origin})


class _ServiceHandler(Handler):
    service: FakeService
    origin: str

    def do_GET(self) -> None:  # noqa: N802
        self._do()

    def do_POST(self) -> None:  # noqa: N802
        self._do()

    def do_DELETE(self) -> None:  # noqa: N802
        self._do()

    def _do(self) -> None:
        path = urlsplit(self.path).path
        fault = self.service.faults.meet(path)
        try:
            data = self._answer(path, self.body(fault), fault)
            if fault is not None and fault.do == "lost":
                self.cut()
            created = path == "/api/files/upload-url" and "file" not in data
            self.say(201 if created else 200, json.dumps({"success": True, "data": data}).encode())
        except NotDone as no:
            body = {"success": False, "error": no.error, "details": no.details}
            self.say(no.status, json.dumps(body).encode(), Retry_After="0")
        except Cut:
            self.close_connection = True

    def _answer(self, path: str, raw: bytes, fault: Fault | None) -> Json:
        if fault is not None and isinstance(fault.do, int):
            raise NotDone(fault.do, "Something is wrong at the moment.")
        self._allow()
        return self._route(path, json.loads(raw or b"{}"))

    def _allow(self) -> None:
        given = self.headers.get("Authorization")
        if given is not None:
            if given != f"Bearer {self.service.token}":
                raise NotDone(401, "The token is not accepted.")
            return
        if f"{COOKIE}={self.service.token}" not in self.headers.get("Cookie", ""):
            raise NotDone(401, "Send a token: Authorization: Bearer <token>.")
        if self.command != "GET" and self.headers.get("Origin") != self.origin:
            raise NotDone(403, "With the session cookie, a change needs an allowed Origin.")

    def _route(self, path: str, body: Json) -> Json:
        service = self.service
        posts: dict[str, Callable[[], Json]] = {
            "upload-url": lambda: service.upload_url(body, self.headers.get("Idempotency-Key")),
            "parts": lambda: service.parts(body),
            "parts/list": lambda: service.parts_list(body),
            "upload-complete": lambda: service.complete(body),
            "abort": lambda: service.abort(service.by_token(body)),
        }
        rest = path.removeprefix("/api/files").strip("/")
        if self.command == "POST" and rest in posts:
            return posts[rest]()
        if self.command == "GET" and not rest:
            return service.listed()
        known = service.files.get(rest.removesuffix("/download"))
        if known is None:
            raise NotDone(404, "Not found.")
        return service.abort(known) if self.command == "DELETE" else service.download(known)


def _in(**span: int) -> str:
    return (datetime.now(UTC) + timedelta(**span)).isoformat().replace("+00:00", "Z")


def _digest(body: Json) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
