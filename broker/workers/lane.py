"""One app's lane to the platform: who sends next, when, and whether anything may be sent at all."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import structlog

from broker.domain.turns import Kind, Turns
from broker.store.database import DatabaseAway
from broker.workers.limiter import SLICE_S

if TYPE_CHECKING:
    from broker.store.limits import Slots
    from broker.workers.limiter import Limiter

log = structlog.get_logger()

#: The limiter is asked again at least this often.
LONGEST_LOOK_S = 5.0
#: The part of its width that a lane without a limit wins back each second after a pause for flow control.
_CLIMB = 0.05


#: When the kept part of the burst is used up, nobody looks for it again so soon.
_LOOK_AGAIN_S = 0.02
#: Timers may end this much before their time.
_TICK_S = 0.0005


class LaneShut(Exception):
    """Nothing may be sent for this app until an operator acts; ``reason`` is a stable code."""

    def __init__(self, reason: str) -> None:
        """Say why."""
        super().__init__(reason)
        self.reason = reason


class LaneMoved(Exception):
    """The app's access data changed while this call waited: its turn is to be had in the app's new lane."""


class Ask(NamedTuple):
    """Who wants a turn, for what: ``interface`` is what is called, ``kind`` the lane of the call that it is for."""

    urgency: float
    kind: Kind = Kind.BIND
    caller: int = 0
    weight: int = 1
    interface: str = ""


class _Turn:
    """A place while it is held. A generator's context manager costs three times as much, once for each call."""

    __slots__ = ("_ask", "_lane")

    def __init__(self, lane: Lane, ask: Ask) -> None:
        self._lane = lane
        self._ask = ask

    async def __aenter__(self) -> float:
        return await self._lane.enter(self._ask)

    async def __aexit__(self, *_raised: object) -> None:
        self._lane.leave()


@dataclass(slots=True)
class _Waiter:
    future: asyncio.Future[float]
    since: float


@dataclass(slots=True)
class _Spare:
    """Slots that were taken ahead of their callers, all of which may be used until ``use_by``."""

    slots: Slots
    left: int
    use_by: float


class Lane:
    """Grants turns in a fair order (:mod:`broker.domain.turns`), at most ``width`` at a time, when the limiter lets.

    Without a limiter there is no limit. Until a signature was accepted, and again after one was refused, there is one
    turn at a time: a wrong secret must not be tried by all who wait, because the platform answers a handful of bad
    signatures by blocking our address.
    """

    def __init__(self, name: str, *, width: int, limiter: Limiter | None) -> None:
        """Describe the lane; it does nothing until somebody asks for a turn."""
        self._name = name
        self._width = width
        self._limiter = limiter
        self._turns: Turns[_Waiter] = Turns(lambda waiter: waiter.future.done())
        self._live = 0  # of those who wait, who has not been cancelled
        self._busy = 0
        self._paused_until = 0.0
        self._none_kept_until = 0.0
        self._pace = 1.0
        self._spare: _Spare | None = None
        self._returning: set[asyncio.Task[None]] = set()
        self._not_before: dict[str, float] = {}
        self._asked: dict[str, int] = {}
        self._looks = 0
        self._pump: asyncio.Task[None] | None = None
        self._alarm: asyncio.Future[None] | None = None
        self._proven = False
        self._moved = False
        self.digest_failures = 0
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
        return max((now - waiter.since for waiter in self._turns if not waiter.future.done()), default=0.0)

    def backlog_s(self, caller: int | None = None, weight: int = 1) -> float:
        """Return how long a newcomer would wait by today's rate, a named caller's bind; infinite when shut."""
        if self.shut is not None:
            return float("inf")
        pause = max(0.0, self._paused_until - time.monotonic())
        if self._limiter is None or not self._live:
            return pause
        ahead = self._live if caller is None else min(self._live, self._turns.ahead(Kind.BIND, caller, weight))
        return pause + ahead / self._limiter.rate

    def turn(self, ask: Ask) -> _Turn:
        """Return what holds one of the lane's places, see :meth:`enter`."""
        return _Turn(self, ask)

    async def enter(self, ask: Ask) -> float:
        """Wait for a place and return until when (monotonic) it may be used; it is held until :meth:`leave`.

        Raises:
            LaneShut: if the lane is shut.
            LaneMoved: if the app has got another lane.
        """
        if self.shut is not None:
            raise LaneShut(self.shut)
        if self._moved:
            raise LaneMoved
        if not self._live and self._busy < self._places and (use_by := self._at_once(ask)) is not None:
            self._busy += 1
            self.granted += 1
            return use_by
        if (use_by := await self._before_the_queue(ask)) is not None:
            return use_by
        waiter = _Waiter(asyncio.get_running_loop().create_future(), time.monotonic())
        part = self._part(ask)
        self._turns.push(ask.kind, waiter, caller=ask.caller, weight=ask.weight, urgency=ask.urgency, part=part)
        self._live += 1
        self._wake()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.cancelled():
                self._gone()
            elif waiter.future.exception() is None:
                self._pass_on(part, waiter.future.result())
            raise

    async def _before_the_queue(self, ask: Ask) -> float | None:
        """Return a turn for a caller within its share while others queue: a part of the burst is kept for such."""
        limiter = self._limiter
        if (
            limiter is None
            or not self._live
            or self._busy >= self._places
            or max(self._paused_until, self._none_kept_until) > time.monotonic()
            or self._part(ask)
            or not self._turns.within_share(ask.kind, ask.caller)
        ):
            return None
        self._busy += 1
        try:
            use_by = await self._take_kept(limiter)
        except BaseException:
            self.leave()
            raise
        if use_by is None:
            self.leave()
            return None
        self._turns.charge(ask.kind, ask.caller, ask.weight)
        self.granted += 1
        return use_by

    async def _take_kept(self, limiter: Limiter) -> float | None:
        try:
            slots = await limiter.take(1, "", rare=True)
        except DatabaseAway:
            return None
        now = time.monotonic()
        if self.shut is not None:
            raise LaneShut(self.shut)
        if self._moved:
            raise LaneMoved
        if slots.granted and self._paused_until <= now:
            if slots.granted > 1:
                self._keep(slots, slots.granted - 1, now + slots.late_s)
            # One that is due a moment later is worth the wait: it is ours already.
            await asyncio.sleep(max(0.0, slots.first_s))
            return now + max(0.0, slots.first_s) + slots.late_s
        self._none_kept_until = now + _LOOK_AGAIN_S
        return None

    def _part(self, ask: Ask) -> str:
        return ask.interface if self._limiter is not None and ask.interface in self._limiter.own else ""

    def _at_once(self, ask: Ask) -> float | None:
        """Return until when a turn that needs no look at the limiter may be used; None = there is none."""
        now = time.monotonic()
        if self._paused_until > now:
            return None
        if self._limiter is None:
            return float("inf")
        spare = self._spare
        if spare is None or not spare.left or now > spare.use_by or self._part(ask):
            return None
        spare.left -= 1
        return spare.use_by

    @property
    def _places(self) -> int:
        if not self._proven:
            return 1
        if self._pace < 1:
            pace = self._pace + _CLIMB * max(0.0, time.monotonic() - self._paused_until)
            if pace < 1:
                return max(1, int(self._width * pace))
            self._pace = 1.0
        return self._width

    def _pass_on(self, part: str, use_by: float) -> None:
        """Whom this turn was granted to gave up in the same moment: the next one gets it, else its slot is lost."""
        self.leave()
        now = time.monotonic()
        if self._limiter is not None and self._paused_until <= now <= use_by:
            self._grant_one({part}, use_by)

    def leave(self) -> None:
        """Give the place back."""
        self._busy -= 1
        if self._live:
            self._wake()

    def _gone(self) -> None:
        self._live -= 1
        if not self._live:
            self._turns.clear()

    def relimit(self, limiter: Limiter | None) -> None:
        """Go by another limit from now on; those who wait keep their places."""
        self._limiter = limiter
        self._spare = None
        self._not_before.clear()
        for ask_part in self._turns.parts():
            if ask_part and (limiter is None or ask_part not in limiter.own):
                self._turns.merge(ask_part)
        self._ring()

    def slow_down(self, seconds: float) -> None:
        """The platform said that calls come too fast: send nothing for that long, then less at a time."""
        if self._paused_until <= time.monotonic() and self._limiter is None:
            self._pace = max(1 / self._width, self._places / self._width / 2)
        self.pauses += 1
        self.hold(seconds)

    def hold(self, seconds: float) -> None:
        """Send nothing for that long."""
        until = time.monotonic() + seconds
        if until > self._paused_until + 0.5:
            log.warning("lane_paused", app=self._name, seconds=round(seconds, 1))
        self._paused_until = max(self._paused_until, until)

    def digest_failed(self) -> None:
        """Count a refused signature; the second one in a row shuts the lane: more would block our source address."""
        self._proven = False
        self.digest_failures += 1
        if self.digest_failures >= 2:  # noqa: PLR2004 - design 3.3
            self.close_down("platform_bad_secret")

    def close_down(self, reason: str) -> None:
        """Send nothing until the app has another lane."""
        if self.shut is None:
            self.shut = reason
            log.error("lane_shut", app=self._name, reason=reason)
            self._turn_away(LaneShut(reason))

    def digest_passed(self) -> None:
        """Take in that the secret works."""
        self.digest_failures = 0
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
        for task in self._returning:
            task.cancel()

    def _turn_away(self, reason: Exception) -> None:
        for waiter in self._turns.clear():
            if not waiter.future.done():
                self._live -= 1
                waiter.future.set_exception(reason)

    # -- granting --------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._grant_all(), name=f"lane {self._name}")

    def _ring(self) -> None:
        if self._alarm is not None and not self._alarm.done():
            self._alarm.set_result(None)

    async def _nap(self, seconds: float) -> None:
        """Sleep until then, or until something changes."""
        loop = asyncio.get_running_loop()
        self._alarm = loop.create_future()
        timer = loop.call_later(seconds, self._ring)
        try:
            await self._alarm
        finally:
            timer.cancel()
            self._alarm = None

    async def _grant_all(self) -> None:
        while self._live and self._busy < self._places:
            pause = self._paused_until - time.monotonic()
            if pause > 0:
                await self._nap(pause)
            elif self._limiter is None:
                self._grant_one(None, float("inf"))
            else:
                await self._grant_slots(self._limiter)

    async def _grant_slots(self, limiter: Limiter) -> None:
        now = time.monotonic()
        parts = self._turns.parts()
        ready = [part for part in parts if self._not_before.get(part, 0.0) <= now]
        if not ready:
            soonest = min((self._not_before[part] for part in parts), default=now)
            await self._nap(max(soonest - now, 0.001))
            return
        # Parts in turn: each has a limit of its own, so none crowds the others out.
        part = min(ready, key=lambda one: self._asked.get(one, 0))
        self._looks += 1
        self._asked[part] = self._looks
        alone = self._turns.first_is_alone()
        want = 1 if part or (alone and self._live > 1) else min(self._live, self._places - self._busy)
        try:
            slots = await limiter.take(want, part, rare=alone)
        except Exception as error:  # noqa: BLE001 - those who wait have nobody else to wake them
            if not isinstance(error, DatabaseAway):
                log.error("limiter_failed", app=self._name, error=type(error).__name__)  # noqa: TRY400 - its kind says it
            await self._nap(random.uniform(0.2, 0.5))  # noqa: S311 - jitter
            return
        answered = time.monotonic()
        if slots.granted == 0:
            # A part that waits for its own limit knows when; the app's first slot is reserved shortly before its time.
            early = 0.0 if part else SLICE_S / 2
            self._not_before[part] = answered + min(max(slots.first_s - early, 0.001), LONGEST_LOOK_S)
            return
        unused = await self._grant_at(slots, part, answered)
        if unused and not part:
            self._keep(slots, unused, answered + slots.late_s)

    async def _grant_at(self, slots: Slots, part: str, answered: float) -> int:
        """Grant each slot at its time; return how many nobody wanted."""
        for place in range(slots.granted):
            due = answered + max(0.0, slots.first_s + place * slots.every_s)
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait + _TICK_S)
            now = time.monotonic()
            if now - due > slots.late_s or self._paused_until > now:
                continue
            if self._busy >= self._places or not self._grant_one({part}, due + slots.late_s):
                return slots.granted - place
        return 0

    def _keep(self, slots: Slots, unused: int, use_by: float) -> None:
        """Hold slots for those who come next, and give back in the end what nobody wanted."""
        self._spare = spare = _Spare(slots, unused, use_by)
        asyncio.get_running_loop().call_at(asyncio.get_running_loop().time() + slots.late_s, self._return, spare)

    def _return(self, spare: _Spare) -> None:
        if self._spare is spare:
            self._spare = None
        unused, spare.left = spare.left, 0
        if unused and self._limiter is not None and not self._moved:
            task = asyncio.create_task(self._limiter.give_back(spare.slots, unused), name="give slots back")
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)

    def _grant_one(self, parts: set[str] | None, use_by: float) -> bool:
        """Give the next one its turn; False = nobody waits for such a one."""
        waiter = self._turns.pop(parts)
        if waiter is None:
            return False
        self._live -= 1
        self._busy += 1
        self.granted += 1
        waiter.future.set_result(use_by)
        return True
