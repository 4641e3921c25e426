"""Media types with their parameters (RFC 2045 §5.1): `text/calendar; charset=utf-8; method=REQUEST`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field

from contracts.email.values import content_type, single_line

MOST_PARAMETERS = 10
LONGEST_TYPE = 255

_NAME = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,64}")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~{}-]+")
_PARAMETER = re.compile(rf"""[ \t]*;[ \t]*(?:({_NAME.pattern})=({_TOKEN.pattern}|"(?:[^"\\]|\\.)*"))?[ \t]*""")
_OF_THE_WRITER = frozenset({"boundary"})
"""Parameters that only who writes the message can give a value."""


@dataclass(frozen=True, slots=True)
class MediaType:
    """A type (`essence`, lower-case) and its parameters in their order, names lower-case, values without quotes."""

    essence: str
    parameters: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """As on the wire: a value that is no token in quotes."""
        return "; ".join([self.essence, *(f"{name}={_quoted(value)}" for name, value in self.parameters)])

    def get(self, name: str) -> str | None:
        """A parameter's value."""
        return dict(self.parameters).get(name)


def parse_media_type(text: str) -> MediaType:
    """Read a media type. ValueError says what is wrong with one that is none, or with its parameters."""
    single_line(text)
    kind, semicolon, rest = text.partition(";")
    essence = content_type(kind.strip(" \t"))
    rest = semicolon + rest
    parameters: dict[str, str] = {}
    place = 0
    while place < len(rest):
        found = _PARAMETER.match(rest, place)
        if found is None:
            raise ValueError('a contentType has parameters as in text/calendar; method=REQUEST; name="a b.ics"')
        place = found.end()
        if found[1] is None:
            continue  # a semicolon with nothing after it, as some programs write
        name = found[1].lower()
        if name in _OF_THE_WRITER:
            raise ValueError(f"a contentType must not have the parameter {name}")
        if name in parameters:
            raise ValueError("a contentType must not have the same parameter twice")
        parameters[name] = _bare(found[2])
        if len(parameters) > MOST_PARAMETERS:
            raise ValueError(f"a contentType has at most {MOST_PARAMETERS} parameters")
    return MediaType(essence, tuple(parameters.items()))


def _canonical(text: str) -> str:
    return str(parse_media_type(text))


def _bare(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value


def _quoted(value: str) -> str:
    return value if _TOKEN.fullmatch(value) else '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


AttachmentType = Annotated[str, Field(max_length=LONGEST_TYPE), AfterValidator(_canonical)]
"""A media type with parameters, in one spelling: type and names in lower-case, values as given."""
