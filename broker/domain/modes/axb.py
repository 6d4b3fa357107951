"""AXB: A and B both dial X, each sees X (contract 2)."""

from __future__ import annotations

from typing import Final

from broker.domain.modes.mode import OURS, OURS_CHANGE, Allocation, Field, Mode

#: Longest lifetime that the platform takes.
_LONGEST_S: Final = 7_776_000

_CALLS: Final = {
    "direction": Field("callDirection", "2.1"),
    "recording": Field("recordFlag, recordHintTone", "2.1"),
    "max_call_minutes": Field("maxDuration", "2.1"),
    "last_minute_tone": Field("lastMinVoice", "2.1"),
    "sms": Field("privateSms", "2.1"),
    "tones": Field("preVoice.callerHintTone, preVoice.calleeHintTone", "2.1"),
}

AXB: Final = Mode(
    name="axb",
    title="Two parties behind one X",
    allocation=Allocation.PAIR,
    needs=frozenset({"a", "b"}),
    binds=OURS
    | {
        "a": Field("callerNum", "2.1"),
        "b": Field("calleeNum", "2.1"),
        "ttl_s": Field("duration", "2.1"),
        "policy": Field(),
        "share": Field(),
    }
    | _CALLS,
    changes=OURS_CHANGE
    | {"a": Field("callerNum", "2.3"), "b": Field("calleeNum", "2.3"), "ttl_s": Field("duration", "2.3")}
    | _CALLS,
    example={"a": "+8613900000001", "b": "+8613900000002", "area_code": "0755", "ttl_s": 3600, "order_id": "order-1"},
    platform_ttl=lambda ttl_s: min(ttl_s, _LONGEST_S),
    hint_tone_fixed=True,
)
