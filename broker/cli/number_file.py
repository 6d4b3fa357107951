"""Files of numbers: CSV text, or a workbook's first sheet. The first line names the columns."""

from __future__ import annotations

import csv
import io
import sys
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

import click

_NEEDED = ("number", "pool")
_COLUMNS = (*_NEEDED, "area_code", "carrier", "rent")

#: A pool holds 100,000 numbers; a line of all columns has less than 160 characters.
_FILE_BYTES = 16 * 1024 * 1024
_LINES = 100_000
#: A workbook is a zip file: what it unpacks to, by its own account, beyond which nothing is unpacked.
_UNPACKED_BYTES = 64 * 1024 * 1024
_MEMBERS = 1000
_WIDTH = 32
_ZIP = b"PK\x03\x04"


class BadFile(Exception):
    """The file cannot be read as numbers; the message says where and why."""


def read(file: BinaryIO) -> list[dict[str, str]]:
    """Return the lines below the first, in the file's order: what stands in which column, empty cells left out.

    Raises:
        BadFile: it is no such file, or over a limit.
    """
    content = file.read(_FILE_BYTES + 1)
    if len(content) > _FILE_BYTES:
        raise BadFile(f"the file is over {_FILE_BYTES // 2**20} MiB")
    rows, length = _workbook(content) if content.startswith(_ZIP) else _text(content)
    return _lines(rows, length)


def _lines(rows: Iterator[list[str]], length: int) -> list[dict[str, str]]:
    header = next(rows, [])
    while header and not header[-1]:
        header.pop()
    _check(header)
    lines: list[dict[str, str]] = []
    for cells in _with_progress(rows, length):
        if any(cells[len(header) :]):
            raise BadFile(f"line {len(lines) + 2}: has more columns than the first line")
        # A line without any value is kept, to be named as wrong in its place.
        lines.append({name: cell for name, cell in zip(header, cells, strict=False) if cell})
        if len(lines) > _LINES:
            raise BadFile(f"the file has more than {_LINES:,} lines")
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise BadFile("the file has no numbers")
    return lines


def _check(header: list[str]) -> None:
    unknown = [name for name in header if name not in _COLUMNS]
    missing = [name for name in _NEEDED if name not in header]
    if unknown or missing or len(set(header)) != len(header):
        raise BadFile("line 1: must name the columns number, pool[, area_code, carrier, rent], each once")


def _with_progress(rows: Iterable[list[str]], length: int) -> Iterator[list[str]]:
    if not sys.stderr.isatty():
        yield from rows
        return
    with click.progressbar(rows, length=length, label="Reading", file=sys.stderr) as shown:
        yield from shown


# -- CSV ---------------------------------------------------------------------------------------------------------------


def _text(content: bytes) -> tuple[Iterator[list[str]], int]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadFile("the file is neither UTF-8 text nor an .xlsx workbook") from None
    return _text_rows(text), text.count("\n")


def _text_rows(text: str) -> Iterator[list[str]]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in rows:
            yield [cell.strip() for cell in row]
    except csv.Error as error:
        raise BadFile(f"line {rows.line_num}: {error}") from None


# -- xlsx --------------------------------------------------------------------------------------------------------------


def _workbook(content: bytes) -> tuple[Iterator[list[str]], int]:
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise BadFile("for workbooks install the extra: pip install 'binding-broker[xlsx]'; or save as CSV") from None
    # What it has to say of styles and validations is nothing to the person who imports numbers.
    warnings.filterwarnings("ignore", module="openpyxl")
    _weigh(content)
    try:
        book = load_workbook(io.BytesIO(content), read_only=True, data_only=True, keep_links=False)
        sheet = book.worksheets[0]
        length = int(sheet.max_row or 0)
    except Exception as error:  # noqa: BLE001 - the library meets a broken file with whatever its parts raise
        raise _torn(error) from None
    return _sheet_rows(sheet), min(length, _LINES)


def _weigh(content: bytes) -> None:
    """Look at the table of contents before anything is unpacked; reading a member ends at the size stated there."""
    try:
        members = zipfile.ZipFile(io.BytesIO(content)).infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        raise _torn(error) from None
    if len(members) > _MEMBERS or sum(member.file_size for member in members) > _UNPACKED_BYTES:
        raise BadFile(f"the workbook unpacks to more than {_UNPACKED_BYTES // 2**20} MiB")


def _sheet_rows(sheet: Any) -> Iterator[list[str]]:
    try:
        # One line more than may be, so that a file beyond the limit is told from one within. What lies further to the
        # right is not looked at: a sheet has room for 16,384 columns.
        for row in sheet.iter_rows(max_row=_LINES + 2, max_col=_WIDTH, values_only=True):
            cells = ["" if value is None else str(value).strip() for value in row]
            while cells and not cells[-1]:
                cells.pop()
            yield cells
    except Exception as error:  # noqa: BLE001 - the same
        raise _torn(error) from None


def _torn(error: Exception) -> BadFile:
    return BadFile(f"the workbook cannot be read ({type(error).__name__})")
