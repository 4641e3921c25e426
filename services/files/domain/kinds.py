"""Kinds of files: which extensions a media type may have, and whether bytes can be what they are declared to be.

A type with a signature must show it; a textual type must be text; any other type may hold anything but a program.
Looking into files is no malware scan: it catches lies about the type, which is what browsers and mail programs act on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from services.files.domain.seen import Sniffed


@dataclass(frozen=True, slots=True)
class Kind:
    """A media type that we know.

    Attributes:
        extensions: without dots, the usual one first.
        signatures: media types of which the first bytes must fit one; none = it has no signature.
        is_text: its bytes are text.
        compresses: whether compression may make it smaller.
    """

    extensions: tuple[str, ...]
    signatures: frozenset[str] = frozenset()
    is_text: bool = False
    compresses: bool = False


def _signed(extensions: str, *signatures: str, compresses: bool = False) -> Kind:
    return Kind(tuple(extensions.split()), frozenset(signatures), compresses=compresses)


def _text(extensions: str) -> Kind:
    return Kind(tuple(extensions.split()), is_text=True, compresses=True)


_OOXML: Final = "application/vnd.openxmlformats-officedocument."
_ZIP: Final = "application/zip"
_OLE: Final = "application/msword"
"""What every file of Microsoft's old container looks like from its first bytes."""

KINDS: Final[dict[str, Kind]] = {
    "application/pdf": _signed("pdf", "application/pdf"),
    "image/png": _signed("png", "image/png"),
    "image/jpeg": _signed("jpg jpeg jpe jfif", "image/jpeg"),
    "image/gif": _signed("gif", "image/gif"),
    "image/webp": _signed("webp", "image/webp"),
    "image/tiff": _signed("tif tiff", "image/tiff"),
    "image/bmp": _signed("bmp", "image/bmp", "image/x-ms-bmp", compresses=True),
    "image/heic": _signed("heic", "image/heic", "image/heif"),
    "image/heif": _signed("heif", "image/heic", "image/heif"),
    "image/svg+xml": _text("svg"),
    "video/mp4": _signed("mp4 m4v", "video/mp4"),
    "video/quicktime": _signed("mov qt", "video/quicktime"),
    "video/webm": _signed("webm", "video/webm", "video/x-matroska"),
    "audio/mpeg": Kind(("mp3",)),
    "audio/wav": _signed("wav", "audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave", compresses=True),
    _ZIP: _signed("zip", _ZIP),
    "application/gzip": _signed("gz tgz", "application/gzip", "application/x-gzip"),
    "application/x-7z-compressed": _signed("7z", "application/x-7z-compressed"),
    "application/rtf": _signed("rtf", "application/rtf", "text/rtf", compresses=True),
    "application/msword": _signed("doc dot", _OLE, compresses=True),
    "application/vnd.ms-excel": _signed("xls xlt", _OLE, "application/vnd.ms-excel", compresses=True),
    "application/vnd.ms-powerpoint": _signed("ppt pps", _OLE, "application/vnd.ms-powerpoint", compresses=True),
    "application/vnd.ms-outlook": _signed("msg", _OLE, "application/vnd.ms-outlook", compresses=True),
    f"{_OOXML}wordprocessingml.document": _signed("docx", f"{_OOXML}wordprocessingml.document", _ZIP),
    f"{_OOXML}spreadsheetml.sheet": _signed("xlsx", f"{_OOXML}spreadsheetml.sheet", _ZIP),
    f"{_OOXML}presentationml.presentation": _signed("pptx", f"{_OOXML}presentationml.presentation", _ZIP),
    "application/vnd.oasis.opendocument.text": _signed("odt", "application/vnd.oasis.opendocument.text", _ZIP),
    "application/vnd.oasis.opendocument.spreadsheet": _signed(
        "ods", "application/vnd.oasis.opendocument.spreadsheet", _ZIP
    ),
    "application/vnd.oasis.opendocument.presentation": _signed(
        "odp", "application/vnd.oasis.opendocument.presentation", _ZIP
    ),
    "text/plain": _text("txt text log md"),
    "text/csv": _text("csv"),
    "text/markdown": _text("md markdown"),
    "text/calendar": _text("ics"),
    "text/vcard": _text("vcf"),
    "text/xml": _text("xml"),
    "application/xml": _text("xml"),
    "application/json": _text("json"),
    "message/rfc822": _text("eml"),
    "application/octet-stream": Kind((), compresses=True),
}

PROGRAMS: Final = frozenset(
    {
        "application/hta",
        "application/java-archive",
        "application/vnd.android.package-archive",
        "application/vnd.microsoft.portable-executable",
        "application/x-dosexec",
        "application/x-elf",
        "application/x-executable",
        "application/x-iso9660-appimage",
        "application/x-mach-binary",
        "application/x-ms-shortcut",
        "application/x-msdownload",
        "application/x-msi",
        "application/x-sharedlib",
        "text/html",
        "text/x-php",
        "text/x-shellscript",
    }
)
"""What no declared type makes harmless."""

_ZIPPED: Final = frozenset({"application/java-archive", "application/vnd.android.package-archive"})
"""Programs whose first bytes are those of any ZIP archive: of these the name tells."""

_LIKE_HTML: Final = frozenset({"application/xml", "text/xml", "text/markdown", "message/rfc822"})
"""Text that may begin as a page does, with a comment or a heading."""

# fmt: off
PROGRAM_EXTENSIONS: Final = frozenset(
    [
        "ade", "adp", "apk", "app", "asp", "aspx", "bat", "cgi", "chm", "cmd", "com", "cpl", "dll",
        "elf", "exe", "gadget", "hlp", "hta", "htm", "html", "inf", "ins", "isp", "jar", "js", "jse", "jsp", "lnk",
        "mjs", "msc", "msi", "msp", "mst", "phar", "php", "php3", "php4", "php5", "php7", "phtml", "pif", "pl", "ps1",
        "psc1", "py", "rb", "reg", "scf", "scr", "sct", "sh", "shb", "shtml", "sys", "vb", "vbe", "vbs", "wsc",
        "wsf", "wsh", "xhtml",
    ]
)  # fmt: skip
# fmt: on
"""Extensions of what runs, wherever in a name they stand: `invoice.php.pdf` is run as PHP by a careless server
(OWASP File Upload Cheat Sheet, "Extension Validation")."""

HARMLESS_INSIDE: Final = frozenset({"app", "com", "ins", "pl"})
"""Of these, what names hold before their extension too: `amazon.com.pdf`. No server runs them from there."""


def contradiction(declared: str, sniffed: Sniffed) -> str | None:
    """Why bytes that look like `sniffed` cannot be of the declared type; None = they can."""
    kind = KINDS.get(declared)
    harmless: frozenset[str] = _ZIPPED if _ZIP in sniffed.types else frozenset()
    if declared in _LIKE_HTML:
        harmless |= {"text/html"}
    program = sorted((sniffed.types & PROGRAMS) - harmless)
    if kind is not None and kind.signatures:
        if sniffed.types & kind.signatures:
            return None
        looks_like = min(sniffed.types) if sniffed.types else "nothing that is known"
        return f"declared {declared}, looks like {looks_like}"
    if program:
        return f"declared {declared}, looks like {program[0]}"
    if kind is not None and kind.is_text and not sniffed.is_text:
        return f"declared {declared}, holds what is not text"
    return None


COMPRESSIBLE: Final = (*(name for name, kind in KINDS.items() if kind.compresses), "text/*")
"""Types that compression may make smaller; any text may, known or not."""


def compresses(content_type: str) -> bool:
    """Whether compression may make files of the type smaller."""
    kind = KINDS.get(content_type)
    return kind.compresses if kind is not None else content_type.startswith("text/")
