"""City codes: which province a domestic area code belongs to, and what kind of number a phone is (contract 2.6, 11)."""

from __future__ import annotations

import re
from typing import Final

_MOBILE: Final = re.compile(r"\+861[3-9]\d{9}")
_LANDLINE: Final = re.compile(r"\+86(10|2\d|[3-9]\d{2})\d{7,8}")
_SERVICE: Final = re.compile(r"\+86(?:400\d{7}|95\d{3,6})")

#: Provinces by the first digits of the area code, longest prefix first where a province shares a decade.
_PROVINCES: Final[dict[str, tuple[str, ...]]] = {
    "Beijing": ("010",),
    "Shanghai": ("021",),
    "Tianjin": ("022",),
    "Chongqing": ("023",),
    "Guangdong": ("020", "066", "075", "076"),
    "Liaoning": ("024", "041", "042"),
    "Jiangsu": ("025", "051", "052"),
    "Hubei": ("027", "071", "072"),
    "Sichuan": ("028", "081", "082", "083"),
    "Shaanxi": ("029", "091"),
    "Hebei": ("031", "033"),
    "Shanxi": ("0349", "035"),
    "Henan": ("037", "039"),
    "Jilin": ("043", "044"),
    "Heilongjiang": ("045", "046"),
    "Inner Mongolia": ("047", "048"),
    "Shandong": ("053", "054", "063"),
    "Anhui": ("055", "056"),
    "Zhejiang": ("057", "058"),
    "Fujian": ("059",),
    "Yunnan": ("069", "087", "088"),
    "Jiangxi": ("070", "079"),
    "Hunan": ("073", "074"),
    "Guangxi": ("077",),
    "Guizhou": ("085",),
    "Hainan": ("0898", "0899"),
    "Tibet": ("089",),
    "Gansu": ("093", "094"),
    "Ningxia": ("095",),
    "Qinghai": ("097",),
    "Xinjiang": ("090", "099"),
}
_BY_PREFIX: Final = {prefix: province for province, prefixes in _PROVINCES.items() for prefix in prefixes}


def province(area_code: str) -> str | None:
    """Return the province of ``area_code`` (``0755``), ``None`` for a code of no province."""
    return _BY_PREFIX.get(area_code[:4]) or _BY_PREFIX.get(area_code[:3])


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
