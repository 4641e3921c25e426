"""What each category of files allows and asks for. Defaults here; an installation changes single fields by setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, Literal, get_args

from contracts.files.values import FileCategory
from services.files.domain.kinds import COMPRESSIBLE, KINDS, compresses
from services.files.domain.names import name_problem

MIB: Final = 1 << 20
DEFAULT_SIZE: Final = 10 * MIB
"""What an upload may have unless more is asked for."""

POST_LIMIT: Final = 100 * MIB
"""Up to this size one presigned POST does; above it an upload goes in parts."""

ANY: Final = "*/*"

StorageClass = Literal["STANDARD", "STANDARD_IA", "INTELLIGENT_TIERING", "ONEZONE_IA", "GLACIER_IR"]


@dataclass(frozen=True, slots=True)
class Rules:
    """Of one category.

    Attributes:
        types: media types that may be uploaded; `*/*` = any.
        max_bytes: the largest that may be asked for.
        scan: whether nothing is given out before a malware scan has found it clean.
        storage: the storage class of new objects.
        kms_key: the KMS key that encrypts its objects; None = S3's own keys.
        public: whether a file of it may be public.
        compress: whether what compresses may be stored compressed.
        lifetime: how long a file lives from its request on; None = until it is deleted.
    """

    types: frozenset[str]
    max_bytes: int
    scan: bool = False
    storage: StorageClass = "STANDARD"
    kms_key: str | None = None
    public: bool = False
    compress: bool = False
    lifetime: timedelta | None = None

    def allows(self, content_type: str) -> bool:
        """Whether a type may be uploaded."""
        return ANY in self.types or content_type in self.types

    def compressible(self) -> tuple[str, ...]:
        """Types, or `text/*`, that may be stored compressed."""
        if not self.compress:
            return ()
        return tuple(each for each in COMPRESSIBLE if self.allows(each))

    def may_compress(self, content_type: str) -> bool:
        """Whether a file of the type may be stored compressed."""
        return self.compress and compresses(content_type)


_IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
_PHOTOS = _IMAGES | {"image/tiff", "image/heic", "image/heif", "image/bmp"}
_OFFICE = frozenset(
    name
    for name in KINDS
    if "officedocument" in name or "opendocument" in name or name.startswith("application/vnd.ms-")
) | {"application/msword", "application/rtf"}
_TEXT = frozenset({"text/plain", "text/csv", "text/markdown", "text/calendar", "text/vcard"})
_DATA = frozenset({"application/json", "application/xml", "text/xml"})
_DOCUMENTS = _PHOTOS | _OFFICE | _TEXT | {"application/pdf"}

DEFAULTS: Final[dict[FileCategory, Rules]] = {
    "email": Rules(_DOCUMENTS | {"application/zip", "message/rfc822"}, 25 * MIB),
    "document": Rules(_DOCUMENTS | _DATA | {"application/zip"}, 1024 * MIB, compress=True),
    "avatar": Rules(_IMAGES, 5 * MIB, public=True),
    "contract": Rules(frozenset({"application/pdf"}) | _OFFICE, 100 * MIB),
    "invoice": Rules(frozenset({"application/pdf", "image/png", "image/jpeg"}) | _DATA, 25 * MIB),
    "backup": Rules(frozenset({ANY}), 50 * 1024 * MIB, storage="STANDARD_IA", compress=True),
    "general": Rules(
        _DOCUMENTS | _DATA | {"application/zip", "application/gzip", "video/mp4", "video/quicktime", "audio/mpeg"},
        5 * 1024 * MIB,
        public=True,
        compress=True,
    ),
}


def with_changes(changes: Mapping[str, Mapping[str, Any]]) -> dict[FileCategory, Rules]:
    """The defaults with single fields changed: `{"contract": {"scan": true, "maxBytes": 1000000}}`.

    Raises:
        ValueError: every unknown category or field and every value that does not fit, in one text.
    """
    rules: dict[FileCategory, Rules] = dict(DEFAULTS)
    problems: list[str] = []
    for name, fields in changes.items():
        if name not in get_args(FileCategory):
            problems.append(f"{name}: not a category ({', '.join(get_args(FileCategory))})")
            continue
        category: FileCategory = name  # type: ignore[assignment]
        for field, value in fields.items():
            try:
                rules[category] = replace(rules[category], **_change(field, value))
            except (TypeError, ValueError) as error:
                problems.append(f"{name}.{field}: {error}")
    if problems:
        raise ValueError("; ".join(problems))
    return rules


def problems(rules: Rules, name: str, content_type: str, size: int, is_public: bool) -> list[tuple[str, str]]:
    """(field, what is wrong and what to do) of an upload that somebody asks for; none = it may begin."""
    found: list[tuple[str, str]] = []
    if not rules.allows(content_type):
        found.append(("contentType", f"{content_type} is not taken in this category; it takes {_list(rules.types)}"))
    elif (why := bad_name(rules, name, content_type)) is not None:
        found.append(("fileName", why))
    if size > rules.max_bytes:
        found.append(("maxSizeBytes", f"at most {rules.max_bytes} bytes are taken in this category"))
    if is_public and not rules.public:
        found.append(("isPublic", "files of this category cannot be public"))
    return found


def bad_name(rules: Rules, name: str, content_type: str) -> str | None:
    """Why a file of the category must not have this name; None = it may. Where any type is taken, so is any name."""
    return None if ANY in rules.types else name_problem(name, content_type)


def _list(types: frozenset[str]) -> str:
    return ", ".join(sorted(types))


def _change(field: str, value: Any) -> dict[str, Any]:
    match field:
        case "types" if (
            isinstance(value, list) and value and all(isinstance(each, str) and "/" in each for each in value)
        ):
            return {"types": frozenset(each.lower() for each in value)}
        case "maxBytes" if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 5 << 40:
            return {"max_bytes": value}
        case "scan" | "public" | "compress" if isinstance(value, bool):
            return {field: value}
        case "storage" if value in get_args(StorageClass):
            return {"storage": value}
        case "kmsKey" if isinstance(value, str) and value:
            return {"kms_key": value}
        case "lifetimeDays" if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
            return {"lifetime": timedelta(days=value)}
        case "types" | "maxBytes" | "scan" | "public" | "compress" | "storage" | "kmsKey" | "lifetimeDays":
            raise ValueError("its value does not fit")
    raise ValueError("there is no such field (types, maxBytes, scan, storage, kmsKey, public, compress, lifetimeDays)")
