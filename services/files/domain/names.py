"""Names of files: as people gave them, as systems can bear them, and as they lie in S3."""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime
from typing import Final
from urllib.parse import quote

from contracts.files.values import FileCategory
from contracts.invisible import without_invisible
from services.files.domain.kinds import HARMLESS_INSIDE, KINDS, PROGRAM_EXTENSIONS

SAFE_BYTES: Final = 200
"""Of a safe name in UTF-8: every file system takes it, with a few characters to spare for " (1)" and the like."""

_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|\u2028\u2029]')
"""What some system forbids in names."""
_CUT_OFF = re.compile(r"(?:;|::|%00|%0a).*")
"""From where on some servers do not read a name: `shell.asp;.pdf`, `shell.php%00.pdf` (OWASP File Upload Cheat Sheet,
"Extension Validation").
"""
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_KEY = re.compile(
    r"(?P<folder>[a-z]+/[0-9]{4}/[0-9]{2}/"
    r"(?P<file>[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})/)[A-Za-z0-9_-]{8,64}"
)


def safe_name(original: str) -> str:
    """A form of the name that every file system takes and nobody reads wrongly: no separators, no reserved names, no
    characters that are not shown; at most `SAFE_BYTES` bytes of UTF-8, the extension kept. Idempotent, never empty.
    """
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", without_invisible(original))).strip(" .")
    name = _shortened(name) or "file"
    return f"_{name}"[:255] if _RESERVED.fullmatch(name) else name


def extensions(name: str) -> tuple[str, ...]:
    """All extensions of a name in lower case, the last one last: `a.tar.gz` → ("tar", "gz")."""
    return tuple(part.strip().lower() for part in name.split(".")[1:])


def _last_extension(name: str) -> str:
    return (extensions(name) or ("",))[-1]


def name_problem(name: str, content_type: str) -> str | None:
    """Why a file of this type must not have this name, nor any form of it that a system makes of it; None = it may."""
    forms = dict.fromkeys((name, safe_name(name), safe_name(unicodedata.normalize("NFKC", name))))
    return next((why for each in forms if (why := _problem(each, content_type)) is not None), None)


def _problem(name: str, content_type: str) -> str | None:
    found = extensions(name)
    inner = [_CUT_OFF.sub("", each) for each in name.lower().split(".")[1:-1]]  # with blanks, it is a word
    last = [_CUT_OFF.sub("", each) for each in found[-1:]]
    for extension in (*(each for each in inner if each not in HARMLESS_INSIDE), *last):
        if extension in PROGRAM_EXTENSIONS:
            return f"it holds the extension .{extension}, which stands for something that runs"
    kind = KINDS.get(content_type)
    if kind is not None and kind.extensions and found and found[-1] not in kind.extensions:
        wanted = ", ".join(f".{each}" for each in kind.extensions)
        return f"a name for {content_type} ends in {wanted}, not in .{found[-1]}" if _is_extension(found[-1]) else None
    return None


def type_of_name(name: str) -> str:
    """The media type that a name's extension stands for; `application/octet-stream` where it tells nothing."""
    last = _last_extension(name)
    known = [(kind, each.extensions) for kind, each in KINDS.items() if last in each.extensions]
    usual = [kind for kind, found in known if found[0] == last]
    return (usual or [kind for kind, _ in known] or ["application/octet-stream"])[0]


_BY_NAME: Final = frozenset(["csv", "eml", "gz", "heic", "heif", "ics", "md", "msg", "rtf", "vcf", "wav", "zip"])
"""Extensions for which browsers say no type, or one that depends on the programs installed: Excel makes a CSV
`application/vnd.ms-excel`, Word an RTF `application/msword`. The same ones as in `clients/js`.
"""


def better_type(name: str, said: str) -> str:
    """The media type of a file, by its name where what a browser says of such files is known to be wrong, else as was
    said: of types that depend on the programs installed, and between those of office programs.
    """
    by_name, last = type_of_name(name), _last_extension(name)
    if last in _BY_NAME:
        return said if said in KINDS and last in KINDS[said].extensions else by_name
    return by_name if _is_office(said) and _is_office(by_name) else said


def _is_office(kind: str) -> bool:
    return kind in ("application/msword", "application/rtf") or kind.startswith(
        ("application/vnd.ms-", "application/vnd.openxmlformats-officedocument.", "application/vnd.oasis.opendocument.")
    )


def object_key(category: FileCategory, at: datetime, file_id: str, nonce: str) -> str:
    """The key of a new object, `<category>/<yyyy>/<mm>/<fileId>/<nonce>`: immutable, without a word of a person's."""
    return f"{category}/{at:%Y}/{at:%m}/{file_id}/{nonce}"


def file_of(key: str) -> str | None:
    """The fileId of a key of ours; None for any other key."""
    found = _KEY.fullmatch(key)
    return None if found is None else found["file"]


def folder_of(key: str) -> str:
    """What all keys of one file begin with, `<category>/<yyyy>/<mm>/<fileId>/`.

    Raises ValueError for a key that is none of ours: what it begins with may be what other files' keys begin with.
    """
    found = _KEY.fullmatch(key)
    if found is None:
        raise ValueError(f"{key!r} is not the key of a file")
    return found["folder"]


def content_disposition(original: str, *, inline: bool) -> str:
    """The header that gives the exact name back (RFC 6266 with RFC 8187), and a plain one to old clients."""
    safe = safe_name(original)
    plain = "".join(each if each.isascii() and each not in '"\\%;' else "_" for each in safe)
    extended = quote(original, safe="!#$&+-.^_`|~", encoding="utf-8")  # attr-char of RFC 8187
    return f"{'inline' if inline else 'attachment'}; filename=\"{plain}\"; filename*=UTF-8''{extended}"


def _is_extension(text: str) -> bool:
    """Whether what follows the last dot looks like an extension at all: `Report v1.2 final` has none."""
    return bool(re.fullmatch(r"[a-z0-9]{1,8}", text))


def _shortened(name: str) -> str:
    if len(name.encode()) <= SAFE_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    tail = f"{dot}{extension}" if dot and len(extension.encode()) <= 20 else ""
    stem = stem if tail else name
    kept = stem.encode()[: SAFE_BYTES - len(tail.encode())].decode(errors="ignore")
    return kept.rstrip(" .") + tail
