"""X: nothing is bound; for each call the platform asks the customer where it goes (contract 5.1, 6.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from broker.emulator import fields as check
from broker.emulator.codes import Refusal
from broker.emulator.mode import Connection, Dial, Terms
from broker.emulator.options import MAX_CALL_MIN
from broker.emulator.release import NO_BINDING, NO_VOICE_FILE, NORMAL
from broker.emulator.settings import EmulatorSettings
from broker.emulator.tones import ToneRule

_USER_DATA_MAX: Final = 256


class X:
    """The rules of a reply to that event."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self._closed_state = settings.x_closed_state
        self._tones = ToneRule(settings)

    def connect(self, dial: Dial, reply: object) -> Connection:
        """Follow a reply; whatever is none, or breaks a rule, ends the call as if nothing were bound."""
        try:
            return self._follow(dial, reply)
        except Refusal:
            return Connection.refused(NO_BINDING)

    def _follow(self, dial: Dial, reply: object) -> Connection:
        match reply:
            case {"operation": "connect", "connectInfo": info}:
                return self._connect(dial, _only(info))
            case {"operation": "close", "closeInfo": info}:
                return self._close(dial, _only(info))
            case _:
                return Connection.refused(NO_BINDING)

    def _connect(self, dial: Dial, info: Mapping[str, Any]) -> Connection:
        callee = check.phone(info, "calleeNum")
        shown = check.phone(info, "displayCalleeNum") or dial.x
        terms = Terms(
            max_minutes=check.integer(info, "maxDuration", 0, MAX_CALL_MIN) or 0,
            recorded=check.flag(info, "recordFlag") == "true",
            user_data=_user_data(info),
        )
        if callee is None:
            raise check.bad("calleeNum")
        if not self._has_files(dial, info, "waitVoice", "recordHintTone", "lastMinVoice"):
            return Connection.refused(NO_VOICE_FILE)
        return Connection(callee, shown, NORMAL, terms=terms)

    def _close(self, dial: Dial, info: Mapping[str, Any]) -> Connection:
        _user_data(info)
        return Connection.refused(self._closed_state if self._has_files(dial, info, "closeHintTone") else NO_VOICE_FILE)

    def _has_files(self, dial: Dial, info: Mapping[str, Any], *names: str) -> bool:
        files = (check.voice_file(info, name) for name in names)
        return all(self._tones.knows(dial.app, file) for file in files if file)


def _only(info: object) -> Mapping[str, Any]:
    """Return an object, or the one object of an array: the table has the one, the samples the other."""
    found = info[0] if isinstance(info, list) and len(info) == 1 else info
    if not isinstance(found, dict):
        raise check.bad("operation")
    return found


def _user_data(info: Mapping[str, Any]) -> str | None:
    """Return String(0-256); the empty one is as good as none."""
    return None if info.get("userData") == "" else check.user_data(info)
