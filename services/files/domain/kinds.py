"""Kinds of files: which extensions a media type may have, and whether bytes can be what they are declared to be.

A file is refused only where its bytes are recognised as something that the declared type may not contain: a program, a
script, a page behind an image's type, an archive where none is allowed. What nobody recognises is no contradiction: it
is taken, and not trusted. Looking into files is no malware scan: it catches lies about the type, which is what browsers
and mail programs act on.
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
        signatures: what its bytes are recognised as; none = it has no signature.
        may_hold: what else programs save under this type. It is taken, and not recognised as the type.
        is_text: its bytes are text.
        may_be_text: its bytes may be text, though it has a signature.
        compresses: whether compression may make it smaller.
    """

    extensions: tuple[str, ...]
    signatures: frozenset[str] = frozenset()
    may_hold: frozenset[str] = frozenset()
    is_text: bool = False
    may_be_text: bool = False
    compresses: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What bytes are by the side of their declared type.

    Attributes:
        recognised: they are of that type. Only then may a file be public, and be shown by a browser.
        contradiction: why they cannot be of that type; None = they can.
    """

    recognised: bool = False
    contradiction: str | None = None


def _signed(extensions: str, *signatures: str, compresses: bool = False) -> Kind:
    return Kind(tuple(extensions.split()), frozenset(signatures), compresses=compresses)


def _media(extensions: str, *signatures: str) -> Kind:
    return Kind(tuple(extensions.split()), frozenset(signatures), may_hold=_ISO_MEDIA)


def _old_office(extensions: str, *more: str) -> Kind:
    """Programs save text, rich text and the newer format under these names, too, and `more`."""
    holds = frozenset({OOXML, "application/rtf", *more})
    return Kind(tuple(extensions.split()), frozenset({OLE}), may_hold=holds, may_be_text=True, compresses=True)


def _new_office(extension: str) -> Kind:
    """With a password it is no ZIP archive: Office puts the encrypted file into its old container ([MS-OFFCRYPTO])."""
    return Kind((extension,), frozenset({ZIP}), may_hold=frozenset({OLE}))


def _text(extensions: str) -> Kind:
    return Kind(tuple(extensions.split()), is_text=True, compresses=True)


_DOCUMENT: Final = "application/vnd.openxmlformats-officedocument."
ZIP: Final = "application/zip"
OLE: Final = "application/x-ole-storage"
"""Microsoft's old container, of whatever contents."""

OOXML: Final = "application/vnd.openxmlformats-officedocument"
"""A ZIP archive that begins as a document of Microsoft Office does."""

_ISO_MEDIA: Final = frozenset(
    {"video/mp4", "audio/mp4", "video/quicktime", "video/3gpp", "image/heif", "image/avif", "image/x-canon-cr3"}
)
"""One container for all, told apart by brands that writers choose freely (ISO/IEC 14496-12, 4.3)."""

KINDS: Final[dict[str, Kind]] = {
    "application/pdf": _signed("pdf", "application/pdf"),
    "image/png": _signed("png", "image/png"),
    "image/jpeg": _signed("jpg jpeg jpe jfif", "image/jpeg"),
    "image/gif": _signed("gif", "image/gif"),
    "image/webp": _signed("webp", "image/webp"),
    "image/tiff": _signed("tif tiff", "image/tiff"),
    "image/bmp": _signed("bmp", "image/bmp", compresses=True),
    "image/heic": _media("heic", "image/heif"),
    "image/heif": _media("heif", "image/heif"),
    "image/svg+xml": _text("svg"),
    "video/mp4": _media("mp4 m4v", "video/mp4"),
    "video/quicktime": _media("mov qt", "video/quicktime"),
    "video/webm": _signed("webm", "video/webm", "video/x-matroska"),
    "audio/mpeg": _signed("mp3", "audio/mpeg"),
    "audio/wav": _signed("wav", "audio/wav", compresses=True),
    ZIP: Kind(
        ("zip",),
        frozenset({ZIP}),
        may_hold=frozenset({"application/java-archive", "application/vnd.android.package-archive"}),
    ),
    "application/gzip": _signed("gz tgz", "application/gzip"),
    "application/x-7z-compressed": _signed("7z", "application/x-7z-compressed"),
    "application/rtf": _signed("rtf", "application/rtf", compresses=True),
    # Web applications export tables and letters as pages under these two names, and the programs open them.
    "application/msword": _old_office("doc dot", "text/html"),
    "application/vnd.ms-excel": _old_office("xls xlt", "text/html"),
    "application/vnd.ms-powerpoint": _old_office("ppt pps"),
    "application/vnd.ms-outlook": _signed("msg", OLE, compresses=True),
    f"{_DOCUMENT}wordprocessingml.document": _new_office("docx"),
    f"{_DOCUMENT}spreadsheetml.sheet": _new_office("xlsx"),
    f"{_DOCUMENT}presentationml.presentation": _new_office("pptx"),
    "application/vnd.oasis.opendocument.text": _signed("odt", ZIP),
    "application/vnd.oasis.opendocument.spreadsheet": _signed("ods", ZIP),
    "application/vnd.oasis.opendocument.presentation": _signed("odp", ZIP),
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
        "application/vnd.ms-htmlhelp",
        "application/wasm",
        "application/x-android-dex",
        "application/x-dosexec",
        "application/x-elf",
        "application/x-executable",
        "application/x-iso9660-appimage",
        "application/x-java-applet",
        "application/x-mach-binary",
        "application/x-ms-shortcut",
        "application/x-msdownload",
        "application/x-msi",
        "application/x-pie-executable",
        "application/x-sharedlib",
        "text/html",
        "text/x-php",
        "text/x-shellscript",
    }
)
"""What no declared type makes harmless."""

_RUNS: Final = frozenset(
    {
        "application/javascript",
        "application/x-chrome-extension",
        "image/svg+xml",
        "text/javascript",
        "text/x-ms-regedit",
    }
)
_RUNS_BY_NAME: Final = ("text/x-script.", "text/x-msdos", "text/x-perl", "text/x-python", "text/x-ruby", "text/x-php")
"""What else runs somewhere. Text may look so by accident, a file with a signature of its own never does."""

_ELSEWHERE: Final = (
    _ISO_MEDIA
    | {each for kind in KINDS.values() for each in kind.signatures if each != "audio/mpeg"}
    | {
        "application/vnd.debian.binary-package",
        "application/vnd.ms-cab-compressed",
        "application/vnd.rar",
        "application/x-bzip2",
        "application/x-rar",
        "application/x-rpm",
        "application/x-tar",
        "application/x-xz",
        "application/zstd",
    }
)
"""What is recognised for certain, and is then nothing else. Not so the two bytes by which sound is known."""

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


def judged(declared: str, sniffed: Sniffed) -> Verdict:
    """Whether bytes that look like `sniffed` are of the declared type, cannot be, or may be for all that is known."""
    kind = KINDS.get(declared, _ANY_TEXT if declared.startswith("text/") else _ANY)
    runs = _what_runs(declared, kind, sniffed)
    if runs is not None:
        return Verdict(contradiction=f"declared {declared}, looks like {runs}")
    if kind.is_text and sniffed.is_text:
        return Verdict(recognised=not sniffed.has_markup or declared == "image/svg+xml")
    if sniffed.types & (kind.signatures or {declared}):
        return Verdict(recognised=not sniffed.has_markup)
    other = sniffed.types & _ELSEWHERE
    if declared in _PICTURES and other <= _PICTURES:
        return Verdict()  # programs that rename pictures are many, and whoever shows one looks at its bytes
    if other and not sniffed.types & kind.may_hold and (kind.is_text or kind.signatures):
        return Verdict(contradiction=f"declared {declared}, looks like {min(other)}")
    return Verdict()


_PICTURES: Final = frozenset(name for name in KINDS if name.startswith("image/")) - {"image/svg+xml"}
_ANY: Final = Kind(())
_ANY_TEXT: Final = Kind((), is_text=True)


def _what_runs(declared: str, kind: Kind, sniffed: Sniffed) -> str | None:
    """The program, script or page that the bytes are and the type may not contain."""
    harmless = kind.may_hold | ({"text/html"} if declared in _LIKE_HTML else frozenset())
    found = set(sniffed.types & PROGRAMS)
    known = bool(sniffed.types & (kind.signatures | kind.may_hold)) or (kind.may_be_text and sniffed.is_text)
    if kind.signatures and not known:
        # An honest file has its signature: what has another one may be held to a mere guess.
        if sniffed.has_markup and sniffed.is_text:
            found.add("text/html")
        if (guess := sniffed.detected) and (guess in PROGRAMS | _RUNS or guess.startswith(_RUNS_BY_NAME)):
            found.add(guess)
    elif kind.signatures and sniffed.detected in PROGRAMS - {"text/html"}:
        found.add(str(sniffed.detected))
    return min(found - harmless, default=None)


COMPRESSIBLE: Final = (*(name for name, kind in KINDS.items() if kind.compresses), "text/*")
"""Types that compression may make smaller; any text may, known or not."""


def compresses(content_type: str) -> bool:
    """Whether compression may make files of the type smaller."""
    kind = KINDS.get(content_type)
    return kind.compresses if kind is not None else content_type.startswith("text/")
