"""What a binding carries without any rule depending on it, where modes have it in common (contract 10)."""

from __future__ import annotations

from typing import Any, Final

from broker.emulator import fields as check

MAX_CALL_MIN: Final = 1_440
_NAMES: Final = frozenset({"recordFlag", "recordHintTone", "lastMinVoice", "privateSms", "preVoice"})


def options(fields: check.Fields) -> dict[str, Any]:
    """Return the options that were given, by their names on the wire."""
    if fields.keys().isdisjoint(_NAMES):
        return {}
    given = {
        "recordFlag": check.flag(fields, "recordFlag"),
        "recordHintTone": check.voice_file(fields, "recordHintTone"),
        "lastMinVoice": check.voice_file(fields, "lastMinVoice"),
        "privateSms": check.flag(fields, "privateSms"),
        "preVoice": check.voices(fields, "preVoice", "callerHintTone", "calleeHintTone"),
    }
    return {name: value for name, value in given.items() if value is not None}
