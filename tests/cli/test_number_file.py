from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence

import pytest
from openpyxl import Workbook

from broker.cli import number_file
from broker.cli.number_file import BadFile, read

_SHEET = "xl/worksheets/sheet1.xml"
_HEADER = ("number", "pool", "area_code", "carrier", "rent")


def book(*rows: Sequence[object]) -> bytes:
    """A workbook whose first sheet has these rows."""
    made = Workbook()
    sheet = made.active
    for row in rows:
        sheet.append(row)
    made.create_sheet("notes").append(["not read"])
    content = io.BytesIO()
    made.save(content)
    return content.getvalue()


def refusal(content: bytes) -> str:
    """Why a file is refused."""
    with pytest.raises(BadFile) as caught:
        read(io.BytesIO(content))
    return str(caught.value)


def with_member(content: bytes, name: str, text: bytes) -> bytes:
    """The workbook with one of its parts exchanged."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, text if member == name else old.read(member))
    return made.getvalue()


def test_a_workbook_reads_like_the_same_text() -> None:
    """The first sheet's cells as text, empty ones left out, a line without any kept in its place, none at the end."""
    rows = (
        _HEADER, ("+8617010000001", " north ", "010", None, 8.5), (None, None),
        ("+8617010000002", "north", None, "V", 12),
    )  # fmt: skip
    lines = read(io.BytesIO(book(*rows, ("", None), ())))
    assert lines == [
        {"number": "+8617010000001", "pool": "north", "area_code": "010", "rent": "8.5"}, {},
        {"number": "+8617010000002", "pool": "north", "carrier": "V", "rent": "12"},
    ]  # fmt: skip
    text = "number,pool,area_code,carrier,rent\n+8617010000001, north ,010,,8.5\n,\n+8617010000002,north,,V,12\n,,\n"
    assert read(io.BytesIO(text.encode())) == lines
    assert read(io.BytesIO(b"\xef\xbb\xbf" + text.encode())) == lines


def test_what_is_wrong_with_a_file_is_said() -> None:
    """Another header, more cells than columns, no lines, torn or foreign contents: one sentence each."""
    good = book(_HEADER[:2], ("+8617010000001", "north"))
    assert refusal(book(("phone", "pool"), ("1", "p"))).startswith("line 1: must name the columns")
    assert refusal(book((), ("1", "p"))).startswith("line 1: must name the columns")
    assert refusal(book(("number", "pool"), ("1", "p"), ("1", "p", "x"))) == (
        "line 3: has more columns than the first line"
    )
    assert refusal(book(("number", "pool"), ("1", "p", *[None] * 20, "x"))) == (
        "line 2: has more columns than the first line"
    )
    assert refusal(book(("number", "pool"))) == "the file has no numbers"
    for torn in (
        good[:200], good[:-30], b"PK\x03\x04",
        with_member(good, _SHEET, b"<worksheet><sheetData><row"),
        with_member(good, "xl/workbook.xml", b"\x00"), with_member(good, "[Content_Types].xml", b"<Types/>"),
    ):  # fmt: skip
        assert refusal(torn).startswith("the workbook cannot be read (")
    assert "nor an .xlsx workbook" in refusal(b"\xd0\xcf\x11\xe0")


def test_bombs_are_not_unpacked() -> None:
    """A file, its contents, parts or lines beyond the limit are refused; entities expand to nothing."""
    good = book(_HEADER[:2], ("+8617010000001", "north"))
    assert "over 16 MiB" in refusal(b"number,pool\n" + b"\n" * 2**24)
    zeros = with_member(good, _SHEET, bytes(2**26))
    assert len(zeros) < 2**20
    assert "unpacks to more than 64 MiB" in refusal(zeros)
    made = io.BytesIO(good)
    with zipfile.ZipFile(made, "a") as parts:
        for place in range(1001):
            parts.writestr(f"part{place}", b"")
    assert "unpacks to more" in refusal(made.getvalue())
    far = (
        b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData><row r="1">'
        b'<c r="A1" t="inlineStr"><is><t>number</t></is></c><c r="B1" t="inlineStr"><is><t>pool</t></is></c></row>'
        b'<row r="1048576"><c r="A1048576" t="inlineStr"><is><t>1</t></is></c></row></sheetData></worksheet>'
    )
    assert "more than 100,000 lines" in refusal(with_member(good, _SHEET, far))
    assert "more than 100,000 lines" in refusal(b"number,pool\n" + b"+861,p\n" * 100_001)
    laughs = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 12))
    sheet = b"<worksheet><sheetData><row><c><v>&l11;</v></c></row></sheetData></worksheet>"
    bomb = b'<!DOCTYPE x [<!ENTITY l0 "haha">%s]>' % laughs + sheet
    assert refusal(with_member(good, _SHEET, bomb)).startswith("the workbook cannot be")


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workbook on an installation without the extra: a sentence with the remedy; text needs nothing."""
    monkeypatch.setitem(__import__("sys").modules, "openpyxl", None)
    assert "binding-broker[xlsx]" in refusal(book(("number", "pool"), ("1", "p")))
    assert number_file.read(io.BytesIO(b"number,pool\n1,p\n")) == [{"number": "1", "pool": "p"}]
