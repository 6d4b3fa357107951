"""What kind of phone a number is: who may be a party, and who may dial (contract 11)."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from broker.domain.areas import known
from broker.domain.phone import PhoneNumber

_MOBILE: Final = re.compile(r"[+]861[3-9][0-9]{9}")
_SERVICE: Final = re.compile(r"[+]86(?:400[0-9]{7}|95[0-9]{3,6})")
_LANDLINE: Final = re.compile(r"[+]86(10|2[0-9]|[3-9][0-9]{2})[0-9]{7,8}")
_MAINLAND: Final = "+86"


class Kind(StrEnum):
    """A number's kind."""

    MOBILE = "mobile"
    LANDLINE = "landline"
    SERVICE = "service"  # 400 and 95 numbers
    INTERNATIONAL = "international"  # of anywhere but the mainland: Hong Kong, Macao and Taiwan too
    SPECIAL = "special"  # of the mainland, and nobody's phone: short numbers, 800 numbers, area codes that are none


def kind_of(number: PhoneNumber) -> Kind:
    """Return the kind of ``number``."""
    e164 = number.reveal()
    if _MOBILE.fullmatch(e164):
        return Kind.MOBILE
    if not e164.startswith(_MAINLAND):
        return Kind.INTERNATIONAL
    if _SERVICE.fullmatch(e164):
        return Kind.SERVICE
    landline = _LANDLINE.fullmatch(e164)
    return Kind.LANDLINE if landline is not None and known(f"0{landline[1]}") else Kind.SPECIAL
