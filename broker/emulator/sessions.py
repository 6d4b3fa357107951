"""Connected calls: each is up until a party, the app, or its longest duration ends it (contract 8.1, 9.2, 12)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from broker.emulator.mode import Connection, Dial, Terms
from broker.emulator.recordings import Recording
from broker.emulator.release import NORMAL, TIME_IS_UP
from broker.emulator.times import EmulatorClock

_SHORTEST_RECORDED_MS: Final = 3_000
#: Who ends a call (``callRelDirection``, contract 6.4).
PLATFORM: Final = 0
CALLER: Final = 1
CALLEE: Final = 2


@dataclass(slots=True)
class Session:
    """One connected call; ``ended_ms`` and ``state_code`` are set when it is over."""

    serial: int
    session_id: str
    app_key: str
    caller: str
    dialled: str
    connected_to: str
    shown: str | None
    started_ms: int
    terms: Terms
    ended_ms: int | None = None
    state_code: int | None = None
    recording: str | None = None
    released_by: int = PLATFORM

    @property
    def limit_ms(self) -> int | None:
        """When its longest duration is reached."""
        return self.started_ms + self.terms.max_minutes * 60_000 if self.terms.max_minutes else None


class Sessions:
    """The calls of an emulator. They are not durable: a restart cuts them all off, and what was recorded is lost.

    ``keep`` is given the recording of each call that leaves one, ``on_end`` each call that has ended.
    """

    def __init__(self, clock: EmulatorClock, most: int, keep: Callable[[Recording], None]) -> None:
        self._clock = clock
        self._most = most
        self._keep = keep
        self._ids = 0
        self._serial = 0
        self._by_id: dict[str, Session] = {}
        self.on_end: Callable[[Session], None] = lambda _: None

    def new_id(self) -> str:
        """Return a session id of the platform's form (6.4)."""
        self._ids += 1
        stamp = _compact(self._clock.now_ms())
        return f"1200_{self._ids}_{secrets.randbits(32)}_{stamp}@emulator"

    def open(self, session_id: str, dial: Dial, connection: Connection) -> Session:
        """Note that a call was answered; with too many, the oldest is hung up and forgotten."""
        self._serial += 1
        opened = self._by_id[session_id] = Session(
            serial=self._serial,
            session_id=session_id,
            app_key=dial.app.config.app_key,
            caller=dial.caller,
            dialled=dial.x,
            connected_to=connection.connected_to or "",
            shown=connection.shown,
            started_ms=self._clock.now_ms(),
            terms=connection.terms,
        )
        if len(self._by_id) > self._most:
            oldest = next(iter(self._by_id))
            self.hang_up(oldest)
            del self._by_id[oldest]
        return opened

    def live(self, session_id: str) -> Session | None:
        """Return the call of this id if it is up."""
        session = self._by_id.get(session_id)
        if session is not None:
            self._settle(session)
        return session if session is not None and session.ended_ms is None else None

    def hang_up(self, session_id: str, released_by: int = PLATFORM) -> bool:
        """End a call as if a party had, or the platform; ``False`` if there is none, or it is over."""
        session = self.live(session_id)
        if session is not None:
            session.released_by = released_by
            self._end(session, self._clock.now_ms(), NORMAL)
        return session is not None

    def after(self, serial: int) -> Iterator[Session]:
        """Iterate over the calls that are kept, live or over, in order, from the one behind ``serial``."""
        for session in list(self._by_id.values()):
            self._settle(session)
            if session.serial > serial:
                yield session

    def settle(self) -> None:
        """End whatever has reached its longest duration; each look at a call does that for itself."""
        for session in self._by_id.values():
            self._settle(session)

    def _settle(self, session: Session) -> None:
        limit_ms = session.limit_ms
        if session.ended_ms is None and limit_ms is not None and limit_ms <= self._clock.now_ms():
            self._end(session, limit_ms, TIME_IS_UP)

    def _end(self, session: Session, at_ms: int, state_code: int) -> None:
        if session.terms.recorded and at_ms - session.started_ms >= _SHORTEST_RECORDED_MS:
            name = f"{_compact(at_ms)[2:]}{secrets.randbelow(10**11):011d}.wav"
            self._keep(Recording(name, session.app_key, session.session_id, session.started_ms, at_ms))
            session.recording = name
        session.ended_ms, session.state_code = at_ms, state_code
        self.on_end(session)


def _compact(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y%m%d%H%M%S")
