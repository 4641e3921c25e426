"""Names: kept exactly where people see them, harmless where systems do."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.files.domain.names import (
    SAFE_BYTES,
    content_disposition,
    extensions,
    file_of,
    folder_of,
    name_problem,
    object_key,
    safe_name,
)

FILE = "0192f0c1-2b7a-7d3e-9c1a-5b8f3e2d4f00"
names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=300)


@given(names)
def test_a_safe_name_is_safe_for_ever(name: str) -> None:
    safe = safe_name(name)
    assert safe
    assert len(safe.encode()) <= SAFE_BYTES + 1
    assert not set(safe) & set('/\\:*?"<>|\x00\n\u202e')
    assert safe == safe.strip(" .")
    assert safe_name(safe) == safe


@given(names)
def test_the_exact_name_comes_back(name: str) -> None:
    header = content_disposition(name, inline=False)
    assert header.isascii()
    assert "\r" not in header
    assert "\n" not in header
    _, _, extended = header.partition("filename*=UTF-8''")
    assert unquote(extended, encoding="utf-8", errors="strict") == name
    plain = header.partition('filename="')[2].partition('"; filename*=')[0]
    assert '"' not in plain
    assert "\\" not in plain


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("見積書「最終」.pdf", "見積書「最終」.pdf"),
        ('Vertrag "2026".pdf', "Vertrag _2026_.pdf"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..\\..\\boot.ini", "_.._boot.ini"),
        ("CON", "_CON"),
        ("nul.txt", "_nul.txt"),
        (" .hidden. ", "hidden"),
        ("...", "file"),
        ("cv\u202efdp.exe", "cvfdp.exe"),
        ("a\u00adb\u115f\u2060\u3164\ufe0f\U000e0041.pdf", "ab.pdf"),
        ("evil.exe\u200b", "evil.exe"),
        ("setup.com.", "setup.com"),
        ("x" * 400 + ".pdf", "x" * 196 + ".pdf"),
    ],
)
def test_a_name_that_some_system_would_misread(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@pytest.mark.parametrize(
    ("name", "content_type", "says"),
    [
        ("invoice.pdf", "application/pdf", None),
        ("INVOICE.PDF", "application/pdf", None),
        ("no extension at all", "application/pdf", None),
        ("Report v1.2 final version", "application/pdf", None),
        ("見積書.pdf", "application/pdf", None),
        ("archive.tar.gz", "application/gzip", None),
        ("Invoice amazon.com.pdf", "application/pdf", None),
        ("Meeting w. Sh. Khan.pdf", "application/pdf", None),
        ("invoice.php.pdf", "application/pdf", r"\.php"),
        ("shell.asp;.pdf", "application/pdf", r"\.asp"),
        ("shell.asp::$DATA", "application/pdf", r"\.asp"),
        ("shell.PHP%00.pdf", "application/pdf", r"\.php"),
        ("amazon.com; invoice.pdf", "application/pdf", None),
        ("Paid; see example.org.pdf", "application/pdf", None),
        ("virus.com", "application/pdf", r"\.com"),
        ("invoice.pdf.exe", "application/pdf", r"\.exe"),
        *(
            (f"evil.ex{one}e{two}", "application/pdf", r"\.exe")
            for one, two in (
                ("", "\u200b"),
                ("\u00ad", ""),
                ("\u200d", "\u2060"),
                ("", "\u3164"),
                ("\ufe0f", ""),
                ("", "\U000e0020"),
                ("", "."),
                ("", " . ."),
                ("", "\u200b."),
                ("", ".\u200b"),
                ("", "\u00a0"),
                ("", "\ufeff "),
            )
        ),
        ("setup.com.", "application/pdf", r"\.com"),
        ("setup.com\u200b", "application/pdf", r"\.com"),
        ("evil\uff0e\uff45\uff58\uff45", "application/pdf", r"\.exe"),
        ("evil\u2024exe", "application/pdf", r"\.exe"),
        ("shell.p\u200bhp.pdf", "application/pdf", r"\.php"),
        ("r\u00e9sum\u00e9 \U0001f469\u200d\U0001f4bb.pdf", "application/pdf", None),
        ("photo.jpg.HTML", "image/jpeg", r"\.html"),
        ("photo.png", "image/jpeg", r"ends in \.jpg"),
        ("unknown.xyz", "application/x-unknown", None),
    ],
)
def test_a_name_fits_its_type(name: str, content_type: str, says: str | None) -> None:
    problem = name_problem(name, content_type)
    if says is None:
        assert problem is None
    else:
        assert problem is not None
        assert re.search(says, problem)


def test_a_key_tells_its_file_and_nothing_of_people() -> None:
    key = object_key("contract", datetime(2026, 3, 1, tzinfo=UTC), FILE, "Zm9vYmFyMQ")
    assert key == f"contract/2026/03/{FILE}/Zm9vYmFyMQ"
    assert file_of(key) == FILE
    for other in (key + "/x", "x/" + key, key.upper(), "mail/abc", "", f"contract/2026/03/{FILE}/", key + "\n"):
        assert file_of(other) is None
        with pytest.raises(ValueError, match="not the key of a file"):
            folder_of(other)
    again = object_key("contract", datetime(2026, 3, 1, tzinfo=UTC), FILE, "YW5vdGhlcg")
    assert folder_of(key) == folder_of(again) == f"contract/2026/03/{FILE}/"


def test_extensions() -> None:
    assert extensions("a.Tar.GZ") == ("tar", "gz")
    assert extensions("none") == ()
