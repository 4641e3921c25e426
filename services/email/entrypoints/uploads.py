"""A file in a request: its name and type are held to what mail servers take and mail programs show honestly."""

from __future__ import annotations

import re

from pydantic import field_validator

from contracts.email.commands import InlineAttachment

# fmt: off
UNSAFE_EXTENSIONS = frozenset(
    [
        "ade", "adp", "app", "asp", "bas", "bat", "cer", "chm", "cmd", "com", "cpl", "crt", "csh", "der", "exe", "fxp",
        "gadget", "hlp", "hta", "inf", "ins", "isp", "its", "js", "jse", "jar", "ksh", "lib", "lnk", "mad", "maf",
        "mag", "mam", "maq", "mar", "mas", "mat", "mau", "mav", "maw", "mda", "mdb", "mde", "mdt", "mdw", "mdz", "msc",
        "msh", "msh1", "msh2", "mshxml", "msh1xml", "msh2xml", "msi", "msp", "mst", "ops", "pcd", "pif", "plg", "prf",
        "prg", "ps1", "ps1xml", "ps2", "ps2xml", "psc1", "psc2", "reg", "scf", "scr", "sct", "shb", "shs", "sys", "tmp",
        "url", "vb", "vbe", "vbs", "vps", "vsmacros", "vss", "vst", "vsw", "vxd", "ws", "wsc", "wsf", "wsh", "xnk",
    ]
)
# fmt: on
"""File types that SES refuses or mail servers drop (Amazon SES Developer Guide, "Unsupported attachment types")."""

UNSAFE_TYPES = frozenset(
    [
        "application/hta",
        "application/java-archive",
        "application/javascript",
        "application/vnd.microsoft.portable-executable",
        "application/x-bat",
        "application/x-dosexec",
        "application/x-javascript",
        "application/x-ms-installer",
        "application/x-ms-shortcut",
        "application/x-msdos-program",
        "application/x-msdownload",
        "application/x-msi",
        "application/x-sh",
        "text/javascript",
        "text/vbscript",
    ]
)
"""What the same files say of themselves, whatever their name."""

_UNSAFE_IN_NAMES = re.compile(r'[/\\:*?"<>|\u200e\u200f\u202a-\u202e\u2066-\u2069]')
"""Paths, what Windows has no files for, and marks that turn the direction of reading (`gpj.exe` shown as `exe.jpg`)."""


class UploadedAttachment(InlineAttachment):
    """A file in the request, base64."""

    @field_validator("filename")
    @classmethod
    def _safe_name(cls, name: str) -> str:
        if _UNSAFE_IN_NAMES.search(name) or not name.strip(" ."):
            raise ValueError("is a file's name, not a path, and without characters that file names do not have")
        if name.rstrip(" .").lower().rpartition(".")[2] in UNSAFE_EXTENSIONS and "." in name:
            raise ValueError("is of a type that mail servers refuse: send it as a link or in an archive")
        return name

    @field_validator("content_type")
    @classmethod
    def _safe_type(cls, value: str) -> str:
        if value.startswith(("multipart/", "message/")):
            raise ValueError("must be the type of a single file")
        if value in UNSAFE_TYPES:
            raise ValueError("is of a type that mail servers refuse: send it as a link or in an archive")
        return value
