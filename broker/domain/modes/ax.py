"""AX: anybody dials X and reaches A; A dials X and reaches a temporary callee (contract 3)."""

from __future__ import annotations

from typing import Final

from broker.domain.modes.mode import OURS, OURS_CHANGE, Allocation, Field, Mode

_CALLS: Final = {
    "direction": Field("callDirection", "3.1"),
    "display": Field("calleeNumDisplay", "3.1"),
    "recording": Field("recordFlag, recordHintTone", "3.1"),
    "max_call_minutes": Field("maxDuration", "3.1"),
    "last_minute_tone": Field("lastMinVoice", "3.1"),
    "sms": Field("privateSms", "3.1"),
    "tones": Field("preVoice.callerHintTone, preVoice.calleeHintTone", "3.1"),
}

AX: Final = Mode(
    name="ax",
    title="One party behind a whole X",
    allocation=Allocation.PLACE,
    binds=OURS | {"a": Field("origNum", "3.1"), "ttl_s": Field()} | _CALLS,
    changes=OURS_CHANGE | {"a": Field("origNum", "3.3"), "ttl_s": Field()} | _CALLS,
    example={"a": "+8613900000001", "area_code": "0755", "ttl_s": 0, "display": "x", "order_id": "shop-1"},
    platform_ttl=lambda _: 0,  # the platform's AX bindings never expire: we end them
    x_per_party=5,
    has_callee=True,
)
