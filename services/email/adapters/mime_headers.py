"""Header fields of a mail, written directly: RFC 5322 lines, RFC 2047 encoded words, RFC 2231 parameters.

Everything returned is ASCII `str` without a trailing line break, folded with CRLF and a space. Nothing that a caller
passes can end a field or start another one: control characters and line separators of any kind are refused.
"""

import re
import unicodedata
from binascii import b2a_base64
from urllib.parse import quote

from contracts.addresses import LONGEST_EVER, normalise_address
from contracts.email.values import single_line
from services.kit.errors import PermanentError

FOLD = "\r\n "
_LINE = 76
"""Width at which fields are folded (RFC 5322 §2.1.1 asks for at most 78)."""
_WORD_BYTES = 45
"""UTF-8 bytes in one encoded word: 60 characters of base64 and 12 around them, within the 75 of RFC 2047 §2."""
_PIECE = 56
"""Characters in one piece of a continued parameter (RFC 2231 §3)."""

_PLAIN = re.compile(r"[!-~]{1,70}(?: [!-~]{1,70})*")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_PLAIN_FILENAME = re.compile(r"[A-Za-z0-9_+=@#~()-][A-Za-z0-9._+=@#~()-]{0,59}")
_PARAMETER_TOKEN = re.compile(rf"[A-Za-z0-9!#$&+.^_`|~{{}}-]{{1,{_PIECE}}}")
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,75}")
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,200}")


def refuse_controls(value: str, what: str) -> str:
    """Return `value`, or raise PermanentError `invalid`: control character, line separator, half a surrogate pair."""
    try:
        return single_line(value)
    except ValueError as error:
        raise PermanentError("invalid", f"{what} {error}") from None


def unstructured(value: str, what: str, *, first_line: int) -> str:
    """The text of a field such as Subject: as it is where a line can hold it, else as encoded words.

    `first_line` is how many characters its name takes on the first line.
    """
    refuse_controls(value, what)
    if not value or (_PLAIN.fullmatch(value) and "=?" not in value):
        return _fold_words(value, first_line)
    return _encoded_words(value)


def mailbox(value: str, what: str) -> str:
    """`address` or `Display Name <address>` as a header holds it. Raises PermanentError `invalid` as `name_and_address`
    does.
    """
    name, address = name_and_address(value, what)
    if not name:
        return address
    return f"{_phrase(name)}{FOLD if len(name) + len(address) > _LINE - 10 else ' '}<{address}>"


def name_and_address(value: str, what: str) -> tuple[str, str]:
    """The display name (empty where there is none) and the address of a mailbox, the domain in its IDNA form.
    An address may be longer than commands may have now: mail that an earlier version took is written all the same.

    Raises PermanentError `invalid` for anything else; the message names the field and never the address.
    """
    refuse_controls(value, what)
    name, address = split_mailbox(value)
    try:
        return name, normalise_address(address, longest=LONGEST_EVER)
    except ValueError as error:
        raise PermanentError("invalid", f"{what}: {error}") from None


def split_mailbox(value: str) -> tuple[str, str]:
    """Display name (empty where there is none, quotes removed) and address, neither of them checked."""
    value = value.strip()
    if not value.endswith(">"):
        return "", value
    name, _, address = value[:-1].rpartition("<")
    name = name.strip()
    if len(name) > 1 and name[0] == name[-1] == '"':
        name = re.sub(r"\\(.)", r"\1", name[1:-1])
    return name, address


def mailboxes(values: tuple[str, ...], what: str) -> str:
    """A list of mailboxes, one on each line."""
    return f",{FOLD}".join(mailbox(value, what) for value in values)


def filename_parameter(value: str) -> str:
    """`; filename=…` for Content-Disposition: a plain token, or RFC 2231 with charset and, where long, in pieces."""
    refuse_controls(value, "an attachment's filename")
    if not value:
        raise PermanentError("invalid", "an attachment needs a filename")
    if _PLAIN_FILENAME.fullmatch(value):
        return f';{FOLD}filename="{value}"'
    return _extended("filename", value)


def name_parameter(filename: str) -> str:
    """`; name=…` for Content-Type: what a mail program shows that does not read RFC 2231; "" where it need not.

    In ASCII, with the extension: that is what such a program opens the file by.
    """
    refuse_controls(filename, "an attachment's filename")
    return "" if _PLAIN_FILENAME.fullmatch(filename) else f';{FOLD}name="{in_ascii(filename)}"'


def parameter(name: str, value: str) -> str:
    """`; name=value` of a field: a token or a quoted string, or RFC 2231 where ASCII or one line cannot hold it."""
    refuse_controls(value, f"the parameter {name}")
    if _PARAMETER_TOKEN.fullmatch(value):
        return f";{FOLD}{name}={value}"
    if value.isascii() and len(value) <= _PIECE:
        return f';{FOLD}{name}="' + re.sub(r'(["\\])', r"\\\1", value) + '"'
    return _extended(name, value)


def in_ascii(filename: str) -> str:
    """The name without accents, everything else that is not ASCII as `_`; at most `_PIECE` characters."""
    plain = "".join(each for each in unicodedata.normalize("NFKD", filename) if not unicodedata.combining(each))
    stem, dot, extension = plain.rpartition(".")
    if not stem or not re.fullmatch(r"[A-Za-z0-9]{1,10}", extension):
        stem, dot, extension = plain, "", ""
    stem = re.sub(r"[^A-Za-z0-9._+=@#~() -]+", "_", stem)[: _PIECE - len(dot + extension)].strip(" ._")
    return f"{stem or 'attachment'}{dot}{extension}"


def _extended(name: str, value: str) -> str:
    """A parameter in RFC 2231's form, in pieces where it is long."""
    encoded = quote(value, safe="")
    if len(encoded) <= _PIECE:
        return f";{FOLD}{name}*=utf-8''{encoded}"
    pieces = [""]
    for character in value:  # whole characters: some readers decode each piece by itself
        octets = quote(character, safe="")
        if len(pieces[-1]) + len(octets) > _PIECE:
            pieces.append("")
        pieces[-1] += octets
    first, *rest = pieces
    return f";{FOLD}{name}*0*=utf-8''{first}" + "".join(
        f";{FOLD}{name}*{number}*={piece}" for number, piece in enumerate(rest, 1)
    )


def field_name(value: str) -> str:
    """Return the name of a field that a caller chose, if it is one."""
    if not _TOKEN.fullmatch(value):
        raise PermanentError("invalid", "a header's name has letters, digits and hyphens only")
    return value


def safe_id(value: str, what: str) -> str:
    """Return an id of ours, which needs no encoding anywhere in a header."""
    if not _SAFE_ID.fullmatch(value):
        raise PermanentError("invalid", f"{what} has letters, digits, dots, colons, underscores and hyphens only")
    return value


def _phrase(name: str) -> str:
    """A display name: atoms, a quoted string, or encoded words (RFC 5322 §3.2.5, RFC 2047 §5.3)."""
    if len(name) <= 60 and "=?" not in name:
        if _ATOMS.fullmatch(name):
            return name
        if _PLAIN.fullmatch(name):
            return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
    return _encoded_words(name)


def _fold_words(value: str, used: int) -> str:
    if used + len(value) <= _LINE:
        return value
    out: list[str] = []
    for word in value.split(" "):
        if not out:
            out.append(word)
        elif used + 1 + len(word) > _LINE:
            out.append(FOLD + word)
            used = 0
        else:
            out.append(" " + word)
        used += 1 + len(word)
    return "".join(out)


def _encoded_words(value: str) -> str:
    """Base64 encoded words, none of which splits a character. The white space between them is no part of the text."""
    words: list[str] = []
    chunk = bytearray()
    for character in value:
        encoded = character.encode()
        if len(chunk) + len(encoded) > _WORD_BYTES:
            words.append(_encoded_word(bytes(chunk)))
            chunk.clear()
        chunk += encoded
    words.append(_encoded_word(bytes(chunk)))
    return FOLD.join(words)


def _encoded_word(utf8: bytes) -> str:
    return f"=?utf-8?b?{b2a_base64(utf8, newline=False).decode('ascii')}?="
