"""Takes addresses, tokens and secrets out of anything that is about to be logged.

Better one harmless word too many than one address in clear: whatever has the shape `something@something`
counts as an address, message ids and user names in URLs included.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any

REDACTED = "[redacted]"

_DELIMITERS = r"\s<>()\[\],;:\"\\"
_ADDRESS = re.compile(
    rf"""
    (?: \\?"(?:[^"\\\n]|\\.){{0,64}}?\\?"             # a quoted local part, its quotes perhaps escaped by JSON
      | (?<![^{_DELIMITERS}@＠])[^{_DELIMITERS}@＠]*+   # a bare one, from the start of its word, read only once
    )
    [@＠]
    (?: \[[^\]\s]*\][^{_DELIMITERS}]*+                # an address literal: name@[192.0.2.1]
      | [^{_DELIMITERS}]++                            # a domain, with whatever else clings to it
    )
    """,
    re.VERBOSE,
)
_ENCODED = re.compile(r"""(?<![^\s<>"'?&=;,/])(?:[^\s<>"'?&=;,/%]++|%(?!40)[^\s<>"'?&=;,/%]*+)*+%40[^\s<>"'?&=;,/]*+""")
_SHORTENED = re.compile(r".?…@[^@＠\s]*#[0-9a-f]{4}")
_CLINGING = "'`{}*_|.!?"
_SECRETS = re.compile(
    r"""
    (?P<scheme>\b(?:Bearer|Basic|bearer|basic)[ ]+)[A-Za-z0-9._~+/=-]{6,}
    | \beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]*)*
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | (?P<name>(?:X-Amz-(?:Signature|Credential|Security-Token)|token|password|secret|signature)=)[^&\s"']+
    | (?P<userinfo>://)[^\s/@"']+@
    """,
    re.VERBOSE,
)
_SUSPECTS = (
    *("@", "＠", "%40", "earer ", "asic ", "eyJ", "AKIA", "ASIA", "X-Amz-"),
    *("token=", "password=", "secret=", "signature="),
)
"""No pattern above can match a text that holds none of these: a cheap look before an expensive one."""
_SECRET_NAME = re.compile(
    r"authorization|cookie|passw|secret|credential|private_?key|access_?key|encryption_?key|api_?key|jwt|bearer"
    r"|(^|[_-])token$",
    re.IGNORECASE,
)
_DEEPEST = 12


def shorten_address(address: str) -> str:
    """`alice@example.com` → `a…@example.com#1a2b`: enough to tell two apart in a log, not enough to write to
    one.

    The four hex digits are of SHA-256 over the lower-cased address. Without an @ there is no domain to show.
    """
    local, at, domain = address.replace("＠", "@").lower().rpartition("@")
    first = (local if at else domain).strip(' "\\')[:1]
    digest = sha256(address.strip().lower().encode("utf-8", "replace")).hexdigest()[:4]
    return f"{first}…@{domain if at else ''}#{digest}"


def redact_text(text: str) -> str:
    """`text` without addresses (shortened) and tokens (replaced). Idempotent, linear in the length of `text`."""
    if not any(suspect in text for suspect in _SUSPECTS):
        return text
    text = _SECRETS.sub(_hide, text)
    if "%40" in text:
        text = _ENCODED.sub(REDACTED, text)
    if "@" in text or "＠" in text:
        text = _ADDRESS.sub(_shorten, text)
    return text


class Redactor:
    """`redact_text` for values of any shape, and for secrets known by their value or by the name they stand
    under.
    """

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        """`secrets`: values that must never be seen, of at least 6 characters (shorter ones would blot out
        words).
        """
        known = sorted({s for s in secrets if len(s) >= 6}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None
        self._suspects = (*_SUSPECTS, *known)

    def event(self, event: dict[str, Any]) -> dict[str, Any]:
        """`mapping` for a log event: one look over all of its strings at once decides whether there is
        anything to do.
        """
        texts: list[str] = []
        for name, value in event.items():
            kind = type(value)
            if kind is str:
                texts.append(value)
            elif not (value is None or kind is int or kind is float or kind is bool):
                return self.mapping(event)
            if _names_secret(name):
                return self.mapping(event)
            texts.append(name)
        joined = "\n".join(texts)
        for suspect in self._suspects:
            if suspect in joined:
                return self.mapping(event)
        return event

    def value(self, value: Any, depth: int = 0) -> Any:
        """A copy of `value` with every string in it, keys included, redacted.

        Anything that JSON does not know is redacted as its `repr`, which is how it would be logged.
        """
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, int | float):
            return value
        if depth >= _DEEPEST:
            return "[too deep]"
        if isinstance(value, Mapping):
            return self.mapping(value, depth + 1)
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item, depth + 1) for item in value]
        if isinstance(value, bytes | bytearray | memoryview):
            return f"[{len(value)} bytes]"
        return self.text(_describe(value))

    def mapping(self, mapping: Mapping[Any, Any], depth: int = 0) -> dict[str, Any]:
        """The same for a mapping; what stands under a name like `authorization` is replaced whole."""
        redacted: dict[str, Any] = {}
        for key, value in mapping.items():
            name = key if isinstance(key, str) else str(key)
            hidden = bool(value) and _names_secret(name)
            redacted[self.text(name)] = REDACTED if hidden else self.value(value, depth)
        return redacted

    def text(self, text: str) -> str:
        """`redact_text`, and the known secrets."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        return redact_text(text)


def _describe(value: Any) -> str:
    describe: Callable[[Any], str] = str if hasattr(value, "isoformat") or isinstance(value, Exception) else repr
    try:
        return describe(value)
    except Exception as error:  # noqa: BLE001 - a value that cannot describe itself must not cost its log line
        return f"[{type(value).__name__}: {type(error).__name__}]"


@lru_cache(maxsize=2048)
def _names_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _hide(match: re.Match[str]) -> str:
    if match["userinfo"]:  # scheme://user:password@host stays readable without its middle
        return match["userinfo"]
    return (match["scheme"] or match["name"] or "") + REDACTED


def _shorten(match: re.Match[str]) -> str:
    found = match[0]
    core = found.strip(_CLINGING)
    if _SHORTENED.fullmatch(core):
        return found
    if core[:1] in ("@", "＠") and match.string[max(0, match.start() - 1) : match.start()].strip() == "":
        return found  # a mention or a decorator: nothing stands before the @
    before = found[: len(found) - len(found.lstrip(_CLINGING))]
    after = found[len(found.rstrip(_CLINGING)) :]
    if len(re.split("[@＠]", core, maxsplit=1)[0]) == 1:
        # What clings to it may be the rest of its local part: beside the one letter that is shown, all would be told.
        before, core = "", before + core
    return f"{before}{shorten_address(core)}{after}"
