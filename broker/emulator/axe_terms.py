"""What an AXE request says about its extension, its lifetimes and its callback (contract 4.1, 4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from broker.emulator import fields as check

HOUR_S: Final = 3_600
MINUTE_S: Final = 60
MAX_S: Final = 720 * HOUR_S
_UNIT_S: Final = {"0": HOUR_S, "1": MINUTE_S}


@dataclass(frozen=True, slots=True)
class Times:
    """The lifetimes a request gives, in seconds and as it wrote them; ``None`` is absent."""

    unit: str
    bind_s: int | None
    callback_s: int | None

    def shown(self, seconds: int) -> int:
        """Return ``seconds`` in the request's unit."""
        return seconds // _UNIT_S[self.unit]


def extension(fields: check.Fields, digits: int) -> str | None:
    """Return the wanted extension: as many digits as the app has, not all zero; empty is none."""
    value = fields.get("extendNum")
    wanted = check.text({"extendNum": str(value) if type(value) is int else value}, "extendNum", 0, 4)
    if not wanted:
        return None
    if not (wanted.isascii() and wanted.isdigit() and len(wanted) == digits and wanted.strip("0")):
        raise check.bad("extendNum")
    return wanted


def times(fields: check.Fields) -> Times:
    """Return the lifetimes in seconds; without ``timeUnit`` they are hours, in a modification too."""
    unit = check.lenient_choice(fields, "timeUnit", "0", "1") or "0"
    unit_s = _UNIT_S[unit]
    bind = check.lenient_integer(fields, "bindExpiredTime", 0, MAX_S // unit_s)
    callback = check.lenient_integer(fields, "callbackExpiredTime", 0, MAX_S // unit_s)
    return Times(unit, None if bind is None else bind * unit_s, None if callback is None else callback * unit_s)


def admit_times(bind_s: int, callback_s: int) -> None:
    """Refuse callback records that would outlive their binding; 0, without end, is not measured (4.1)."""
    if bind_s and callback_s > bind_s:
        raise check.bad("callbackExpiredTime")


def options(fields: check.Fields) -> dict[str, Any]:
    """Return what was given of the fields that hold no time, by their names on the wire."""
    given = {
        "displayNumMode": check.lenient_choice(fields, "displayNumMode", "0", "1"),
        "recordFlag": check.flag(fields, "recordFlag"),
        "recordHintTone": _tone(fields, "recordHintTone"),
        "callbackTone": _tone(fields, "callbackTone"),
        "callbackNum": check.phone(fields, "callbackNum"),
    }
    if given["callbackTone"] is not None and given["callbackNum"] is not None:
        raise check.bad("callbackNum")
    return {name: value for name, value in given.items() if value is not None}


def _tone(fields: check.Fields, name: str) -> str | None:
    file = check.voice_file(fields, name)
    if file == "":
        raise check.bad(name)
    return file
