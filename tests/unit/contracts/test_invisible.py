"""What is left out of a name before anybody looks at what it says it is."""

from __future__ import annotations

import sys
import unicodedata

from contracts.invisible import shows_nothing, without_invisible

DRAWN = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd")
"""Unicode's Prepended_Concatenation_Mark: marks that are drawn around or over the numbers behind them."""


def test_every_format_character_that_is_not_drawn_is_invisible() -> None:
    every = map(chr, range(sys.maxunicode + 1))
    marks = {each for each in every if unicodedata.category(each) == "Cf"} - DRAWN
    assert {each for each in marks if without_invisible(each)} == set()


def test_fillers_and_selectors_are_invisible_and_what_is_drawn_stays() -> None:
    assert without_invisible("e\u034f\u115f\u17b5\u180b\u3164\ufe0f\uffa0\U000e0100xe") == "exe"
    for shown in ("見積書 „2026“", "e\u0301", "\u00a0\u3000", *DRAWN):
        assert without_invisible(shown) == shown


def test_a_text_shows_nothing_without_a_character_that_is_drawn() -> None:
    for nothing in ("", " \r\n\t", "\u00a0\u3000", "\ufeff \u200b", "\u3164"):
        assert shows_nothing(nothing)
    for something in ("a", "\ufeff.", " \u0600", "\u200b\u0301"):
        assert not shows_nothing(something)
