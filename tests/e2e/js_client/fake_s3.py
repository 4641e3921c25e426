"""S3 as browsers meet it: presigned POSTs held to their policy, signed parts, CORS. Only as much as uploads need.

It is strict where S3 is: the order of the form, every field by the policy, Content-Length, signatures, expiry.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import secrets
import tempfile
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.e2e.js_client.fake_http import Cut, Handler
from tests.e2e.js_client.faults import Fault, Faults

_DISPOSITION = re.compile(rb'content-disposition: form-data; name="([^"]*)"(?:; filename="([^"]*)")?', re.IGNORECASE)


class Refused(Exception):
    """An error document."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


@dataclass
class StoredObject:
    """What lies under a key."""

    size: int
    sha256: str
    content_type: str
    metadata: dict[str, str]


@dataclass
class Part:
    """One that arrived."""

    size: int
    etag: str


@dataclass
class OpenUpload:
    """A multipart upload. Its bytes lie in a file, each part at its place."""

    key: str
    content_type: str
    part_size: int
    metadata: dict[str, str]
    parts: dict[int, Part] = field(default_factory=dict)
    bytes: Any = field(default_factory=tempfile.TemporaryFile)


class FakeS3:
    """One bucket. The service's side are methods; the browser's side is `handler`."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.objects: dict[str, StoredObject] = {}
        self.uploads: dict[str, OpenUpload] = {}
        self.exposes_etag = True
        self.forms: list[list[str]] = []
        """Names of the fields of each form, in their order."""
        self._secret = secrets.token_bytes(32)
        self._signed_before = 0.0
        self._lock = threading.Lock()

    def expire_everything(self) -> None:
        """Whatever is signed by now is over."""
        self._signed_before = time.time()

    # --- the service's side ---

    def presigned_post(
        self, origin: str, key: str, content_type: str, sizes: tuple[int, int], metadata: dict[str, str]
    ) -> tuple[str, dict[str, str]]:
        """(url, fields)."""
        fields = {"key": key, "Content-Type": content_type, "x-amz-server-side-encryption": "AES256"}
        fields |= {f"x-amz-meta-{name}": value for name, value in metadata.items()}
        policy = {"at": time.time(), "conditions": fields, "sizes": sizes}
        encoded = base64.b64encode(json.dumps(policy).encode()).decode()
        return f"{origin}/bucket", {**fields, "policy": encoded, "x-amz-signature": self._sign(encoded)}

    def presigned_part(self, origin: str, upload_id: str, number: int, size: int) -> str:
        """A URL that takes exactly `size` bytes."""
        key = self.uploads[upload_id].key
        query = {"partNumber": number, "uploadId": upload_id, "at": time.time(), "size": size}
        return f"{origin}/bucket/{key}?{urlencode({**query, 'signature': self._sign(json.dumps(query))})}"

    def create(self, key: str, content_type: str, part_size: int, metadata: dict[str, str]) -> str:
        """An upload id."""
        upload_id = secrets.token_urlsafe(24)
        self.uploads[upload_id] = OpenUpload(key, content_type, part_size, metadata)
        return upload_id

    def complete(self, upload_id: str, wanted: list[tuple[int, str]]) -> None:
        """Make the object. Raises Refused."""
        upload = self.uploads.get(upload_id)
        if upload is None:
            raise Refused(404, "NoSuchUpload", "The specified upload does not exist.")
        if wanted != sorted(wanted) or any(
            upload.parts.get(number, Part(0, "")).etag != etag for number, etag in wanted
        ):
            raise Refused(400, "InvalidPart", "One or more of the specified parts could not be found.")
        size = sum(upload.parts[number].size for number, _ in wanted)
        upload.bytes.seek(0)
        digest = hashlib.file_digest(upload.bytes, "sha256").hexdigest()
        self.objects[upload.key] = StoredObject(size, digest, upload.content_type, upload.metadata)
        self.abort(upload_id)

    def abort(self, upload_id: str) -> None:
        """Forget it and its parts."""
        if upload := self.uploads.pop(upload_id, None):
            upload.bytes.close()

    # --- the browser's side ---

    def handler(self, allowed_origin: str) -> type[Handler]:
        """Serves browsers; pages of `allowed_origin` may read its answers."""
        return type("S3Handler", (_S3Handler,), {"s3": self, "allowed_origin": allowed_origin})

    def put_part(self, request: Handler, fault: Fault | None) -> str:
        """Take a part: its ETag. Raises Refused, Cut."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(request.path).query).items()}
        number, upload_id = int(query["partNumber"]), query["uploadId"]
        at, size = float(query["at"]), int(query["size"])
        signed = json.dumps({"partNumber": number, "uploadId": upload_id, "at": at, "size": size})
        if fault is not None and fault.do == "refuse-early":
            request.close_connection = True
            raise Refused(403, "AccessDenied", "Request has expired")
        upload = self.uploads.get(upload_id)
        if upload is None:
            request.body()
            raise Refused(404, "NoSuchUpload", "The specified upload does not exist.")
        digest = hashlib.md5(usedforsecurity=False)
        spool = tempfile.SpooledTemporaryFile(max_size=1 << 26)  # noqa: SIM115 - closed below

        def keep(chunk: bytes) -> None:
            digest.update(chunk)
            spool.write(chunk)

        request.body(fault, keep)
        _status(fault)
        if not hmac.compare_digest(query["signature"], self._sign(signed)):
            raise Refused(403, "SignatureDoesNotMatch", "The request signature does not match.")
        if at < self._signed_before:
            raise Refused(403, "AccessDenied", "Request has expired")
        if request.length() != size:
            raise Refused(403, "SignatureDoesNotMatch", "Content-Length is not what was signed.")
        with self._lock:
            spool.seek(0)
            upload.bytes.seek((number - 1) * upload.part_size)
            while chunk := spool.read(1 << 20):
                upload.bytes.write(chunk)
            spool.close()
            part = upload.parts[number] = Part(size, f'"{digest.hexdigest()}"')
        return part.etag

    def put_form(self, request: Handler, fault: Fault | None) -> str:
        """Take a form: the object's ETag. Raises Refused, Cut."""
        if request.length() is None:
            raise Refused(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        body = request.body(fault)
        _status(fault)
        boundary = request.headers.get_param("boundary")
        pieces = body.split(b"--" + str(boundary).encode())[1:-1]
        fields: dict[str, str] = {}
        names: list[str] = []
        content: bytes | None = None
        for piece in pieces:
            head, _, value = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            found = _DISPOSITION.match(head)
            if found is None:
                raise Refused(400, "MalformedPOSTRequest", "The body is not well-formed multipart/form-data.")
            name = found[1].decode()
            names.append(name)
            if content is not None:
                raise Refused(400, "InvalidArgument", "POST requires the file to be the last field.")
            if name == "file":
                content = value.removesuffix(b"\r\n")
            else:
                fields[name] = value.removesuffix(b"\r\n").decode()
        self.forms.append(names)
        if content is None:
            raise Refused(400, "InvalidArgument", "POST requires exactly one file upload per request.")
        self._hold_to_policy(fields, len(content))
        metadata = {n.removeprefix("x-amz-meta-"): v for n, v in fields.items() if n.startswith("x-amz-meta-")}
        digest = hashlib.sha256(content).hexdigest()
        self.objects[fields["key"]] = StoredObject(len(content), digest, fields["Content-Type"], metadata)
        return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'

    def _hold_to_policy(self, fields: dict[str, str], size: int) -> None:
        encoded, signature = fields.pop("policy", ""), fields.pop("x-amz-signature", "")
        if not hmac.compare_digest(signature, self._sign(encoded)):
            raise Refused(403, "SignatureDoesNotMatch", "The request signature does not match.")
        policy = json.loads(base64.b64decode(encoded))
        if policy["at"] < self._signed_before:
            raise Refused(403, "AccessDenied", "Invalid according to Policy: Policy expired.")
        if fields != policy["conditions"]:
            raise Refused(403, "AccessDenied", "Invalid according to Policy: Policy Condition failed.")
        smallest, largest = policy["sizes"]
        if size > largest:
            raise Refused(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
        if size < smallest:
            raise Refused(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), "sha256").hexdigest()


class _S3Handler(Handler):
    s3: FakeS3
    allowed_origin: str

    def do_OPTIONS(self) -> None:  # noqa: N802
        self._answer(200)

    def do_POST(self) -> None:  # noqa: N802
        self._do("post", None)

    def do_PUT(self) -> None:  # noqa: N802
        query = parse_qs(urlsplit(self.path).query)
        self._do("put", int(query.get("partNumber", ["0"])[0]))

    def _do(self, at: str, part: int | None) -> None:
        fault = self.s3.faults.meet(at, part)
        try:
            try:
                self.s3.faults.begin()
                etag = self.s3.put_form(self, fault) if at == "post" else self.s3.put_part(self, fault)
            finally:
                self.s3.faults.end()
            if fault is not None and fault.do == "lost":
                self.cut()
            self._answer(204 if at == "post" else 200, etag=etag)
        except Refused as refused:
            self._refuse(refused)
        except Cut:
            self.close_connection = True

    def _refuse(self, refused: Refused) -> None:
        xml = f"<Error><Code>{refused.code}</Code><Message>{refused.message}</Message></Error>"
        try:
            self._answer(refused.status, xml.encode())
        except Cut:
            self.close_connection = True

    def _answer(self, status: int, body: bytes = b"", etag: str | None = None) -> None:
        headers = {} if etag is None else {"ETag": etag}
        if self.headers.get("Origin") == self.allowed_origin:
            headers |= {"Access_Control_Allow_Origin": self.allowed_origin, "Vary": "Origin"}
            if self.command == "OPTIONS":
                asked = self.headers.get("Access-Control-Request-Headers", "")
                headers |= {"Access_Control_Allow_Methods": "POST, PUT", "Access_Control_Allow_Headers": asked}
            elif self.s3.exposes_etag:
                headers |= {"Access_Control_Expose_Headers": "ETag"}
        self.say(status, body, "application/xml", **headers)


def _status(fault: Fault | None) -> None:
    if fault is not None and isinstance(fault.do, int):
        raise Refused(fault.do, "SlowDown" if fault.do == 503 else "InternalError", "Please try again.")
