"""Voice files: a request may name only those that were approved in the console (contract 9.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from broker.emulator.fields import bad
from broker.emulator.registry import App
from broker.emulator.settings import EmulatorSettings

Extras = Mapping[str, Any]
_SINGLE: Final = ("recordHintTone", "lastMinVoice", "callbackTone", "preVoiceX", "preVoiceY")


class ToneRule:
    """Which voice files a request may name."""

    def __init__(self, settings: EmulatorSettings) -> None:
        self._known_to_all = frozenset(settings.known_tones)
        self._idle_too = settings.idle_tones_checked

    def knows(self, app: App, file: str) -> bool:
        """Tell whether a file was approved."""
        return file in app.tones or file in self._known_to_all

    def admit(self, app: App, given: Extras | None, *, extras: Extras | None, max_duration: int) -> None:
        """Refuse, with 1010002 and the parameter's name, a given file that was not approved.

        ``extras`` and ``max_duration`` are what the binding would have: they tell whether a file would be played.
        """
        for parameter, file in _named(given or {}):
            if self.knows(app, file):
                continue
            if self._idle_too or _is_played(parameter, extras or {}, max_duration):
                raise bad(parameter)


def _named(given: Extras) -> Iterator[tuple[str, str]]:
    """Yield the parameters that name a file; an empty name is as good as none (2.1)."""
    files = {name: given.get(name) for name in _SINGLE}
    files |= {f"preVoice.{name}": file for name, file in given.get("preVoice", {}).items()}
    return ((parameter, file) for parameter, file in files.items() if file)


def _is_played(parameter: str, extras: Extras, max_duration: int) -> bool:
    match parameter:
        case "recordHintTone":
            return extras.get("recordFlag") == "true"
        case "lastMinVoice":
            return max_duration > 0
        case _:
            return True
