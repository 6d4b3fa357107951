"""Deadlines that hardly ever come, for which a timer of the loop each would cost more than what they watch over.

A timer is made, started, stopped and closed; every platform call and every request that waits for one has a deadline,
and all but a few of them are called off. Here they share one timer of the loop that looks at them 40 times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

_GRAIN_S: Final = 0.025
#: What comes sooner than this gets a timer of its own.
_FAR_S: Final = 1.0


class Alarm:
    """One deadline, among others of about the same time."""

    __slots__ = ("_among", "_ring")

    def __init__(self, ring: Callable[[], object], among: dict[Alarm, None]) -> None:
        self._ring = ring
        self._among = among
        among[self] = None

    def cancel(self) -> None:
        """Call it off."""
        self._among.pop(self, None)

    def go_off(self) -> None:
        """Its time has come."""
        self.cancel()
        self._ring()


class Alarms:
    """Deadlines of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Nothing is set yet."""
        self.loop = loop
        self._due: dict[int, dict[Alarm, None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def at(self, deadline: float, ring: Callable[[], object]) -> Alarm | asyncio.TimerHandle:
        """Have ``ring`` called at ``deadline`` (the loop's clock); one that is far may ring up to 50 ms early."""
        if deadline < self.loop.time() + _FAR_S:
            return self.loop.call_at(deadline, ring)
        if self._timer is None:
            self._timer = self.loop.call_later(_GRAIN_S, self._look)
        return Alarm(ring, self._due.setdefault(int(deadline / _GRAIN_S), {}))

    def _look(self) -> None:
        # First of all the next look: what one alarm does must not keep the others from ringing.
        self._timer = self.loop.call_later(_GRAIN_S, self._look) if self._due else None
        late_next = self.loop.time() / _GRAIN_S + 1
        for tick in sorted(tick for tick in self._due if tick < late_next):
            while self._due[tick]:
                next(iter(self._due[tick])).go_off()
            del self._due[tick]


_alarms: Alarms | None = None


def alarm_at(deadline: float, ring: Callable[[], object]) -> Alarm | asyncio.TimerHandle:
    """Set an alarm in the running loop, see :meth:`Alarms.at`."""
    global _alarms  # noqa: PLW0603 - of the process's loop; tests have many, one after the other
    loop = asyncio.get_running_loop()
    if _alarms is None or _alarms.loop is not loop:
        _alarms = Alarms(loop)
    return _alarms.at(deadline, ring)
