"""Makes broker/domain/areas.json from the geocoder of the ``phonenumbers`` library: ``scripts/areas``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from phonenumbers import PhoneNumber, PhoneNumberType, geocoder, number_type

FILE: Final = Path(__file__).parents[1] / "broker" / "domain" / "areas.json"
_CHINA: Final = 86
_SUBSCRIBERS: Final = ("5551234", "55512345")
#: Two digits (with the 0 left out) of the old centres, three of everywhere else.
_CODES: Final = ("10", *map(str, range(20, 30)), *map(str, range(300, 1000)))


def table() -> str:
    """Return the text of the file: domestic area code to city and province, a line each."""
    places = {f"0{code}": place for code in _CODES if (place := _place(code)) is not None}
    lines = (f"  {json.dumps(code)}: {json.dumps(place)}" for code, place in sorted(places.items()))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _place(code: str) -> dict[str, str] | None:
    """Return where ``code`` is; ``None`` where no line is possible, or nothing is known beyond the country."""
    for subscriber in _SUBSCRIBERS:
        number = PhoneNumber(country_code=_CHINA, national_number=int(code + subscriber))
        if number_type(number) != PhoneNumberType.FIXED_LINE:
            continue
        described = geocoder.description_for_valid_number(number, "en")
        city, _, province = described.rpartition(", ")
        if described != geocoder.country_name_for_number(number, "en"):
            return {"city": city or province, "province": province}
    return None


if __name__ == "__main__":
    FILE.write_text(table(), encoding="ascii")
