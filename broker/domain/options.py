"""What a line may have besides its parties: recording, call limits, SMS, tones, what is shown to whom."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Final

import orjson


@dataclass(frozen=True, slots=True)
class CallOptions:
    """Options of the calls through a line; what nobody asked for is None, and the platform's default holds.

    ``recording`` and ``sms`` switch on or off; ``max_call_minutes`` counts from the answer, 0 = no limit; the others
    name voice files: played before a recorded call, in the last minute of a limited one, to A and to B (or anybody
    else) who dial X. ``display``: ``caller`` shows A the real caller instead of X. ``callback_tone`` plays to A who
    dials X when nobody has called it, who has is remembered for ``callback_ttl_s``. ``peer_ttl_s``: lifetime of the Y
    numbers that the platform gives out by itself, 0 = as long as the line. ``relaxed``: where the platform picks X, any
    city will do.
    """

    recording: bool | None = None
    hint_tone: str | None = None
    max_call_minutes: int | None = None
    last_minute_tone: str | None = None
    sms: bool | None = None
    caller_tone: str | None = None
    callee_tone: str | None = None
    display: str | None = None
    callback_tone: str | None = None
    callback_ttl_s: int | None = None
    peer_ttl_s: int | None = None
    relaxed: bool | None = None

    def to_text(self) -> str | None:
        """Return the one text that stands for these options; None for :data:`DEFAULT`. Equal options, equal texts."""
        if self is DEFAULT:
            return None
        given = {name: value for name in _NAMES if (value := getattr(self, name)) is not None}
        return orjson.dumps(given, option=orjson.OPT_SORT_KEYS).decode() if given else None

    def flipped(self) -> CallOptions:
        """Return the same options seen from the other side, who calls A what is B here."""
        return replace(self, caller_tone=self.callee_tone, callee_tone=self.caller_tone)

    @classmethod
    def from_text(cls, text: str | None) -> CallOptions:
        """Return the options of :meth:`to_text`; a member of a later version is ignored."""
        if text is None:
            return DEFAULT
        given = orjson.loads(text)
        return cls(**{name: given[name] for name in _NAMES if name in given})


def modifiable(was: CallOptions, wanted: CallOptions) -> bool:
    """Say whether the options of a bound line can become ``wanted``; if not, the line must be bound anew.

    A platform takes the hint tone with the bind and never again. So the line keeps the tone it has, or drops it with
    recording off, where it plays for nobody; a new one is refused even then, as recording could be switched on later.
    """
    return wanted.hint_tone == was.hint_tone or (wanted.hint_tone is None and not wanted.recording)


_NAMES: Final = tuple(field.name for field in fields(CallOptions))
DEFAULT: Final = CallOptions()
