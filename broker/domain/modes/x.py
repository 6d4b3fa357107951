"""X: the platform keeps no binding and asks us at every call (contract 5.1).

A pool's routing says what is behind its X numbers: ``pair`` (two parties, as AXB) or ``one`` (one party, as AX).
"""

from __future__ import annotations

from typing import Final

from broker.domain.modes.mode import OURS, OURS_CHANGE, Allocation, Field, Mode

_CALLS: Final = {
    "direction": Field(),
    "display": Field("displayCalleeNum", "5.1"),
    "recording": Field("recordFlag, recordHintTone", "5.1"),
    "max_call_minutes": Field("maxDuration", "5.1"),
    "last_minute_tone": Field("lastMinVoice", "5.1"),
    "tones": Field("waitVoice", "5.1"),
}

X: Final = Mode(
    name="x",
    title="We route every call",
    allocation=Allocation.PAIR,
    binds=OURS
    | {
        "a": Field("calleeNum", "5.1"),
        "b": Field("calleeNum", "5.1"),
        "routing": Field(),
        "ttl_s": Field(),
        "policy": Field(),
        "share": Field(),
    }
    | _CALLS,
    changes=OURS_CHANGE | {"a": Field("calleeNum", "5.1"), "b": Field("calleeNum", "5.1"), "ttl_s": Field()} | _CALLS,
    refuses={"extension": "the platform collects no digits in this mode"},
    example={"a": "+8613900000001", "b": "+8613900000002", "routing": "pair", "ttl_s": 3600, "max_call_minutes": 30},
    platform_ttl=lambda ttl_s: ttl_s,
    has_callee=True,
    at_once=True,
)
