"""When a batch begins: at once while there is little to do; the more come, the longer it waits for company."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

#: What a crowd queues behind a running batch waits for its end, but not longer than this: then it goes beside it.
PATIENCE_S = 0.1
_HURRIED_PATIENCE_S = 0.005
#: A crowd is so many in :data:`GAP_S`. In it a batch begins that long after the one before (or as long as is said), or
#: once ``_FULL`` wait.
_CROWD = 50
_FULL = 60
GAP_S = 0.036
#: Among few a batch begins so many times as long after the one before as batches take: one for each item would keep the
#: database so busy that all of them wait. Where both are idle that is hardly any time; it is as in a crowd at most.
_FEW_TIMES: Final = 2.0
_HURRIED_FEW_GAP_S: Final = 0.005
_TOOK_WEIGHT = 0.2


class Pace:
    """Begins batches of what waits, at most ``in_flight`` at a time.

    A crowd makes batches larger instead of more: what comes while one runs shares the next, which is given a moment to
    gather. Among few it is given hardly any; alone nothing waits for company. A whole batch of ``size`` goes beside the
    running one, and so does what one keeps waiting for long.
    """

    def __init__(
        self,
        name: str,
        begin: Callable[[], Coroutine[Any, Any, None] | None],
        waiting: Callable[[], int],
        *,
        size: int,
        in_flight: int,
        hurried: bool = False,
        gap_s: float = GAP_S,
    ) -> None:
        """``begin()`` takes a batch off the queue and returns its work; None = nothing of it may run now.

        ``hurried``: somebody waits on the phone. No batch waits for company but behind a running one, and not for long.
        ``gap_s``: how long after the one before a batch begins, in a crowd.
        """
        self._hurried = hurried
        self._gap_s = 0.0 if hurried else gap_s
        self._few_gap_s = _HURRIED_FEW_GAP_S if hurried else gap_s
        self._name = name
        self._begin = begin
        self._waiting = waiting
        self._size = size
        self._in_flight = in_flight
        self._tasks: set[asyncio.Task[None]] = set()
        self._begun = float("-inf")
        self._took_s = 0.0
        self._woken = False
        #: Whether many came in the window before, or have come in this one; since when, and how many.
        self._crowded = False
        self._since = float("-inf")
        self._came = 0
        self._timer: asyncio.Handle | None = None
        self._timer_due = 0.0

    def wake(self) -> None:
        """Take in that something waits."""
        if not self._woken and self._may_begin():
            # At the end of this turn of the loop: what arrives in the same turn shares the batch.
            self._woken = True
            asyncio.get_running_loop().call_soon(self._start)

    def _may_begin(self) -> bool:
        if len(self._tasks) >= self._in_flight:
            return False
        loop = asyncio.get_running_loop()
        due = self._begun + self._pause_s()
        if due <= loop.time():
            return True
        if self._timer is None or self._timer_due > due:
            self._forget_timer()
            # uvloop's handle of a time that has come already cannot tell that time.
            self._timer, self._timer_due = loop.call_at(due, self._look_again), due
        return False

    def _pause_s(self) -> float:
        waiting = self._waiting()
        if not self._crowded:
            return min(_FEW_TIMES * self._took_s, self._few_gap_s) if waiting < self._size else 0.0
        if self._tasks:
            return (_HURRIED_PATIENCE_S if self._hurried else PATIENCE_S) if waiting < self._size else 0.0
        return self._gap_s if waiting < _FULL else 0.0

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_again(self) -> None:
        self._timer = None
        if self._waiting():
            self.wake()

    def _start(self) -> None:
        self._woken = False
        while (waiting := self._waiting()) and self._may_begin() and (work := self._begin()) is not None:
            self._begun = asyncio.get_running_loop().time()
            self._count(waiting - self._waiting())
            task = asyncio.create_task(work, name=self._name)
            self._tasks.add(task)
            task.add_done_callback(partial(self._finished, self._begun))

    def _count(self, taken: int) -> None:
        self._came += taken
        if (passed := self._begun - self._since) >= GAP_S:
            self._crowded = self._came * GAP_S >= _CROWD * passed
            self._since, self._came = self._begun, 0
        elif self._came >= _CROWD:
            self._crowded = True

    def _finished(self, begun: float, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        took_s = asyncio.get_running_loop().time() - begun
        # What waited for a lock once does not make everybody wait from then on.
        self._took_s += _TOOK_WEIGHT * (min(took_s, self._few_gap_s) - self._took_s)
        if self._waiting():
            self.wake()
