"""The body of `POST /api/email`, in the names that the CRM's pages already use, and the command it becomes.

Every rule belongs to the field that breaks it, so that one answer lists all that is wrong. A rule over several fields
is checked with the last of them, and left out while one of the others is wrong by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from contracts.addresses import Address
from contracts.base import CommandData
from contracts.email.commands import (
    Addresses,
    Attachment,
    FileAttachment,
    SendEmail,
    StoredAttachment,
)
from contracts.email.values import (
    MAX_FREE_DATA_BYTES,
    MAX_RECIPIENTS,
    BodyText,
    Category,
    FreeData,
    ListId,
    PlannedTime,
    Priority,
    SealedRef,
    SingleLine,
    Subject,
    Tags,
    UserId,
    blank_is_absent,
    json_size,
)
from services.email.entrypoints.uploads import UploadedAttachment
from services.kit.errors import PermanentError

MAX_BODY_CHARACTERS = 5_000_000
"""Of html, and of text: far above what any mail program shows, far below what SES takes (40 MB)."""


class TemplateProblem(Protocol):
    """One thing wrong with a request that names a template."""

    @property
    def field(self) -> str:
        """Where, for instance `templateData.name`."""
        ...

    @property
    def message(self) -> str:
        """What to do."""
        ...


class TemplateChecks(Protocol):
    """Says before anything is stored what would keep a template from being rendered."""

    def problems(
        self, template_id: str, data: Mapping[str, object], *, category: str | None = None
    ) -> Sequence[TemplateProblem]:
        """Every problem. Raises PermanentError for an unknown template."""
        ...


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _attachment_kind(value: Any) -> str:
    """Which of the two is meant, so that errors speak of that one only. `tagged-…` is left out of their fields."""
    by_id = "fileId" in value if isinstance(value, Mapping) else isinstance(value, FileAttachment)
    return "tagged-file" if by_id else "tagged-upload"


AnyAttachment = Annotated[
    Annotated[UploadedAttachment, Tag("tagged-upload")] | Annotated[FileAttachment, Tag("tagged-file")],
    Discriminator(_attachment_kind),
]
Copies = Annotated[list[Address], Field(max_length=MAX_RECIPIENTS)]
CopyAddresses = Annotated[Copies, BeforeValidator(_one_or_many, json_schema_input_type=Address | Copies)]
Body = Annotated[BodyText, Field(max_length=MAX_BODY_CHARACTERS)]


class SendRequest(CommandData):
    """What to send. At least one of `htmlContent`, `textContent` and `templateId` is needed."""

    model_config = ConfigDict(
        validate_by_name=False,
        json_schema_extra={
            "example": {
                "to": "success@simulator.amazonses.com",
                "subject": "Your invoice",
                "htmlContent": "<p>Your invoice is ready.</p>",
                "textContent": "Your invoice is ready.",
                "category": "notification",
                "priority": "normal",
            }
        },
    )

    templates: ClassVar[TemplateChecks | None] = None
    """Against which `templateId` and `templateData` are checked; a subclass sets it."""

    to: Addresses
    cc: CopyAddresses | None = None
    bcc: CopyAddresses | None = None
    reply_to: Address | None = None
    subject: Subject
    template_id: Annotated[SingleLine, Field(min_length=1, max_length=128)] | None = None
    template_data: FreeData | None = None
    text_content: Body | None = None
    html_content: Body | None = None
    category: Category
    priority: Priority = "normal"
    attachments: Annotated[list[AnyAttachment] | None, Field(max_length=50)] = None
    tags: Tags | None = None
    custom_data: FreeData | None = None
    client_id: UserId | None = None
    send_at: PlannedTime | None = None
    expires_at: PlannedTime | None = None
    list_id: ListId | None = None

    @model_validator(mode="before")
    @classmethod
    def _absent_is_null(cls, value: Any) -> Any:
        """What may be needed is checked when it is absent too, and named as on the wire."""
        if isinstance(value, dict):
            return {"templateData": None, "htmlContent": None, "listId": None, **value}
        return value

    @field_validator("cc", "bcc")
    @classmethod
    def _not_too_many(cls, value: list[str] | None, info: ValidationInfo) -> list[str] | None:
        named = (info.data.get(name) or () for name in ("to", "cc"))
        count = len({*(value or ()), *(address for addresses in named for address in addresses)})
        if count > MAX_RECIPIENTS:
            raise ValueError(f"to, cc and bcc name {count} recipients together; at most {MAX_RECIPIENTS}")
        return value

    @field_validator("template_id")
    @classmethod
    def _known_template(cls, value: str | None) -> str | None:
        if value is not None and cls.templates is not None:
            try:
                cls.templates.problems(value, {})
            except PermanentError as error:
                raise ValueError(error.detail) from None
        return value

    @field_validator("template_data")
    @classmethod
    def _fitting_data(cls, value: dict[str, Any] | None, info: ValidationInfo) -> dict[str, Any] | None:
        if "template_id" not in info.data:
            return value
        template_id: str | None = info.data["template_id"]
        if template_id is None:
            if value is not None:
                raise ValueError("is for a template: name it in templateId")
            return value
        if cls.templates is not None:
            problems = cls.templates.problems(template_id, value or {})
            _raise_each([(problem.field.removeprefix("templateData."), problem.message) for problem in problems])
        return value

    @field_validator("html_content")
    @classmethod
    def _some_content(cls, value: str | None, info: ValidationInfo) -> str | None:
        others = ("text_content", "template_id")
        bodies = (value, *(info.data.get(name) for name in others))
        if all(name in info.data for name in others) and not any(map(blank_is_absent, bodies)):
            raise ValueError("one of htmlContent, textContent or templateId is needed")
        return value

    @field_validator("category")
    @classmethod
    def _template_allows(cls, value: str, info: ValidationInfo) -> str:
        template_id = info.data.get("template_id")
        if template_id is not None and cls.templates is not None:
            found = cls.templates.problems(template_id, {}, category=value)
            wrong = next((problem.message for problem in found if problem.field == "category"), None)
            if wrong is not None:
                raise ValueError(wrong)
        return value

    @field_validator("template_data", "tags", "custom_data")
    @classmethod
    def _small_enough(cls, value: dict[str, Any] | None, info: ValidationInfo) -> dict[str, Any] | None:
        before = (info.data.get(name) for name in ("template_data", "tags") if name != info.field_name)
        if value is not None and json_size(value, *before) > MAX_FREE_DATA_BYTES:
            raise ValueError(f"templateData, tags and customData may have {MAX_FREE_DATA_BYTES} bytes of JSON together")
        return value

    @field_validator("expires_at")
    @classmethod
    def _after_sending(cls, value: PlannedTime | None, info: ValidationInfo) -> PlannedTime | None:
        send_at = info.data.get("send_at")
        if value is not None and send_at is not None and value <= send_at:
            raise ValueError("must be after sendAt")
        return value

    @field_validator("list_id")
    @classmethod
    def _list_to_leave(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None and info.data.get("category") == "marketing":
            raise ValueError("is needed for category marketing: it is what a recipient unsubscribes from")
        return value

    def uploads(self) -> list[tuple[UploadedAttachment, bytes]]:
        """The files in the request, decoded: do it once."""
        return [(a, a.decoded()) for a in self.attachments or () if isinstance(a, UploadedAttachment)]

    def command(
        self,
        message_id: str,
        user_id: str,
        sealed: SealedRef | None,
        stored: list[StoredAttachment],
    ) -> SendEmail:
        """The command on Kafka: bodies, template data and files are named by where they were stored.

        `stored` are the request's files in their order.
        """
        files = iter(stored)
        attachments: list[Attachment] = [
            next(files) if isinstance(a, UploadedAttachment) else a for a in self.attachments or ()
        ]
        return SendEmail(
            message_id=message_id,
            to=self.to,
            cc=self.cc,
            bcc=self.bcc,
            reply_to=self.reply_to,
            subject=self.subject,
            template_id=self.template_id,
            category=self.category,
            priority=self.priority,
            user_id=user_id,
            client_id=self.client_id,
            tags=self.tags,
            custom_data=self.custom_data,
            attachments=attachments or None,
            sealed=sealed,
            send_at=self.send_at,
            expires_at=self.expires_at,
            list_id=self.list_id,
        )


def _raise_each(problems: Sequence[tuple[str, str]]) -> None:
    """One error for each (field, message), below the field that is being validated."""
    if problems:
        raise ValidationError.from_exception_data(
            "templateData",
            [
                InitErrorDetails(
                    type=PydanticCustomError("template_data", "{what}", {"what": what}), loc=(name,), input=None
                )
                for name, what in problems
            ],
        )
