"""What the first bytes of a file look like: by signatures of our own where a file may fail for it, else by libmagic."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from typing import Final

from services.files.adapters.libmagic import magic
from services.files.domain.kinds import OLE, OOXML, ZIP
from services.files.domain.seen import Sniffed
from services.kit.gzip_streams import WINDOW

HEAD_BYTES: Final = 8192
"""So much of an object is looked at: containers name their contents within it."""

PDF_WITHIN: Final = 1024
"""A PDF begins within so many bytes (Adobe PDF Reference 1.7, implementation note 13)."""

GZIP_BYTES: Final = 1 << 20
"""So much of a gzip stream is read for its contents: a header may have 64 KiB of extra fields and a long name."""

FIRST_OF_GZIP: Final = 2 * HEAD_BYTES
"""So much is read of it first: what does not compress takes a little more room than it had."""

LEAST_GZIP: Final = 18
"""Bytes of a gzip stream's header and trailer: nothing shorter is one."""

_BLANK: Final = rb"(?:\xef\xbb\xbf)?[\s\0]*"
_PROGRAMS: Final = {
    re.compile(rb"\x7fELF"): "application/x-elf",
    re.compile(rb"(?:\xcf|\xce)\xfa\xed\xfe|\xfe\xed\xfa(?:\xce|\xcf)|\xca\xfe\xba\xbe"): "application/x-mach-binary",
    re.compile(rb"L\0\0\0\x01\x14\x02\0"): "application/x-ms-shortcut",
    re.compile(rb"\0asm\x01\0"): "application/wasm",
    re.compile(rb"dex\n0\d\d\0"): "application/x-android-dex",
    re.compile(rb"ITSF[\x01-\x09]\0\0\0"): "application/vnd.ms-htmlhelp",
    re.compile(rb"(?:\xef\xbb\xbf)?#! ?/"): "text/x-shellscript",
    re.compile(_BLANK + rb"<\?(?:php\b|=)", re.IGNORECASE): "text/x-php",
    re.compile(
        _BLANK + rb"<(?:!doctype html|html|head|body|script|iframe)[\s/>]", re.IGNORECASE
    ): "text/html",
}  # fmt: skip
"""Of programs, scripts and pages. The last one is what a browser takes for a page, whatever its blanks and capitals
(WHATWG MIME Sniffing, "Identifying a resource with an unknown MIME type"). A class of Java begins as a program for
several machines does.
"""

_SIGNATURES: Final = {
    re.compile(rb"\x89PNG\r\n\x1a\n"): "image/png",
    re.compile(rb"\xff\xd8\xff"): "image/jpeg",
    re.compile(rb"GIF8[79]a"): "image/gif",
    re.compile(rb"RIFF.{4}WEBP", re.DOTALL): "image/webp",
    re.compile(rb"RIFF.{4}WAVE", re.DOTALL): "audio/wav",
    re.compile(rb"II[*+]\0|MM\0[*+]"): "image/tiff",
    re.compile(rb"PK(?:\x03\x04|\x05\x06|\x07\x08)"): ZIP,
    re.compile(rb"PK\x03\x04.{26}(?:\[Content_Types\]|_rels/|docProps/|customXml/|word/|xl/|ppt/)", re.DOTALL): OOXML,
    re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"): OLE,
    re.compile(rb"\x1f\x8b\x08"): "application/gzip",
    re.compile(rb"7z\xbc\xaf\x27\x1c"): "application/x-7z-compressed",
    re.compile(rb"\{\\rtf"): "application/rtf",
    re.compile(rb"ID3[\x02-\x04]"): "audio/mpeg",
}

_OTHER_NAMES: Final = {
    "application/x-gzip": "application/gzip",
    "audio/vnd.wave": "audio/wav",
    "audio/wave": "audio/wav",
    "audio/x-m4a": "audio/mp4",
    "audio/x-wav": "audio/wav",
    "image/heic": "image/heif",
    "image/heic-sequence": "image/heif",
    "image/heif-sequence": "image/heif",
    "image/x-ms-bmp": "image/bmp",
    "text/rtf": "application/rtf",
    "video/3gpp2": "video/3gpp",
    "video/x-m4v": "video/mp4",
}
"""What libmagic calls what the rules know by another name."""

_STILL: Final = frozenset(b"mif1 mif2 msf1 miaf MiHB MiHE MiPr heic heix heim heis hevc hevx hevm hevs".split())
_BRANDS: Final = {
    **dict.fromkeys(_STILL, "image/heif"),
    **dict.fromkeys(b"avif avis avio".split(), "image/avif"),
    b"qt  ": "video/quicktime",
    b"crx ": "image/x-canon-cr3",
    b"M4A ": "audio/mp4",
    b"M4B ": "audio/mp4",
}
"""What a brand stands for; any other one is of a film (registered brands: mp4ra.org)."""

_MARKUP: Final = re.compile(
    rb"<(?:!doctype\s+html|html|head|body|script|iframe|svg)[\s/>]|<\?(?:php\b|=)|<%[@=!\s]", re.IGNORECASE
)
_INSTALLER: Final = b"\x84\x10\x0c\0\0\0\0\0\xc0\0\0\0\0\0\0F"
"""How the class id of a package of Windows Installer ends, in the root entry of an old container."""


def sniff(head: bytes) -> Sniffed:
    """Judge the first `HEAD_BYTES` (or fewer, where the object ends before) of an object. Never raises."""
    is_text = _is_text(head)
    plain = _plain(head) if is_text else head
    types = {kind for signature, kind in _PROGRAMS.items() if signature.match(plain)}
    if not is_text:
        types |= _binary(head)
    types |= {kind for signature, kind in _SIGNATURES.items() if signature.match(head)}
    detected = magic().media_type(head) if head else None
    detected = _OTHER_NAMES.get(detected or "", detected)
    if detected is not None and (not is_text or detected == "application/rtf"):
        types |= {detected} - _GUESSED
    if not types and b"%PDF-" in head[:PDF_WITHIN]:
        types.add("application/pdf")
    has_markup = _MARKUP.search(plain) is not None
    return Sniffed(frozenset(types), detected or min(types, default=None), is_text, has_markup)


def sniff_gzip(first: bytes, end: bytes, *, is_all: bool = True) -> Sniffed | None:
    """Judge a gzip stream (RFC 1952) by its first bytes and its last four: what its contents begin with, of which never
    more than `HEAD_BYTES` are decoded, and how many bytes it says that they have. Never raises.

    None where `first` decodes to fewer than `HEAD_BYTES` and there is more of it (`is_all` is false): read on. A stream
    that is not one, or that hides its contents behind more than `GZIP_BYTES` of header and empty blocks, has no
    `told_size`.
    """
    try:
        head = _decoded(first)
    except zlib.error:
        return Sniffed()
    if len(head) < HEAD_BYTES and not is_all:
        return None if len(first) < GZIP_BYTES else Sniffed()
    return replace(sniff(head), told_size=int.from_bytes(end, "little"))


def _decoded(stream: bytes) -> bytes:
    """The first `HEAD_BYTES` that a stream, or what has come of it, holds over all its members. Raises zlib.error."""
    head, place, member = b"", 0, zlib.decompressobj(WINDOW)
    while place < len(stream) and len(head) < HEAD_BYTES:
        if member.eof:
            member = zlib.decompressobj(WINDOW)
        piece = stream[place : place + _PIECE]
        head += member.decompress(piece, HEAD_BYTES - len(head))
        place += len(piece) - len(member.unused_data)
    return head


_PIECE: Final = 1024
"""What is left of a piece after a member is copied: pieces are small, so that many empty members cost little."""

_GUESSED: Final = frozenset(
    {"application/x-dosexec", "application/x-mach-binary", "application/x-executable", "application/x-sharedlib"}
)
"""What libmagic tells by too few bytes to delete a file for: by themselves they are a guess."""


def _binary(head: bytes) -> set[str]:
    """What takes more than a pattern at the start."""
    found: set[str] = set()
    if head.startswith(b"MZ") and _is_program_of_dos(head):
        found.add("application/x-dosexec")
    if head.startswith(b"\xd0\xcf\x11\xe0") and _INSTALLER in head:
        found.add("application/x-msi")
    if head[4:8] == b"ftyp":
        found |= _of_brands(head)
    elif head[4:8] in (b"moov", b"mdat", b"wide", b"pnot"):
        found.add("video/quicktime")
    elif head[4:8] in (b"styp", b"sidx", b"moof"):
        found.add("video/mp4")
    return found


def _is_program_of_dos(head: bytes) -> bool:
    """Two bytes are not enough: one in 65,536 encrypted backups begins so. A program names where its newer header is,
    or has a header of DOS that makes sense (Microsoft, "PE Format", "MS-DOS Stub").
    """
    newer = int.from_bytes(head[60:64], "little")
    if head[newer : newer + 2] in (b"PE", b"NE", b"LE", b"LX") and newer >= 64:
        return True
    last_page, header, overlay = (int.from_bytes(head[at : at + 2], "little") for at in (2, 8, 26))
    return last_page < 512 and header < 4096 and overlay < 256


def _of_brands(head: bytes) -> set[str]:
    """What a file of the ISO container is, by its major brand and the compatible ones."""
    end = min(int.from_bytes(head[:4], "big"), 256)
    major, compatible = head[8:12], {head[at : at + 4] for at in range(16, end - 3, 4)}
    images = {_BRANDS[each] for each in {major, *compatible} & _BRANDS.keys() if _BRANDS[each].startswith("image/")}
    return images or {_BRANDS.get(major, "video/mp4")}


def _plain(text: bytes) -> bytes:
    """Text as UTF-8, where its first bytes say that it is UTF-16."""
    if not text.startswith((b"\xff\xfe", b"\xfe\xff")):
        return text
    return text.decode("utf-16", "ignore").encode("utf-8", "ignore")


def _is_text(head: bytes) -> bool:
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True  # UTF-16 says so itself
    if b"\x00" in head:
        return False
    for cut in range(4):  # a character may be cut at the end
        try:
            head[: len(head) - cut].decode()
        except UnicodeDecodeError:
            continue
        return True
    return _is_single_byte_text(head)


def _is_single_byte_text(head: bytes) -> bool:
    """Text in an old encoding, such as a CSV that a spreadsheet wrote: no control characters but those of lines."""
    return not any(byte < 0x20 and byte not in b"\t\n\r\x0c\x1b" for byte in head)
