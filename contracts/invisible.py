"""Characters that nobody sees: a name may be another one than it shows by them, and a text nothing at all."""

import re

_CHARACTERS = (
    r"\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    r"\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Unicode's property Default_Ignorable_Code_Point (DerivedCoreProperties.txt), with what is reserved for it, and all
other characters of the category Cf but those that are drawn (Prepended_Concatenation_Mark).
"""

_INVISIBLE = re.compile(f"[{_CHARACTERS}]+")
_SHOWN = re.compile(rf"[^\s{_CHARACTERS}]")


def without_invisible(text: str) -> str:
    """The text without what is not shown, and may turn the reading direction: `invoice[U+202E]fdp.exe` shows as a
    PDF.
    """
    return _INVISIBLE.sub("", text)


def shows_nothing(text: str) -> bool:
    """Whether it is nothing but white space and what is not shown."""
    return _SHOWN.search(text) is None
