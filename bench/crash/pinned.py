"""Clients that keep one connection each, and so talk to one process of the broker; they bind and release in turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from bench.figures import histogram, percentiles
from bench.hammer.kind import KINDS, SHORT_S, Orders

#: Between two requests of a client: whoever is slower than this is noticed in its rate.
_THINK_S: Final = 0.05
_PATIENCE_S: Final = 120.0
_LONG_S: Final = 900
#: One order of so many is left to expire.
_SHORT_EVERY: Final = 20

now = time.monotonic


@dataclass(slots=True)
class Pinned:
    """One client; ``binds`` are its confirmed ones: when they were answered, and how long that took."""

    api: str
    key: str
    orders: Orders
    binds: list[tuple[float, float]] = field(default_factory=list)
    lost: int = 0
    made: int = 0

    async def run(self) -> None:
        """Bind, release, and again, until cancelled."""
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self.key}"}, connector=aiohttp.TCPConnector(limit=1),
            timeout=aiohttp.ClientTimeout(total=_PATIENCE_S),
        ) as http:  # fmt: skip
            while True:
                try:
                    await self._order(http)
                except aiohttp.ClientError:
                    self.lost += 1
                await asyncio.sleep(_THINK_S)

    async def _order(self, http: aiohttp.ClientSession) -> None:
        # No phone is anybody else's: what is measured is the waiting for each other, not for rests.
        self.made += 1
        short = not self.made % _SHORT_EVERY
        body = {"a": self.orders.fresh(), "b": self.orders.fresh(), "ttl_s": SHORT_S if short else _LONG_S}
        began = now()
        async with http.post(f"{self.api}/v1/bindings", json=body) as answer:
            made: dict[str, Any] = await answer.json()
        if answer.status == 201:
            self.binds.append((now(), now() - began))
            if short:
                return
            await asyncio.sleep(_THINK_S)
            async with http.delete(f"{self.api}/v1/bindings/{made['id']}") as answer:
                await answer.read()


@asynccontextmanager
async def pinned(api: str, key: str, clients: int) -> AsyncIterator[list[Pinned]]:
    """Have so many clients at work; what they wait for at the end is let go."""
    made = [Pinned(api, key, Orders(KINDS["axb"], number, clients)) for number in range(clients)]
    tasks = [asyncio.create_task(one.run()) for one in made]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


def served(clients: Sequence[Pinned], begin: float, end: float) -> tuple[float, dict[str, float]]:
    """Return binds a second answered within the window, and milliseconds by name."""
    took = [took for one in clients for at, took in one.binds if begin <= at < end]
    return len(took) / (end - begin), percentiles(histogram(took))
