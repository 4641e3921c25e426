"""Commands on Kafka: delete, restore, update. The same rules as over HTTP; who asks is the command's `actor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from contracts.envelope import CommandEnvelope
from contracts.files.commands import DeleteFile, RestoreFile, UpdateFile
from contracts.files.values import FileCategory
from services.files.domain.categories import Rules, bad_name
from services.files.domain.commands import Remove, Restore, Update
from services.files.domain.file import File
from services.files.domain.names import safe_name
from services.files.handlers import Files
from services.kit.actors import Role, may_change
from services.kit.command_roles import check_claim
from services.kit.errors import MailroomError, PermanentError, RefusedHere
from services.kit.kafka.codec import decode_command
from services.kit.kafka.records import DONE, Outcome, Park, Record, Retry


class CommandIntake:
    """Batch handler of the group that reads `files.commands`: one after the other, in their order."""

    def __init__(
        self,
        files: Files,
        rules: Mapping[FileCategory, Rules],
        roles: Mapping[str, tuple[Role, ...]] | None = None,
    ) -> None:
        """`roles`: which may be claimed by topic; one that is not there takes every claim."""
        self._files, self._rules, self._roles = files, rules, roles or {}

    async def __call__(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """One outcome a record. What the rules refuse is parked with its reason; its neighbours go on."""
        return [await self._handle(record) for record in records]

    async def _handle(self, record: Record) -> Outcome:
        try:
            envelope = decode_command(record)
            check_claim(self._roles, record.topic, envelope.actor)
            await self._do(envelope)
        except (PermanentError, RefusedHere) as error:
            return Park(error.reason, kind="poison", detail=error.detail)
        except MailroomError as error:
            return Retry(error)
        return DONE

    async def _do(self, envelope: CommandEnvelope) -> None:
        data, actor = envelope.data, envelope.actor
        if not isinstance(data, DeleteFile | RestoreFile | UpdateFile) or data.file_id != envelope.subject:
            raise PermanentError("wrongSubject", "subject and key must be the data's fileId, of a command of files")
        file = (await self._files.streams.load(data.file_id)).state
        if not isinstance(file, File) or not may_change(actor, file.request.user_id):
            raise PermanentError("notFound", "there is no such file for whoever asks")
        match data:
            case DeleteFile():
                reason = "user" if actor == f"user:{file.request.user_id}" else "admin"
                await self._files.look(
                    data.file_id,
                    lambda seen: Remove(seen, reason, actor, envelope.id),  # type: ignore[arg-type]
                )
            case RestoreFile():
                await self._files.look(data.file_id, lambda seen: Restore(seen, actor, envelope.id))
            case UpdateFile():
                await self._files.update(data.file_id, self._update(data, file, envelope))

    def _update(self, data: UpdateFile, file: File, envelope: CommandEnvelope) -> Update:
        if data.is_public and not self._rules[file.request.category].public:
            raise PermanentError("invalid", "files of this category cannot be public")
        rules = self._rules[file.request.category]
        if data.name is not None and (why := bad_name(rules, data.name, file.request.content_type)) is not None:
            raise PermanentError("invalid", f"name: {why}")
        return Update(
            original_name=data.name,
            file_name=None if data.name is None else safe_name(data.name),
            is_public=data.is_public,
            tags=None if data.tags is None else tuple(data.tags),
            actor=envelope.actor,
            causation=envelope.id,
        )
