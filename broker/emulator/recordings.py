"""Recordings of calls: what is kept of each, for how long, and the sound that stands for it (contract 9.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from broker.domain.g711 import alaw
from broker.domain.wav import write_alaw

PATH: Final = "/recordings/"
"""Where the files are: on the wire's address, without authentication, as a storage's links are."""
KEPT_MS: Final = 7 * 86_400_000
_RATE: Final = 8_000
_LONGEST_S: Final = 30
#: A second of an even tone; what was said is nobody's business here.
_SECOND: Final = alaw(round(8_000 * math.sin(math.tau * 440 * at / _RATE)) for at in range(_RATE))


@dataclass(frozen=True, slots=True)
class Recording:
    """One file: ``name`` is its ``recordObjectName``."""

    name: str
    app_key: str
    session_id: str
    started_ms: int
    ended_ms: int

    @property
    def until_ms(self) -> int:
        """When it is deleted."""
        return self.ended_ms + KEPT_MS

    def wav(self) -> bytes:
        """Return an A-law file as long as the call, up to half a minute."""
        frames = min(self.ended_ms - self.started_ms, _LONGEST_S * 1000) * _RATE // 1000
        return write_alaw((_SECOND * (frames // _RATE + 1))[:frames], _RATE)


class Recordings:
    """The files there are, oldest first, never more than ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_name: dict[str, Recording] = {}

    def put(self, recording: Recording) -> None:
        """Keep a recording."""
        self._by_name[recording.name] = recording
        if len(self._by_name) > self._most:
            del self._by_name[next(iter(self._by_name))]

    def find(self, name: str, now_ms: int) -> Recording | None:
        """Return the file of this name while it lives."""
        recording = self._by_name.get(name)
        return recording if recording is not None and now_ms < recording.until_ms else None

    def live(self, now_ms: int) -> list[Recording]:
        """Return all files that live, oldest first."""
        return [recording for recording in self._by_name.values() if now_ms < recording.until_ms]
