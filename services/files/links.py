"""Links to files: who may have one, and what it says. Only the verified version is ever given out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Protocol

from starlette.requests import Request

from contracts.envelope import Envelope
from contracts.files.events import FileDownloadIssued
from services.files.domain.file import File
from services.files.domain.names import content_disposition
from services.files.ports import SignedUrl, Signer
from services.files.streams import SOURCE, Held
from services.kit.clock import Clock, Ids
from services.kit.errors import Conflict, Gone
from services.kit.kafka.codec import encode
from services.kit.kafka.publisher import Publisher

NO_SUCH_FILE = "There is no such file."


def address_of(request: Request) -> str | None:
    """Where a request comes from, as it is noted with uploads and links: behind a trusted proxy, what that says. None
    where that is no address.
    """
    try:
        return None if request.client is None else str(ip_address(request.client.host))
    except ValueError:
        return None


class Distribution(Protocol):
    """Downloads by way of a content delivery network."""

    def download(
        self, key: str, version_id: str, *, content_type: str, disposition: str, expires_at: datetime
    ) -> SignedUrl:
        """A signed address."""
        ...

    def address(self, key: str, version_id: str) -> str:
        """The address of a public version."""
        ...


@dataclass(frozen=True, slots=True)
class Links:
    """Gives links out, and tells the log of each that somebody signed in gets, before it is given."""

    signer: Signer
    distribution: Distribution | None
    publisher: Publisher
    inline_types: Collection[str]
    lasts: timedelta
    clock: Clock
    ids: Ids

    async def issue(self, held: Held, *, user_id: str, ip_address: str | None) -> SignedUrl:
        """A link for somebody who is signed in, to a file that may be given out; the fact of it stands on Kafka when
        this returns.

        Raises Conflict, Gone (why it may not), TransientError.
        """
        link = await self._link(held.file, anybody=False)
        await self._tell(held, link, user_id, ip_address)
        return link

    async def show(self, file: File) -> SignedUrl:
        """A link for anybody, to a public file that may be given out. Nothing is written of it: whoever looks at public
        files as often as they like must not fill a log that is kept for ever.

        Raises Conflict, Gone (why it may not), TransientError.
        """
        return await self._link(file, anybody=True)

    async def _link(self, file: File, *, anybody: bool) -> SignedUrl:
        self._may_go_out(file)
        assert file.verified is not None  # noqa: S101 - it is completed
        expires_at = (self.clock.now() + self.lasts).replace(microsecond=0)
        shown = file.verified.recognised and file.verified.content_type in self.inline_types
        disposition = content_disposition(file.original_name, inline=shown)
        about = {"content_type": file.verified.content_type, "disposition": disposition}
        key, version = file.request.key, file.verified.version_id
        if self.distribution is not None and anybody:
            return SignedUrl(self.distribution.address(key, version), expires_at)
        if self.distribution is not None:
            return self.distribution.download(key, version, **about, expires_at=expires_at)
        return await self.signer.download(key, version, **about, expires_at=expires_at)

    def _may_go_out(self, file: File) -> None:
        match file.phase:
            case "uploading":
                raise Conflict("The file is still being uploaded.")
            case "failed":
                raise Gone("The upload of this file has failed.")
            case "deleted":
                raise Gone("The file was deleted.")
            case "completed":
                pass
        if file.may_go_out(file.scan):
            return
        if file.scan is None:
            raise Conflict("The file is being looked through for malware: try again in a moment.")
        if file.scan != "clean":
            raise Conflict(f"The malware scan did not clear this file ({file.scan}): it is not given out.")

    async def _tell(self, held: Held, link: SignedUrl, user_id: str, ip_address: str | None) -> None:
        issued = FileDownloadIssued(user_id=user_id, expires_at=link.expires_at, ip_address=ip_address)
        fact = Envelope(
            id=self.ids.new(),
            source=SOURCE,
            type="file.downloadIssued",
            subject=held.file_id,
            time=self.clock.now(),
            correlationid=held.stream.events[0].correlationid,
            revision=1,
            data=issued,
        )
        (error,) = await self.publisher.publish([encode(fact)])
        if error is not None:
            raise error
