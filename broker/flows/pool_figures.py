"""How full pools are, counted at most every ten seconds by each process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from broker.clock import boottime
from broker.store.listing import Figures

_FRESH_S = 10.0

Count = Callable[[Sequence[int]], Awaitable[dict[int, Figures]]]


class PoolFigures:
    """Figures of an app's pools, at most ten seconds old; one count serves everybody who asks meanwhile."""

    def __init__(self, count: Count) -> None:
        """``count(pool ids)`` reads the database."""
        self._count = count
        self._known: dict[int, tuple[float, frozenset[int], Mapping[int, Figures]]] = {}
        self._locks: dict[int, asyncio.Lock] = {}

    async def of(self, app_id: int, pools: Sequence[int]) -> Mapping[int, Figures]:
        """Return the figures of the app's pools.

        Raises:
            DatabaseAway: they are too old and could not be counted.
        """
        async with self._locks.setdefault(app_id, asyncio.Lock()):
            known = self._known.get(app_id)
            if known is not None and boottime() - known[0] < _FRESH_S and known[1].issuperset(pools):
                return known[2]
            asked_at = boottime()
            counted = await self._count(pools)
            self._known[app_id] = (asked_at, frozenset(pools), counted)
            return counted
