"""One app's lane to the platform: who sends next, when, and whether anything may be sent at all."""

from __future__ import annotations

import asyncio
import heapq
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from broker.store.calls import Slots
from broker.store.database import DatabaseAway

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

log = structlog.get_logger()

#: A slot used later than this after its time is given up: the bound at the platform stays burst + rate x 50 ms.
FORFEIT_S = 0.05
#: How far ahead slots are reserved.
HORIZON_S = 0.2
#: The limiter is asked again at least this often: its limit may have been changed.
LONGEST_LOOK_S = 5.0

TakeSlots = Callable[[int], Awaitable[Slots]]


class LaneShut(Exception):
    """Nothing may be sent for this app until an operator acts; ``reason`` is a stable code."""

    def __init__(self, reason: str) -> None:
        """Say why."""
        super().__init__(reason)
        self.reason = reason


class LaneMoved(Exception):
    """The app's access data changed while this call waited: its turn is to be had in the app's new lane."""


class Lane:
    """Grants turns in order of urgency, at most ``width`` at a time, at the times that the app's limiter gives.

    ``take_slots(want)`` asks the shared limiter; None = the app has no limit. Until a signature was accepted, and again
    after one was refused, there is one turn at a time: a wrong secret must not be tried by all who wait, because the
    platform answers a handful of bad signatures by blocking our address.
    """

    def __init__(self, name: str, *, width: int, take_slots: TakeSlots | None, rate: float | None) -> None:
        """Describe the lane; it does nothing until somebody asks for a turn."""
        self._name = name
        self._width = width
        self._take_slots = take_slots
        self._rate = rate
        self._waiting: list[tuple[float, int, asyncio.Future[float], float]] = []
        self._live = 0  # of those in the heap, who has not been cancelled
        self._order = 0
        self._busy = 0
        self._paused_until = 0.0
        self._pump: asyncio.Task[None] | None = None
        self._digest_failures = 0
        self._proven = False
        self._moved = False
        self.shut: str | None = None
        self.granted = 0
        self.pauses = 0

    @property
    def waiting(self) -> int:
        """How many wait for a turn."""
        return self._live

    def oldest_s(self) -> float:
        """Return how long the one that waits longest has waited."""
        now = time.monotonic()
        return max((now - since for _, _, future, since in self._waiting if not future.done()), default=0.0)

    def backlog_s(self) -> float:
        """Return how long a newcomer would wait, by today's rate; infinite when shut."""
        if self.shut is not None:
            return float("inf")
        pause = max(0.0, self._paused_until - time.monotonic())
        return pause + (self._live / self._rate if self._rate else 0.0)

    @asynccontextmanager
    async def turn(self, urgency: float) -> AsyncIterator[float]:
        """Hold one of the lane's places, from the granted moment on; yields until when (monotonic) it may be used.

        Raises:
            LaneShut: if the lane is shut.
            LaneMoved: if the app has got another lane.
        """
        use_by = await self._await_turn(urgency)
        try:
            yield use_by
        finally:
            self._leave()

    async def _await_turn(self, urgency: float) -> float:
        if self.shut is not None:
            raise LaneShut(self.shut)
        if self._moved:
            raise LaneMoved
        free = self._busy < self._places and not self._live and self._take_slots is None
        if free and self._paused_until <= time.monotonic():
            self._busy += 1
            self.granted += 1
            return float("inf")
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._waiting, (urgency, self._order, future, time.monotonic()))
        self._live += 1
        self._wake()
        try:
            return await future
        except asyncio.CancelledError:
            if future.cancelled():
                self._gone()
            elif future.exception() is None:
                self._leave()
            raise

    @property
    def _places(self) -> int:
        return self._width if self._proven else 1

    def _leave(self) -> None:
        self._busy -= 1
        if self._live:
            self._wake()

    def _gone(self) -> None:
        self._live -= 1
        if not self._live:
            self._waiting.clear()

    def relimit(self, take_slots: TakeSlots | None, rate: float | None) -> None:
        """Go by another limit from the next turn on."""
        self._take_slots = take_slots
        self._rate = rate

    def pause(self, seconds: float) -> None:
        """Send nothing for that long."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)
        self.pauses += 1
        log.warning("lane_paused", app=self._name, seconds=round(seconds, 1))

    def digest_failed(self) -> None:
        """Count a refused signature; the second one in a row shuts the lane: more would block our source address."""
        self._proven = False
        self._digest_failures += 1
        if self._digest_failures >= 2 and self.shut is None:  # noqa: PLR2004 - design 3.3
            self.shut = "platform_bad_secret"
            log.error("lane_shut", app=self._name, reason=self.shut)
            self._turn_away(LaneShut(self.shut))

    def digest_passed(self) -> None:
        """Take in that the secret works."""
        self._digest_failures = 0
        if not self._proven:
            self._proven = True
            if self._live:
                self._wake()

    def retire(self) -> None:
        """Send everybody who waits to the app's new lane."""
        self._moved = True
        self.close()
        self._turn_away(LaneMoved())

    def close(self) -> None:
        """Stop granting."""
        if self._pump is not None:
            self._pump.cancel()

    def _turn_away(self, reason: Exception) -> None:
        while self._waiting:
            _, _, future, _ = heapq.heappop(self._waiting)
            if not future.done():
                self._live -= 1
                future.set_exception(reason)

    def _wake(self) -> None:
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._grant_all(), name=f"lane {self._name}")

    async def _grant_all(self) -> None:
        while self._live and self._busy < self._places:
            pause = self._paused_until - time.monotonic()
            if pause > 0:
                await asyncio.sleep(pause)
                continue
            if self._take_slots is None:
                self._grant_one(float("inf"))
                continue
            await self._grant_slots(self._take_slots)

    async def _grant_slots(self, take_slots: TakeSlots) -> None:
        try:
            slots = await take_slots(min(self._live, self._places - self._busy))
        except Exception as error:  # noqa: BLE001 - those who wait have nobody else to wake them
            if not isinstance(error, DatabaseAway):
                log.error("limiter_failed", app=self._name, error=type(error).__name__)  # noqa: TRY400 - its kind says it
            await asyncio.sleep(random.uniform(0.2, 0.5))  # noqa: S311 - jitter
            return
        answered = time.monotonic()
        if slots.granted == 0:
            await asyncio.sleep(min(max(slots.first_s - HORIZON_S / 2, 0.001), LONGEST_LOOK_S))
            return
        for place in range(slots.granted):
            due = answered + max(0.0, slots.first_s + place * slots.every_s)
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            if time.monotonic() - due > FORFEIT_S or self._paused_until > time.monotonic():
                continue
            self._grant_one(due + FORFEIT_S)

    def _grant_one(self, use_by: float) -> None:
        while self._waiting:
            _, _, future, _ = heapq.heappop(self._waiting)
            if not future.done():
                self._live -= 1
                self._busy += 1
                self.granted += 1
                future.set_result(use_by)
                return
