"""Lies about a file's type are caught by its first bytes; honest files pass."""

from __future__ import annotations

import gzip
import io
import zipfile
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.files.adapters.s3_objects import encoding_of
from services.files.adapters.sniffing import HEAD_BYTES, sniff, sniff_gzip
from services.files.domain.categories import DEFAULTS, POST_LIMIT, problems, with_changes
from services.files.domain.kinds import KINDS, contradiction
from services.files.domain.seen import Sniffed


def archive(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name in names:
            file.writestr(name, "x" * 50)
    return made.getvalue()


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0" * 100
DOCX = archive("[Content_Types].xml", "word/document.xml")
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
EXE = b"MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff" + b"\0" * 300
HONEST = [
    ("application/pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + b"x" * 300),
    ("image/png", PNG),
    ("image/jpeg", b"\xff\xd8\xff\xe0\0\x10JFIF\0" + b"\0" * 200),
    ("image/gif", b"GIF89a" + b"\0" * 100),
    ("image/webp", b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 50),
    ("image/tiff", b"II*\0" + b"\0" * 100),
    ("image/heic", b"\0\0\0\x18ftypheic\0\0\0\0" + b"\0" * 100),
    ("application/zip", archive("a.txt")),
    (WORD, DOCX),
    ("application/gzip", gzip.compress(b"x" * 100)),
    ("application/rtf", b"{\\rtf1\\ansi x}"),
    ("application/msword", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600),
    ("video/mp4", b"\0\0\0\x18ftypmp42\0\0\0\0" + b"\0" * 100),
    ("text/plain", b"hello\n"),
    ("text/plain", "見積書".encode() * 3000),
    ("text/plain", "h\xe9llo".encode("latin-1")),
    ("text/plain", "\ufeffhi".encode("utf-16-le")),
    ("text/csv", b"a;b\r\n1;2\r\n"),
    ("application/json", b'{"a": 1}'),
    ("application/xml", b"<?xml version='1.0'?><a/>"),
    ("message/rfc822", b"From: a@b.example\nSubject: x\n\nhi"),
    ("application/octet-stream", bytes(range(7, 200)) * 3),
    ("application/x-unknown", b"\0\1\2"),
    ("application/octet-stream", archive("a.txt")),
    ("application/vnd.ms-excel.sheet.macroenabled.12", archive("[Content_Types].xml", "xl/workbook.xml")),
    ("text/markdown", b"<!-- a comment -->\n# Title\n"),
    ("text/markdown", b"# Title\n<script>\n"),
    ("text/plain", b"<header> is no page\n"),
    ("text/plain", b"#!important\n"),
    ("application/xml", b"<!-- a comment --><a/>"),
]
LIES = [
    ("application/pdf", EXE),
    ("application/pdf", b"hello"),
    ("application/pdf", b"<html><script>alert(1)</script></html>"),
    ("image/png", b"GIF89a" + b"\0" * 100),
    ("image/jpeg", PNG),
    ("image/png", b"<!DOCTYPE html><html><body>x</body></html>"),
    (WORD, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600),
    ("text/plain", PNG),
    ("text/csv", EXE),
    ("application/octet-stream", EXE),
    ("application/octet-stream", b"\x7fELF\2\1\1" + b"\0" * 200),
    ("text/plain", b"<!DOCTYPE html><html><body>x</body></html>"),
    ("text/plain", b"\xef\xbb\xbf \r\n\t<HTML><body>x"),
    ("text/csv", b"<ScRiPt>alert(1)</ScRiPt>"),
    ("text/plain", b"#!/bin/sh\nid\n"),
    ("application/json", b"#! /usr/bin/env python3\n"),
    ("text/plain", b"\n<?PHP system($_GET[0]); ?>"),
    ("application/pdf", b""),
]


@pytest.mark.parametrize(("declared", "data"), HONEST, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_what_it_says_passes(declared: str, data: bytes) -> None:
    assert contradiction(declared, sniff(data[:8192])) is None


@pytest.mark.parametrize(("declared", "data"), LIES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_lie_is_told(declared: str, data: bytes) -> None:
    why = contradiction(declared, sniff(data))
    assert why is not None
    assert declared in why


@given(st.binary(max_size=300), st.sampled_from(sorted(KINDS)))
def test_whatever_comes_is_judged(data: bytes, declared: str) -> None:
    contradiction(declared, sniff(data))


def test_a_category_says_everything_that_is_wrong_at_once() -> None:
    found = problems(DEFAULTS["contract"], "a.png", "image/png", 10**12, True)
    assert [field for field, _ in found] == ["contentType", "maxSizeBytes", "isPublic"]
    assert problems(DEFAULTS["avatar"], "me.jpg.php", "image/jpeg", 10, True)[0][0] == "fileName"
    assert problems(DEFAULTS["backup"], "dump.bin.php", "application/x-whatever", POST_LIMIT, False) == []


def test_rules_are_changed_by_setting_field_by_field() -> None:
    rules = with_changes({"contract": {"scan": True, "maxBytes": 5, "types": ["application/PDF"], "lifetimeDays": 2}})
    assert rules["contract"].scan
    assert rules["contract"].types == {"application/pdf"}
    assert rules["avatar"] == DEFAULTS["avatar"]
    with pytest.raises(ValueError, match=r"nothing.*contract\.maxBytes.*contract\.colour"):
        with_changes({"nothing": {}, "contract": {"maxBytes": -1, "colour": "red"}})


@pytest.mark.parametrize(("declared", "data"), HONEST, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_stored_compressed_is_looked_through(declared: str, data: bytes) -> None:
    stream = gzip.compress(data)
    found = sniff_gzip(stream[:HEAD_BYTES], stream[-4:])
    assert found == replace(sniff(data[:HEAD_BYTES]), told_size=len(data))
    assert contradiction(declared, found) is None


def test_no_more_of_a_stream_is_decoded_than_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(b"\0" * (64 << 20))
    seen: list[int] = []

    def looked(head: bytes) -> Sniffed:
        seen.append(len(head))
        return Sniffed()

    monkeypatch.setattr("services.files.adapters.sniffing.sniff", looked)
    assert sniff_gzip(bomb[:HEAD_BYTES], bomb[-4:]).told_size == 64 << 20
    assert seen == [HEAD_BYTES]


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_what_is_no_stream_is_told_and_never_raises(data: bytes, end: bytes) -> None:
    found = sniff_gzip(data, end)
    assert found.told_size in (None, int.from_bytes(end, "little"))
    assert sniff_gzip(b"just words" + data, end) == Sniffed()


def test_what_compresses_is_taken_compressed_where_its_category_says_so() -> None:
    document, backup, contract = DEFAULTS["document"], DEFAULTS["backup"], DEFAULTS["contract"]
    assert document.may_compress("text/csv")
    assert not document.may_compress("application/pdf")
    assert not contract.may_compress("application/msword")
    assert contract.compressible() == ()
    assert "text/csv" in document.compressible()
    assert "text/*" not in document.compressible()
    assert {"text/*", "application/octet-stream"} <= set(backup.compressible())
    for rules in DEFAULTS.values():
        assert all(rules.may_compress(each.replace("*", "x-any")) for each in rules.compressible())


@pytest.mark.parametrize(
    ("stored", "encoding"),
    [
        (None, None),
        ("", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("aws-chunked", None),  # a way of sending that some stores keep
        ("gzip,aws-chunked", "gzip"),
        ("gzip, br", "gzip,br"),
    ],
)
def test_what_an_object_is_encoded_with(stored: str | None, encoding: str | None) -> None:
    assert encoding_of(stored) == encoding
