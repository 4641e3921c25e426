"""Lies about a file's type are caught by its first bytes; honest files pass."""

from __future__ import annotations

import gzip
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.files.adapters.s3_objects import encoding_of
from services.files.adapters.sniffing import FIRST_OF_GZIP, GZIP_BYTES, HEAD_BYTES, sniff, sniff_gzip
from services.files.domain.categories import DEFAULTS, POST_LIMIT, problems, with_changes
from services.files.domain.kinds import KINDS, Verdict, judged
from services.files.domain.seen import Sniffed
from tests.unit.files_service.samples import (
    DOCX,
    EXE,
    GIF,
    JPEG,
    OLE_MAGIC,
    PDF_BODY,
    PNG,
    RAR,
    TAR,
    WEBP,
    archive,
    encrypted_office,
    gzip_stream,
    installer,
    iso_media,
)

OLD_WORD, OLD_EXCEL = "application/msword", "application/vnd.ms-excel"
OLD_POWERPOINT = "application/vnd.ms-powerpoint"
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
SHEET = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
HTML = b"<!DOCTYPE html><html><body>x</body></html>"
TABLES = [
    HTML, b"<table><tr><td>1</td></tr></table>", b"\xef\xbb\xbf\n<HTML xmlns:x='urn:schemas-microsoft-com:office'>",
    b"<meta charset=utf-8><table border=1>", "\ufeff<html><table>".encode("utf-16-le"), b"<style>td{}</style><table>",
    b"<html><head><script>sort()</script></head><table>",
    b"MIME-Version: 1.0\nContent-Type: multipart/related; boundary=x\n\n--x\nContent-Type: text/html\n\n<html>",
]  # fmt: skip
SVG = b"<?xml version='1.0'?>\n<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
# fmt: off
MP4 = [
    "iso2", "iso4", "iso5", "iso6", "iso9", "isom", "avc1", "mp41", "mp42", "mp71", "dash", "M4V", "M4VH", "MSNV",
    "NDSC", "f4v", "XAVC", "zzzz", "3gp4",
]
# fmt: on
HEIC = ["heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "mif2", "msf1", "miaf", "MiHB"]
BEFORE_A_PDF = [
    b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n", b"\0\0", b" " * 1000, b"\x1b%-12345X@PJL JOB\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/pdf\r\n\r\n", b"\x80\x81\0\x99" * 20, b"\xff\xfe",
]  # fmt: skip
RECOGNISED = [
    ("application/pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + b"x" * 300),
    *(("application/pdf", before + PDF_BODY) for before in BEFORE_A_PDF),
    ("image/png", PNG),
    ("image/jpeg", JPEG),
    ("image/jpeg", b"\xff\xd8\xff\xe1\0\x10Exif\0" + b"\0" * 200),
    ("image/gif", GIF),
    ("image/webp", WEBP),
    ("image/tiff", b"II*\0" + b"\0" * 100),
    ("image/bmp", b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0" + b"\0" * 60),
    *(("image/heic", iso_media(each, "isom")) for each in HEIC),
    *(("image/heif", iso_media(each, "mif1", "heic")) for each in HEIC),
    ("image/heic", iso_media("zzzz", "mif1", "heic")),
    *(("video/mp4", iso_media(each, "isom")) for each in MP4),
    ("video/mp4", iso_media("isom")),
    ("video/mp4", b"\0\0\0\x18styp" + b"\0" * 50),
    ("video/quicktime", iso_media("qt")),
    ("video/quicktime", b"\0\0\0\x08wide\0\0\1\0mdat" + b"\0" * 50),
    ("audio/mpeg", b"ID3\3\0\0\0\0\0\0" + b"\0" * 50),
    ("application/zip", archive("a.txt")),
    (WORD, DOCX),
    ("application/vnd.oasis.opendocument.text", archive("mimetype", "content.xml")),
    ("application/gzip", gzip.compress(b"x" * 100)),
    ("application/rtf", b"{\\rtf1\\ansi x}"),
    (OLD_WORD, OLE_MAGIC + b"\0" * 600),
    (OLD_EXCEL, OLE_MAGIC + b"\0" * 600),
    ("text/plain", b"hello\n"),
    ("text/plain", "見積書".encode() * 3000),
    ("text/plain", "h\xe9llo".encode("latin-1")),
    ("text/plain", "\ufeffhi".encode("utf-16-le")),
    ("text/plain", b"MZ and other first words\n"),
    ("text/plain", b"<header> is no page\n"),
    ("text/plain", b"#!important\n"),
    ("text/csv", b"a;b\r\n1;2\r\n"),
    ("text/csv", b"BMW;Audi\r\n1;2\r\n"),
    ("application/json", b'{"a": 1}'),
    ("application/xml", b"<?xml version='1.0'?><a/>"),
    ("application/xml", b"<!-- a comment --><a/>"),
    ("text/markdown", b"<!-- a comment -->\n# Title\n"),
    ("message/rfc822", b"From: a@b.example\nSubject: x\n\nhi"),
    ("application/x-tar", TAR),
    ("image/svg+xml", SVG),
]
"""Of what is declared: may be public, and shown."""

TAKEN = [
    ("application/pdf", b"hello"),
    ("application/pdf", b"\1\2\3" * 200),
    ("application/pdf", b" " * 1100 + PDF_BODY),
    ("image/heic", b"\0\0\0\x18xxxx" + b"\0" * 100),
    ("image/heic", iso_media("avif", "mif1")[:8] + b"isom" + b"\0" * 100),
    ("video/mp4", iso_media("mif1", "heic")),
    ("video/mp4", b"\0\1\2\3" * 100),
    (WORD, encrypted_office()),
    (WORD, encrypted_office(60_000)[:HEAD_BYTES]),
    (SHEET, encrypted_office()),
    (SHEET, OLE_MAGIC + b"\0" * 600),
    (OLD_WORD, DOCX),
    (OLD_WORD, b"{\\rtf1\\ansi x}"),
    (OLD_EXCEL, b"Name;Betrag\r\nKim;100\r\n"),
    (OLD_EXCEL, archive("[Content_Types].xml", "xl/workbook.xml")),
    (OLD_EXCEL, b"<?xml version='1.0'?><Workbook xmlns='urn:schemas-microsoft-com:office:spreadsheet'/>"),
    *((OLD_EXCEL, each) for each in TABLES),
    *((OLD_WORD, each) for each in TABLES),
    ("text/csv", "a;b".encode("utf-16-le")),
    ("text/plain", b"see <html> and <script> for an example\n"),
    ("text/markdown", b"# Title\n<script>\n"),
    ("application/octet-stream", bytes(range(7, 200)) * 3),
    ("application/octet-stream", archive("a.txt")),
    ("application/octet-stream", b"MZ" + bytes(range(200, 256)) * 9),
    ("application/x-unknown", b"\0\1\2"),
    ("application/vnd.ms-excel.sheet.macroenabled.12", archive("[Content_Types].xml", "xl/workbook.xml")),
    ("image/gif", b"GIF89a/*<script>*/=1;alert(1)//" + b"\0" * 20),
    ("image/jpeg", b"\xff\xd8\xff\xfe\0\x20<?php system($_GET[0]); ?>" + b"\0" * 90),
    ("application/pdf", b"x<html><script>alert(1)</script>\n" + PDF_BODY),
    ("image/png", GIF),
    ("image/jpeg", PNG),
    ("image/png", iso_media("heic", "mif1")),
]
"""Nothing else for certain: kept, not trusted."""

LIES = [
    ("application/pdf", EXE),
    ("application/pdf", b"MZ" + b"\0" * 100),
    ("application/pdf", b"<html><script>alert(1)</script></html>"),
    ("application/pdf", b"<html>\n" + PDF_BODY),
    ("application/pdf", b"#!/bin/sh\n" + PDF_BODY),
    ("application/pdf", archive("a.txt")),
    ("application/pdf", archive("a.txt") + PDF_BODY),
    ("application/pdf", RAR),
    *(("image/png", each) for each in (RAR, TAR, archive("a.txt"), gzip.compress(b"x"), OLE_MAGIC + b"\0" * 600)),
    *(("image/png", each) for each in (HTML, b"\n\0<HTML>", b"words first <html><body>", SVG, b"<%@ page %><%= 1 %>")),
    ("image/gif", "\ufeff<script>alert(1)</script>".encode("utf-16-le")),
    ("image/jpeg", b"@echo off\r\ndel *\r\n"),
    ("image/jpeg", b"#!/usr/bin/env python3\n"),
    ("image/webp", b"\n<?PHP system($_GET[0]); ?>"),
    ("image/heic", b"<?= system($_GET[0]) ?>"),
    ("video/mp4", b"\x7fELF\2\1\1" + b"\0" * 200),
    (WORD, EXE),
    (WORD, installer()),
    (WORD, HTML),
    (OLD_WORD, installer()),
    (OLD_EXCEL, archive("a.txt")),
    (OLD_EXCEL, b"<?php system($_GET[0]); ?><table>"),
    (OLD_EXCEL, b"#!/bin/sh\n"),
    (OLD_POWERPOINT, HTML),
    (SHEET, HTML),
    ("text/plain", PNG),
    ("text/csv", EXE),
    ("text/csv", archive("a.txt")),
    ("application/octet-stream", EXE),
    ("application/octet-stream", b"MZ".ljust(60, b"\xaa") + b"\x40\0\0\0PE\0\0" + b"\0" * 100),
    ("application/octet-stream", b"\x7fELF\2\1\1" + b"\0" * 200),
    ("application/octet-stream", b"L\0\0\0\1\x14\2\0" + b"\0" * 60),
    ("text/plain", HTML),
    ("text/plain", b"\xef\xbb\xbf \r\n\t<HTML><body>x"),
    ("text/csv", b"<ScRiPt>alert(1)</ScRiPt>"),
    ("text/plain", b"#!/bin/sh\nid\n"),
    ("application/json", b"#! /usr/bin/env python3\n"),
    ("text/plain", b"\n<?PHP system($_GET[0]); ?>"),
]
"""Something else for certain, that the declared type may not contain."""


def verdict(declared: str, data: bytes) -> Verdict:
    return judged(declared, sniff(data[:HEAD_BYTES]))


@pytest.mark.parametrize(("declared", "data"), RECOGNISED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_what_it_says_is_recognised(declared: str, data: bytes) -> None:
    assert verdict(declared, data) == Verdict(recognised=True)


@pytest.mark.parametrize(("declared", "data"), TAKEN, ids=lambda value: value if isinstance(value, str) else "")
def test_what_nobody_recognises_is_taken_and_not_trusted(declared: str, data: bytes) -> None:
    assert verdict(declared, data) == Verdict()


@pytest.mark.parametrize(("declared", "data"), LIES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_lie_is_told(declared: str, data: bytes) -> None:
    why = verdict(declared, data).contradiction
    assert why is not None
    assert declared in why


def test_the_detector_knows_what_the_rules_do_not() -> None:
    known = {
        TAR: "application/x-tar",
        RAR: "application/x-rar",
        DOCX: WORD,
        PNG: "image/png",
        b"hello": None,
        b"": None,
    }
    assert {data: sniff(data).detected for data in known} == {**known, DOCX: sniff(DOCX).detected}
    assert sniff(DOCX).detected in (WORD, "application/zip")


@given(st.binary(max_size=300), st.sampled_from(sorted(KINDS)))
def test_whatever_comes_is_judged(data: bytes, declared: str) -> None:
    judged(declared, sniff(data))


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


@pytest.mark.parametrize(("declared", "data"), RECOGNISED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_stored_compressed_is_looked_through(declared: str, data: bytes) -> None:
    stream = gzip.compress(data)
    found = looked_through(stream)
    assert found == replace(sniff(data[:HEAD_BYTES]), told_size=len(data))
    assert judged(declared, found) == Verdict(recognised=True)


HIDDEN: list[dict[str, int]] = [
    {"extra": 9000},
    {"extra": 65_535},
    {"name": 20_000},
    {"name": 500_000},
    {"empty_blocks": 3000},
    {"empty_blocks": 200_000},
    {"empty_members": 2000},
    {"empty_members": 50_000},
    {"extra": 65_535, "name": 65_535, "empty_blocks": 9000},
]


def looked_through(stream: bytes) -> Sniffed:
    """As the adapter does: first a little, then all that is ever read."""
    for most in (FIRST_OF_GZIP, GZIP_BYTES):
        found = sniff_gzip(stream[:most], stream[-4:], is_all=len(stream) <= most)
        if found is not None:
            return found
    raise AssertionError("at the limit there is an answer")


@pytest.mark.parametrize("how", HIDDEN, ids=str)
def test_what_a_stream_holds_is_found_wherever_it_begins(how: dict[str, int]) -> None:
    page = HTML.ljust(50_000)
    found = looked_through(gzip_stream(page, **how))
    assert found == replace(sniff(page[:HEAD_BYTES]), told_size=len(page))
    assert judged("text/csv", found).contradiction is not None


@pytest.mark.parametrize("how", [{"name": GZIP_BYTES}, {"empty_blocks": 210_000}, {"empty_members": 60_000}], ids=str)
def test_a_stream_that_hides_what_it_holds_to_the_limit_is_none(how: dict[str, int]) -> None:
    assert looked_through(gzip_stream(b"a;b\n" * 9000, **how)) == Sniffed()


@pytest.mark.parametrize("size", [1, HEAD_BYTES - 1, HEAD_BYTES, 3 * HEAD_BYTES, 2 * GZIP_BYTES])
def test_what_does_not_compress_is_known_from_the_first_read(size: int) -> None:
    data = random.Random(size).randbytes(size)
    stream = gzip.compress(data)
    found = sniff_gzip(stream[:FIRST_OF_GZIP], stream[-4:], is_all=len(stream) <= FIRST_OF_GZIP)
    assert found == replace(sniff(data[:HEAD_BYTES]), told_size=size)


def test_no_more_of_a_stream_is_decoded_than_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(b"\0" * (64 << 20))
    seen: list[int] = []

    def looked(head: bytes) -> Sniffed:
        seen.append(len(head))
        return Sniffed()

    monkeypatch.setattr("services.files.adapters.sniffing.sniff", looked)
    found = sniff_gzip(bomb[:HEAD_BYTES], bomb[-4:], is_all=False)
    assert found is not None
    assert found.told_size == 64 << 20
    assert seen == [HEAD_BYTES]


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_what_is_no_stream_is_told_and_never_raises(data: bytes, end: bytes) -> None:
    found = sniff_gzip(data, end)
    assert found is not None
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
