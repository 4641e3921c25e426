"""libmagic, by the library and the table of signatures that the wheel `pylibmagic` carries.

The package itself is never imported: it would change `ctypes` for the whole process and put itself in front of the
system's libraries. What reads containers of C structures (ELF notes, compound files, compressed data) is switched off:
that is where libmagic's faults with hostile bytes were, and what it would tell is not asked for here.
"""

from __future__ import annotations

import ctypes
import threading
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_MIME_TYPE: Final = 0x10
_ERROR: Final = 0x200
_LEFT_OUT: Final = 0x1000 | 0x10000 | 0x40000 | 0x80000 | 0x400000
"""MAGIC_NO_CHECK_COMPRESS, _ELF, _CDF, _CSV, _JSON (libmagic(3))."""

UNKNOWN: Final = frozenset({"application/octet-stream", "application/x-empty", "text/plain"})
"""What it says of bytes that it does not know."""


class Magic:
    """One table of signatures, loaded. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        """Load it. Raises OSError where `folder` holds no libmagic that this machine can run."""
        library = ctypes.CDLL(str(folder / "libmagic.so.1"))
        library.magic_open.restype = ctypes.c_void_p
        library.magic_load.argtypes = (ctypes.c_void_p, ctypes.c_char_p)
        library.magic_buffer.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
        library.magic_buffer.restype = ctypes.c_char_p
        self._library, self._lock = library, threading.Lock()
        self._cookie = library.magic_open(_MIME_TYPE | _ERROR | _LEFT_OUT)
        if not self._cookie or library.magic_load(self._cookie, str(folder / "magic.mgc").encode()) != 0:
            raise OSError(f"libmagic cannot load its table of signatures from {folder}")

    def media_type(self, head: bytes) -> str | None:
        """The media type that the bytes look like; None where it knows none, or gives up. Never raises."""
        with self._lock:
            told: bytes | None = self._library.magic_buffer(self._cookie, head, len(head))
        found = "" if told is None else told.decode("ascii", "replace")
        return found if "/" in found and found not in UNKNOWN else None


@lru_cache(maxsize=1)
def magic() -> Magic:
    """The one of this process. Raises OSError, ImportError: the environment is not the locked one."""
    spec = find_spec("pylibmagic")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("pylibmagic is not installed: install requirements/runtime.txt")
    return Magic(Path(spec.submodule_search_locations[0]))
