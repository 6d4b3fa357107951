"""What kind of number a phone is, and the province of a city code (contract 2.6, 11)."""

from __future__ import annotations

import re
from typing import Final

from broker.domain.areas import province

__all__ = ["is_landline", "is_service_number", "landline_area", "province"]

_MOBILE: Final = re.compile(r"\+861[3-9]\d{9}")
_LANDLINE: Final = re.compile(r"\+86(10|2\d|[3-9]\d{2})\d{7,8}")
_SERVICE: Final = re.compile(r"\+86(?:400\d{7}|95\d{3,6})")


def is_landline(number: str) -> bool:
    """Say whether ``number`` is a fixed line of the mainland; those may be called but may not dial X."""
    return _LANDLINE.fullmatch(number) is not None and not _MOBILE.fullmatch(number)


def landline_area(number: str) -> str | None:
    """Return the domestic area code of a landline, ``None`` for any other number."""
    match = _LANDLINE.fullmatch(number)
    return "0" + match[1] if match and not _MOBILE.fullmatch(number) else None


def is_service_number(number: str) -> bool:
    """Say whether ``number`` is a 400 or 95 number, which cannot be bound."""
    return _SERVICE.fullmatch(number) is not None
