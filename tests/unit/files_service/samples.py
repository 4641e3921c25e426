"""Files as programs write them, cut down to what tells their kind."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
import zlib

PDF_BODY = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n"
OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 100
JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"\0" * 200
GIF = b"GIF89a\1\0\1\0" + b"\0" * 100
WEBP = b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 50
EXE = b"MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff" + b"\0" * 300
RAR = b"Rar!\x1a\7\1\0" + b"\0" * 50


def archive(*names: str) -> bytes:
    """A ZIP archive."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name in names:
            file.writestr(name, "x" * 50)
    return made.getvalue()


def tarball(*names: str) -> bytes:
    """A tar archive of empty files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as file:
        for name in names:
            file.addfile(tarfile.TarInfo(name))
    return made.getvalue()


TAR = tarball("a.txt")
DOCX = archive("[Content_Types].xml", "word/document.xml")


def iso_media(major: str, *compatible: str) -> bytes:
    """A film, or a picture of a phone: `ftyp` with these brands."""
    brands = b"".join(each.encode().ljust(4) for each in compatible)
    body = major.encode().ljust(4) + b"\0\0\2\0" + brands
    return struct.pack(">I", len(body) + 8) + b"ftyp" + body + b"\0\0\0\x3bmeta" + b"\0" * 300


def encrypted_office(directory_at: int = 1024) -> bytes:
    """What Office writes for a document with a password: its old container, with the package inside."""
    name = "EncryptedPackage".encode("utf-16-le")
    return (OLE_MAGIC + b"\0" * 16 + b"\x3e\0\3\0\xfe\xff\x09\0").ljust(directory_at, b"\xff") + name.ljust(512, b"\0")


def installer() -> bytes:
    """A package of Windows Installer, by the class id of its root entry."""
    clsid = bytes.fromhex("84100c0000000000c000000000000046")
    root = "Root Entry".encode("utf-16-le").ljust(80, b"\0") + clsid
    return OLE_MAGIC.ljust(512, b"\0") + root.ljust(512, b"\0")


def gzip_stream(data: bytes, *, extra: int = 0, name: int = 0, empty_blocks: int = 0, empty_members: int = 0) -> bytes:
    """A gzip stream whose contents begin late: after extra fields, a long name, empty blocks or empty members."""
    fields = ((4 if extra else 0) | (8 if name else 0)).to_bytes(1, "big")
    header = b"\x1f\x8b\x08" + fields + b"\0\0\0\0\0\xff"
    if extra:
        header += struct.pack("<H", extra) + b"e" * extra
    if name:
        header += b"n" * name + b"\0"
    packing = zlib.compressobj(wbits=-15)
    blocks = b"\0\0\0\xff\xff" * empty_blocks + packing.compress(data) + packing.flush()
    member = header + blocks + struct.pack("<II", zlib.crc32(data), len(data) % 2**32)
    return gzip.compress(b"", mtime=0) * empty_members + member
