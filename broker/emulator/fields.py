"""Checks of body fields and query parameters; each refusal is 1010002 and names the parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from broker.emulator.areas import is_service_number
from broker.emulator.codes import INVALID_REQUEST, Refusal

Fields = Mapping[str, Any]

_E164: Final = re.compile(r"\+[1-9]\d{2,29}", re.ASCII)
_AREA: Final = re.compile(r"0\d{2,3}", re.ASCII)
_VOICE_FILE: Final = re.compile(r"[0-9A-Za-z\-_.@]{0,128}")
_BARRED_ASCII: Final = re.compile(r"[{}]")
_BARRED: Final = re.compile(
    "[{}\u2e80-\u2fdf\u3000-\u303f\u3100-\u312f\u31a0-\u31ef\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef"
    "\U00020000-\U0003ffff]"
)
_MAX_PARAMETERS: Final = 32


def bad(parameter: str) -> Refusal:
    """Return the refusal that blames ``parameter``."""
    return Refusal(INVALID_REQUEST, parameter=parameter)


def body_fields(body: bytes | None) -> dict[str, Any]:
    """Parse a JSON object; ``None`` stands for a body over the cap."""
    if body is None:
        raise bad("body")
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise bad("body") from None
    if not isinstance(fields, dict):
        raise bad("body")
    return fields


def query_fields(query: str) -> dict[str, str]:
    """Parse a query string; of a repeated parameter the first counts, a bare ``+`` is a blank as in any form."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise bad("query") from None
    return dict(reversed(pairs))


def text(fields: Fields, name: str, low: int, high: int) -> str | None:
    """Return a string of ``low`` to ``high`` characters, ``None`` when absent."""
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not str or not low <= len(value) <= high:
        raise bad(name)
    return value


def phone(fields: Fields, name: str) -> str | None:
    """Return an E.164 number, String(4-31)."""
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not str or not _E164.fullmatch(value):
        raise bad(name)
    return value


def is_number(value: str) -> bool:
    """Tell whether a text is an E.164 number."""
    return _E164.fullmatch(value) is not None


def party(fields: Fields, name: str) -> str | None:
    """Return a number that can be bound: any but 400 and 95 numbers (11)."""
    number = phone(fields, name)
    if number is not None and is_service_number(number):
        raise bad(name)
    return number


def integer(fields: Fields, name: str, low: int, high: int) -> int | None:
    """Return a JSON integer between ``low`` and ``high``; neither a string nor a boolean is one."""
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise bad(name)
    return value


def flag(fields: Fields, name: str) -> str | None:
    """Return ``"true"`` or ``"false"``; samples of different years send the string or the boolean."""
    value = fields.get(name)
    if value is None:
        return None
    if value is True or value == "true":
        return "true"
    if value is False or value == "false":
        return "false"
    raise bad(name)


def area(fields: Fields, name: str) -> str | None:
    """Return a city code in domestic form, ``0755``."""
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not str or not _AREA.fullmatch(value):
        raise bad(name)
    return value


def choice(fields: Fields, name: str, *allowed: str) -> str | None:
    """Return one of the ``allowed`` strings."""
    value = fields.get(name)
    if value is not None and (type(value) is not str or value not in allowed):
        raise bad(name)
    return value


def lenient_integer(fields: Fields, name: str, low: int, high: int) -> int | None:
    """Return an integer that may come as text (4.1: the platform coerces)."""
    value = fields.get(name)
    if type(value) is str and value.isascii() and value.isdigit() and len(value) < 10:  # noqa: PLR2004
        value = int(value)
    return integer({name: value}, name, low, high)


def lenient_choice(fields: Fields, name: str, *allowed: str) -> str | None:
    """Return one of the ``allowed`` strings, which may come as a number (4.1: the platform coerces)."""
    value = fields.get(name)
    return choice({name: str(value) if type(value) is int else value}, name, *allowed)


def voice_file(fields: Fields, name: str) -> str | None:
    """Return a voice file's name, String(0-128) of digits, letters and ``- _ . @``."""
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not str or not _VOICE_FILE.fullmatch(value):
        raise bad(name)
    return value


def is_voice_file(name: str) -> bool:
    """Tell whether a voice file can have this name."""
    return name != "" and _VOICE_FILE.fullmatch(name) is not None


def voices(fields: Fields, name: str, *parts: str) -> dict[str, str] | None:
    """Return an ApiPlayInfo: an object of voice files."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise bad(name)
    try:
        return {part: file for part in parts if (file := voice_file(value, part)) is not None}
    except Refusal as refusal:
        raise bad(f"{name}.{refusal.parameter}") from None


def user_data(fields: Fields, name: str = "userData", *, caret: bool = True) -> str | None:
    """Return String(1-256) without ``{``, ``}`` and Chinese; without ``caret`` not with ``^`` either."""
    value = text(fields, name, 1, 256)
    if value is None:
        return None
    if (_BARRED_ASCII if value.isascii() else _BARRED).search(value) or (not caret and "^" in value):
        raise bad(name)
    return value
