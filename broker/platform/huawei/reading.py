"""Lenient reading of the platform's answers (contract 1.5).

Reading never raises: a field that is missing, mistyped or unprintable is absent, and what an absent field means is
decided towards doubt, so that no answer is taken for more than it says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from broker.platform.protocol import Direction, PlatformLine

_DIRECTION: Final = {0: Direction.BOTH, 1: Direction.A_TO_B, 2: Direction.B_TO_A}
_LONG_DIGITS: Final = re.compile(r"\d{7,}")
_CODE: Final = re.compile(r"[0-9A-Za-z_.-]{1,32}")
_DETAIL_CHARS: Final = 200
_ADDRESS_CHARS: Final = 4096
_PADDING: Final = b"\xef\xbb\xbf\x00 \t\r\n"

Fields = Mapping[str, Any]


def read_object(body: bytes) -> Fields | None:
    """Return the JSON object in ``body``, or ``None``: a BOM, padding around it and broken UTF-8 in it are forgiven."""
    found = _parse(body)
    if found is None:
        trimmed = body.strip(_PADDING)
        found = _parse(trimmed[max(trimmed.find(b"{"), 0) : trimmed.rfind(b"}") + 1].decode(errors="replace"))
    return found if isinstance(found, dict) else None


def _parse(text: bytes | str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def read_code(fields: Fields) -> str | None:
    """Return ``resultcode`` as text, or ``None`` when it is no code."""
    code = read_text(fields, "resultcode").strip()
    return code if _CODE.fullmatch(code) else None


def read_detail(fields: Fields) -> str:
    """Return ``resultdesc`` fit for records, or ``""``."""
    said = fields.get("resultdesc")
    return scrub(said) if isinstance(said, str) else ""


def read_text(fields: Fields, name: str) -> str:
    """Return a printable text; numbers become text, anything else is ``""``."""
    value = fields.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.isprintable() else ""


def read_count(fields: Fields, name: str) -> int | None:
    """Return a count that may come as a number or as text, or ``None``."""
    text = read_text(fields, name).strip()
    return int(text) if len(text) < 19 and text.isascii() and text.isdigit() else None  # noqa: PLR2004 - fits bigint


def read_direction(fields: Fields) -> Direction | None:
    """Return who may call whom, or ``None`` when it is not said."""
    count = read_count(fields, "callDirection")
    return None if count is None else _DIRECTION.get(count)


def read_list(elements: object, read: Callable[[Fields], PlatformLine | None]) -> tuple[PlatformLine, ...] | None:
    """Return the elements of a query's list, or ``None`` when there is no list or any element is no binding.

    Skipping a bad element would make a binding look absent, and absence is what a query is asked to prove.
    """
    if not isinstance(elements, list):
        return None
    found = [read(element) if isinstance(element, dict) else None for element in elements]
    kept = tuple(line for line in found if line is not None)
    return kept if len(kept) == len(found) else None


def read_address(text: str) -> str:
    """Return a ``Location`` that is an address to fetch something from, or ``""``."""
    try:
        url = urlsplit(text)
    except ValueError:
        return ""
    fit = url.scheme in {"http", "https"} and url.netloc and text.isascii() and text.isprintable() and " " not in text
    return text if fit and len(text) <= _ADDRESS_CHARS else ""


def scrub(text: str) -> str:
    """Return ``text`` fit for records: one line, bounded, and no run of digits that could be a phone number."""
    line = text[: _DETAIL_CHARS * 4]
    if not line.isprintable():
        line = "".join(char if char.isprintable() else " " for char in line)
    return _LONG_DIGITS.sub("…", line)[:_DETAIL_CHARS]
