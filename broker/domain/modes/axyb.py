"""AXYB: A is behind X, and each B gets a Y of its own; the platform picks both (contract 5.2)."""

from __future__ import annotations

from typing import Final

from broker.domain.modes.mode import OURS, OURS_CHANGE, Allocation, Field, Mode

AXYB: Final = Mode(
    name="axyb",
    title="Each side sees a number of its own",
    allocation=Allocation.PLATFORM,
    binds=OURS
    | {
        "a": Field("origNum", "5.2"),
        "area_code": Field("areaCode", "5.2"),
        "area_match": Field("areaMatchMode", "5.2"),
        "ttl_s": Field("duration", "5.2"),
        "direction": Field("callDirection", "5.2"),
        "recording": Field("recordFlag, recordHintTone", "5.2"),
        "tones": Field("preVoiceY, preVoiceX", "5.2"),
        "peer_ttl_s": Field("ybDuration", "5.2"),
    },
    # The wire has no modification: only what stays with us can change.
    changes=OURS_CHANGE,
    example={"a": "+8613900000001", "area_code": "0755", "area_match": "relaxed", "ttl_s": 86400, "peer_ttl_s": 7200},
    platform_ttl=lambda ttl_s: ttl_s,
    longest_ttl_s=7_776_000,
    endless=False,
    x_per_party=5,
)
