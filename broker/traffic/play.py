"""Drives traffic at a rate for a time, and counts what comes of it here and at the receivers of the pushes."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from broker.traffic.mix import Dice
from broker.traffic.platform import Platform, PlatformError

#: Requests under way at once; what is due beyond that is late, and said to be.
AT_ONCE: Final = 64
_LOOK_S: Final = 0.5
_LATE_S: Final = 1.0
#: Bindings come and go: a list of them is read anew so often.
_REREAD_S: Final = 5.0
#: How long pushes are waited for once the longest call is over.
_SETTLE_S: Final = 15.0


@dataclass(slots=True)
class Tally:
    """What was done; ``before`` and ``now`` are the emulator's counts at the beginning and at the last look."""

    calls: Counter[int] = field(default_factory=Counter)
    messages: Counter[int] = field(default_factory=Counter)
    late: int = 0
    elapsed_s: float = 0.0
    before: dict[str, Any] = field(default_factory=dict)
    now: dict[str, Any] = field(default_factory=dict)

    @property
    def done(self) -> int:
        """Calls and messages."""
        return self.calls.total() + self.messages.total()

    def since(self, group: str) -> Counter[str]:
        """Return how far the emulator's counts of a group have risen."""
        return Counter(self.now.get(group, {})) - Counter(self.before.get(group, {}))

    @property
    def up(self) -> int:
        """Calls that ring or are up."""
        calls = self.since("calls")
        return max(2 * calls["placed"] + calls["answered"] - calls.total(), 0)

    @property
    def waiting(self) -> int:
        """Pushes under way."""
        return int(self.now.get("waiting", 0))


class Traffic:
    """One run. ``tally`` fills while :meth:`play` runs."""

    def __init__(self, platform: Platform, dice: Dice, *, rate: float, seconds: float, count: int | None) -> None:
        self.tally = Tally()
        self._platform = platform
        self._dice = dice
        self._rate = rate
        self._most = round(rate * seconds) if count is None else min(count, round(rate * seconds))
        self._bindings: list[dict[str, Any]] = []

    async def play(self) -> None:
        """Place everything, then wait until it has been told.

        Raises:
            PlatformError: no binding is live, or the emulator does not do as it is asked.
        """
        self.tally.before = self.tally.now = await self._platform.traffic()
        await self._reread()
        loop = asyncio.get_running_loop()
        looking, rereading = asyncio.create_task(self._look()), asyncio.create_task(self._keep_reading())
        began, seats = loop.time(), asyncio.Semaphore(AT_ONCE)
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._most):
                    due = began + number / self._rate
                    await asyncio.sleep(max(due - loop.time(), 0))
                    await seats.acquire()
                    self.tally.elapsed_s = loop.time() - began
                    self.tally.late += self.tally.elapsed_s > number / self._rate + _LATE_S
                    group.create_task(self._do()).add_done_callback(lambda _: seats.release())
            rereading.cancel()
            await self._settle()
        finally:
            looking.cancel()
            rereading.cancel()
            await asyncio.gather(looking, rereading, return_exceptions=True)

    async def _do(self) -> None:
        binding = self._dice.one_of(self._bindings)
        deed = self._dice.deed(binding)
        if self._dice.is_message():
            result = await self._platform.text(binding, deed)
            if result is not None:
                self.tally.messages[result] += 1
                return
        self.tally.calls[await self._platform.call(deed | self._dice.course())] += 1

    async def _settle(self) -> None:
        """Wait until all calls are over and told; a push that is to be tried much later is not waited for."""
        give_up = asyncio.get_running_loop().time() + self._dice.longest_s + _SETTLE_S
        while asyncio.get_running_loop().time() < give_up:
            self.tally.now = await self._platform.traffic()
            if not self.tally.up and not self.tally.waiting:
                return
            await asyncio.sleep(_LOOK_S)

    async def _look(self) -> None:
        while True:
            self.tally.now = await self._platform.traffic()
            await asyncio.sleep(_LOOK_S)

    async def _keep_reading(self) -> None:
        while True:
            await asyncio.sleep(_REREAD_S)
            await self._reread()

    async def _reread(self) -> None:
        self._bindings = await self._platform.bindings() or self._bindings
        if not self._bindings:
            raise PlatformError("No binding is live at this emulator: bind some orders first, or run `broker demo`.")
