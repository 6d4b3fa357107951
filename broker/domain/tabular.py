"""Calls, records and messages as lines of CSV (RFC 4180) or NDJSON. Pure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

Format = Literal["csv", "ndjson"]

_FORMULA: Final = ("=", "@", "+", "-", "\t", "\r", "\n")
#: A phone, masked or not, is what it looks like.
_PHONE: Final = re.compile(r"\+[0-9*]+")

_WHOSE: Final = ("bindings", "found_by", "x")
_CALL: Final = (
    "id", "session_id", "state", *_WHOSE, "extension", "caller", "callee", "started_at", "ringing_at", "answered_at",
    "ended_at", "state_code", "reason", "released_by",
)  # fmt: skip
_CDR: Final = (
    "id", "call", "session_id", *_WHOSE, "extension", "direction", "caller", "callee", "at", "call_in_at", "forward_at",
    "ringing_at", "answered_at", "ended_at", "talk_s", "release_code", "q850", "sip", "reason", "released_by",
    "recording.file_name", "recording.record_domain", "recording.at",
)  # fmt: skip
_SMS: Final = ("id", *_WHOSE, "direction", "sender", "receiver", "at", "result", "reason", "segments", "content")
#: The columns of CSV by table; a dot leads into a part. NDJSON has all there is.
COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {"call": _CALL, "cdr": _CDR, "sms": _SMS}


def head(table: str, form: Format) -> bytes:
    """Return the line before all others; none for NDJSON."""
    return _line(COLUMNS[table]) if form == "csv" else b""


def lines(table: str, form: Format, items: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a line for each item."""
    if form == "ndjson":
        return b"".join(orjson.dumps(item, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE) for item in items)
    return b"".join(_line([_cell(item, name) for name in COLUMNS[table]]) for item in items)


def _cell(item: Mapping[str, Any], name: str) -> str:
    value: Any = item
    for part in name.split("."):
        value = value.get(part) if value is not None else None
    match value:
        case None:
            return ""
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case list():
            return " ".join(map(str, value))
        case str() if value.startswith(_FORMULA) and _PHONE.fullmatch(value) is None:
            # What a stranger wrote must not become a formula where the file is opened.
            return "'" + value
        case _:
            return str(value)


def _line(cells: Sequence[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)
    return text.getvalue().encode()
