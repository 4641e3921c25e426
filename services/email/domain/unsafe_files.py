"""Which files mail servers refuse, whichever way they come into a mail. Pure."""

from __future__ import annotations

import unicodedata

from contracts.invisible import without_invisible

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


def is_unsafe_name(name: str) -> bool:
    """Whether a file of this name is refused, for what its name says it is to people: without characters that nobody
    sees, and whatever form its letters have.
    """
    shown = without_invisible(unicodedata.normalize("NFKC", name))
    return "." in shown and shown.rstrip(" .").lower().rpartition(".")[2] in UNSAFE_EXTENSIONS


def is_unsafe_type(content_type: str) -> bool:
    """Whether a file of this media type is refused."""
    return content_type.partition(";")[0].strip().lower() in UNSAFE_TYPES
