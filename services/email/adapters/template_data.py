"""What data a template takes, and the check of what it was given, before anything is rendered.

Data comes from callers and is hostile until shown otherwise: only what the manifest declares reaches a template, each
value of exactly its declared JSON type and within bounds, and all that is wrong is told at once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field

from contracts.invisible import without_invisible

MAX_DEPTH = 8
MAX_VALUES = 5_000
MAX_TEXT = 20_000
"""Characters in one text within an array or object."""

_IN_LINKS = re.compile(r"(?<=\S)[.\u3002\uff0e\uff61@\uff20:](?=[^\W_]|//|\+)")
"""Dots (those too that IDNA takes for one), at signs and colons with something on both sides."""

_LINE_BREAKS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    description: str = ""


class TextField(_Declared):
    """One line of text; line breaks and control characters in it become a space, unless `multiline`.

    A field with a `default` is optional, whatever its type: the default stands for a value that is absent or null, and
    for a text in which nothing can be seen. `unlinked`: for names and the like. What looks like a link in it is written
    so that no mail program makes it one.
    """

    type: Literal["string"]
    default: str | None = None
    unlinked: bool = False
    max_length: Annotated[int, Field(alias="maxLength", gt=0, le=MAX_TEXT)] = 200
    min_length: Annotated[int, Field(alias="minLength", ge=0)] = 1
    multiline: bool = False


class NumberField(_Declared):
    """A whole number, or any with `number`."""

    type: Literal["integer", "number"]
    default: int | float | None = None
    minimum: float = -1e15
    maximum: float = 1e15


class FlagField(_Declared):
    """true or false, nothing that merely counts as such."""

    type: Literal["boolean"]
    default: bool | None = None


class StructureField(_Declared):
    """Nested JSON, at most `MAX_DEPTH` deep and `MAX_VALUES` values."""

    type: Literal["array", "object"]
    default: list[Any] | dict[str, Any] | None = None


DataField = Annotated[TextField | NumberField | FlagField | StructureField, Field(discriminator="type")]


@dataclass(frozen=True, slots=True)
class DataProblem:
    """One thing wrong with what a caller gave. `field` is the name as on the wire; no value is repeated."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field} {self.message}"


def check(
    declared: Mapping[str, DataField], data: Mapping[str, object]
) -> tuple[dict[str, object], tuple[DataProblem, ...]]:
    """The values a template may see, and everything wrong with what was given. Undeclared names are left out."""
    values: dict[str, object] = {}
    problems: list[DataProblem] = []
    for name, field in declared.items():
        value = data.get(name)
        if field.default is not None and (value is None or _shows_nothing(field, value)):
            values[name] = field.default
            continue
        if value is None:
            problems.append(DataProblem(name, "is missing"))
            continue
        problem = _problem(field, value)
        if problem:
            problems.append(DataProblem(name, problem))
        elif isinstance(field, TextField):
            values[name] = _text(field, str(value))
        else:
            values[name] = value
    return values, tuple(problems)


def unfit_defaults(declared: Mapping[str, DataField]) -> list[str]:
    """What is wrong with the defaults of a manifest. An empty text is a good one."""
    problems = ((name, field.default and _problem(field, field.default)) for name, field in declared.items())
    return [f"data.{name}.default {problem}" for name, problem in problems if problem]


def unlinked(text: str) -> str:
    """`text` with an invisible mark where mail programs would begin to see an address or a host name.

    U+200C (zero width non-joiner) after each dot, `@` and colon within a word: what follows is then no top-level
    domain, no host and no `//`, whether a program takes the mark for part of a word or for its end.
    """
    return _IN_LINKS.sub("\\g<0>\u200c", text)


def one_line(text: str) -> str:
    """`text` with every run of line breaks and control characters as one space."""
    return _LINE_BREAKS.sub(" ", text).strip()


def is_one_line(text: str) -> bool:
    """Whether `text` is valid Unicode without line breaks and control characters."""
    return _LINE_BREAKS.search(text) is None and _is_unicode(text)


def _text(field: TextField, value: str) -> str:
    value = unlinked(value) if field.unlinked else value
    if not field.multiline:
        return one_line(value)
    lines = value.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return "\n".join(one_line(line) for line in lines)


def _shows_nothing(field: DataField, value: object) -> bool:
    """Whether it is a text of blanks, control characters and marks without width alone."""
    return (
        isinstance(field, TextField)
        and type(value) is str
        and len(value) <= field.max_length
        and not one_line(without_invisible(value))
    )


def _problem(field: DataField, value: object) -> str | None:
    if isinstance(field, TextField):
        return _text_problem(field, value)
    if isinstance(field, NumberField):
        return _number_problem(field, value)
    if isinstance(field, FlagField):
        return None if type(value) is bool else "must be true or false"
    if isinstance(field, StructureField):
        kind: type = list if field.type == "array" else dict
        if type(value) is not kind:
            return f"must be an {field.type}"
        return _structure_problem(value)
    assert_never(field)


def _text_problem(field: TextField, value: object) -> str | None:
    if type(value) is not str:
        return "must be text"
    if len(value) > field.max_length:
        return f"must have at most {field.max_length} characters"
    if not _is_unicode(value):
        return "must be valid Unicode"
    if len(_text(field, value)) < field.min_length:
        return "must not be empty" if field.min_length == 1 else f"must have at least {field.min_length} characters"
    return None


def _number_problem(field: NumberField, value: object) -> str | None:
    if type(value) is not int and (field.type == "integer" or type(value) is not float):
        return "must be a whole number" if field.type == "integer" else "must be a number"
    if not field.minimum <= value <= field.maximum:
        return f"must be from {field.minimum:g} to {field.maximum:g}"
    return None


def _structure_problem(value: Any) -> str | None:
    """Walks without recursion, so that no nesting can exhaust the stack."""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    seen = 0
    while waiting:
        item, depth = waiting.pop()
        seen += 1
        if seen > MAX_VALUES:
            return f"must hold at most {MAX_VALUES} values"
        if depth > MAX_DEPTH:
            return f"must be nested at most {MAX_DEPTH} deep"
        if type(item) is dict:
            if any(type(key) is not str for key in item):
                return "must have text as keys"
            waiting += [(inner, depth + 1) for pair in item.items() for inner in pair]
        elif type(item) is list:
            waiting += [(inner, depth + 1) for inner in item]
        elif type(item) is str:
            if len(item) > MAX_TEXT or not _is_unicode(item):
                return f"must hold valid Unicode texts of at most {MAX_TEXT} characters"
        elif item is not None and type(item) not in (int, float, bool):
            return "must hold JSON values only"
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
