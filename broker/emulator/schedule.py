"""What is to happen later on the emulator's clock: the steps of calls, and pushes that are tried again."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Final

import structlog

from broker.emulator.times import EmulatorClock

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

#: How late something may happen. Who moves the clock waits no longer than that for what it made due.
_TICK_S: Final = 0.02


class Schedule:
    """Carries out what is due, in order of time."""

    def __init__(self, clock: EmulatorClock) -> None:
        self._clock = clock
        self._waiting: list[tuple[int, int, Callable[[], object]]] = []
        self._serial = itertools.count()

    def __len__(self) -> int:
        """How much waits."""
        return len(self._waiting)

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Have something happen in so many seconds; at once, before this returns, in none."""
        if seconds > 0:
            self.at(self._clock.now_ms() + round(seconds * 1000), action)
        else:
            action()

    def at(self, due_ms: int, action: Callable[[], object]) -> None:
        """Have something happen at that time."""
        heapq.heappush(self._waiting, (due_ms, next(self._serial), action))

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            now_ms = self._clock.now_ms()
            while self._waiting and self._waiting[0][0] <= now_ms:
                _, _, action = heapq.heappop(self._waiting)
                try:
                    action()
                except Exception as error:  # noqa: BLE001 - one call that fails is no reason for all to stand still
                    log.error("emulator_step_failed", error=type(error).__name__)  # noqa: TRY400 - it may show numbers
            await asyncio.sleep(_TICK_S)
