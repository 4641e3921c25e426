"""What the first bytes of a file look like, by puremagic's table of signatures."""

from __future__ import annotations

import re
import zlib
from dataclasses import replace
from typing import Final

import puremagic

from services.files.domain.seen import Sniffed
from services.kit.gzip_streams import WINDOW

HEAD_BYTES: Final = 8192
"""So much of an object is looked at: containers name their contents within it."""

LEAST_GZIP: Final = 18
"""Bytes of a gzip stream's header and trailer: nothing shorter is one."""

_PROGRAMS: Final = {
    re.compile(rb"\x7fELF"): "application/x-elf",
    re.compile(rb"\xcf\xfa\xed\xfe"): "application/x-mach-binary",
    re.compile(rb"#! ?/"): "text/x-shellscript",
    re.compile(rb"\s*<\?php\b", re.IGNORECASE): "text/x-php",
    re.compile(
        rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype html|html|head|body|script|iframe)[\s/>]", re.IGNORECASE
    ): "text/html",
}
"""Signatures for which the table has no media type, or misses what a browser takes for a page whatever its blanks and
capitals (WHATWG MIME Sniffing, "Identifying a resource with an unknown MIME type").
"""


def sniff(head: bytes) -> Sniffed:
    """Judge the first `HEAD_BYTES` (or fewer, where the object ends before) of an object. Never raises."""
    types = {each.mime_type for each in _matches(head) if each.mime_type}
    types |= {kind for signature, kind in _PROGRAMS.items() if signature.match(head)}
    return Sniffed(frozenset(types), _is_text(head))


def sniff_gzip(head: bytes, end: bytes) -> Sniffed:
    """Judge a gzip stream (RFC 1952) by its first `HEAD_BYTES` and its last four: what its contents begin with, of
    which never more than `HEAD_BYTES` are decoded, and how many bytes it says that they have. Never raises.
    """
    try:
        first = zlib.decompressobj(WINDOW).decompress(head, HEAD_BYTES)
    except zlib.error:
        return Sniffed()
    return replace(sniff(first), told_size=int.from_bytes(end, "little"))


def _matches(head: bytes) -> list[puremagic.PureMagicWithConfidence]:
    try:
        return puremagic.magic_string(head) if head else []
    except (puremagic.PureError, ValueError):
        return []


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
