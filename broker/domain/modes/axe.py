"""AXE: others dial X and an extension and reach A; A dials X and reaches whoever called last (contract 4)."""

from __future__ import annotations

from typing import Final

from broker.domain.modes.mode import OURS, OURS_CHANGE, Allocation, Field, Mode

#: Longest lifetime that the platform takes: 720 hours.
_LONGEST_S: Final = 2_592_000

_CALLS: Final = {
    "display": Field("displayNumMode", "4.1"),
    "recording": Field("recordFlag, recordHintTone", "4.1"),
    "callback": Field("callbackNum, callbackTone, callbackExpiredTime", "4.1"),
}

AXE: Final = Mode(
    name="axe",
    title="One party behind an extension of an X",
    allocation=Allocation.PLACE,
    binds=OURS
    | {
        "a": Field("bindNum", "4.1"),
        "extension": Field("extendNum", "4.1"),
        "ttl_s": Field("timeUnit, bindExpiredTime", "4.1"),
    }
    | _CALLS,
    changes=OURS_CHANGE
    | {
        "a": Field("bindNum", "4.1, by binding the same X and extension anew"),
        "ttl_s": Field("timeUnit, bindExpiredTime", "4.3"),
    }
    | _CALLS,
    example={
        "a": "+8613900000001",
        "area_code": "0755",
        "ttl_s": 86400,
        "extension": "0042",
        "callback": {"number": "+8613900000009", "ttl_s": 3600},
    },
    # Whole minutes, rounded up: the platform must not end it before we do.
    platform_ttl=lambda ttl_s: min(-(-ttl_s // 60) * 60, _LONGEST_S),
    rebinds=frozenset({"a"}),
    keeps=frozenset({"callback", "recording.hint_tone"}),
)
