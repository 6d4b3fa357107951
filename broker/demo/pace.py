"""City time: how fast the hour passes, and what makes it pass."""

from __future__ import annotations

import asyncio
from typing import Protocol

import aiohttp

#: The shortest lifetime that a bind may ask for.
LEAST_TTL_S = 60
_TALK_S = 45.0
_STEP_S = 0.2
#: Real seconds until the broker's sweep has ended what ran out, on a busy machine.
_SWEEP_S = 10.0
#: After the hour nobody binds any more: what is left may run out faster.
_AFTER = 4.0


class Pace(Protocol):
    """A clock of the city."""

    least_ttl_s: int
    talk_s: float
    """Seconds of the platform's clock that people talk for."""
    slack_s: float
    sweep_s: float

    def now_s(self) -> float:
        """City seconds since the beginning."""

    def ttl_s(self, city_s: int) -> int:
        """The lifetime to ask for, so that it lasts ``city_s`` of city time."""

    async def until(self, city_s: float) -> None:
        """Wait for a moment."""


class Wall:
    """The broker's clock is the real one: city time runs ahead of it, and lifetimes are asked for accordingly."""

    def __init__(self, speed: float) -> None:
        """``speed``: city seconds in a real one."""
        self._speed = speed
        self._began = asyncio.get_running_loop().time()
        self.least_ttl_s = round(LEAST_TTL_S * speed)
        self.talk_s = _TALK_S / speed
        self.slack_s = speed  # lifetimes are whole real seconds
        self.sweep_s = _SWEEP_S * speed

    def now_s(self) -> float:
        """City seconds since the beginning."""
        return (asyncio.get_running_loop().time() - self._began) * self._speed

    def ttl_s(self, city_s: int) -> int:
        """The lifetime to ask for."""
        return max(round(city_s / self._speed), LEAST_TTL_S)

    async def until(self, city_s: float) -> None:
        """Wait for a moment."""
        await asyncio.sleep((city_s - self.now_s()) / self._speed)


class Moved:
    """The broker and its emulator have the test clock: moving it lets the hour pass for all of them."""

    least_ttl_s = LEAST_TTL_S
    talk_s = _TALK_S

    def __init__(self, http: aiohttp.ClientSession, admin: str, speed: float, length_s: float) -> None:
        """``speed``: city seconds in a real one, up to ``length_s``."""
        self._http = http
        self._url = f"{admin}/test/clock"
        self._speed = speed
        self._length_s = length_s
        self._began = asyncio.get_running_loop().time()
        self._ahead_s = 0.0
        self.sweep_s = _SWEEP_S * speed * _AFTER
        self.slack_s = 2 * _STEP_S * speed * _AFTER  # a step reaches broker, emulator and us one after the other

    def now_s(self) -> float:
        """City seconds since the beginning."""
        return asyncio.get_running_loop().time() - self._began + self._ahead_s

    def ttl_s(self, city_s: int) -> int:
        """The lifetime to ask for: the same."""
        return city_s

    async def until(self, city_s: float) -> None:
        """Let time pass in small steps."""
        while (left_s := city_s - self.now_s()) > 0:
            speed = self._speed * (_AFTER if self.now_s() > self._length_s else 1)
            step_s = min(left_s / speed, _STEP_S)
            await asyncio.sleep(step_s)
            if speed > 1:
                await self._advance(step_s * (speed - 1))

    async def _advance(self, seconds: float) -> None:
        async with self._http.post(self._url, json={"advance_s": seconds}) as answer:
            answer.raise_for_status()
        self._ahead_s += seconds


async def has_test_clock(http: aiohttp.ClientSession, admin: str | None) -> bool:
    """Tell whether this admin listener can move time."""
    if admin is None:
        return False
    async with http.post(f"{admin}/test/clock", json={"advance_s": 0}) as answer:
        return answer.status == 200  # noqa: PLR2004 - HTTP
