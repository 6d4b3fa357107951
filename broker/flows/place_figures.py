"""How many places of a pool are held, rest or are not given out: counted behind the requests that ask for it."""

from __future__ import annotations

import asyncio
from typing import Final

from broker.clock import boottime
from broker.store import places
from broker.store.database import Database, DatabaseAway
from broker.store.places import PlaceCounts

_FRESH_S: Final = 10.0
#: Older figures than these say nothing: who asks then waits for new ones.
_USEFUL_S: Final = 60.0


class PlaceFigures:
    """Figures of pools. While there are useful ones nobody waits for newer ones."""

    def __init__(self, db: Database) -> None:
        """Count nothing yet."""
        self._db = db
        self._known: dict[int, tuple[float, PlaceCounts]] = {}
        self._counting: dict[int, asyncio.Task[None]] = {}

    async def of(self, pool_id: int) -> PlaceCounts:
        """Return the figures of a pool, at most a minute old; zeros when they cannot be had."""
        known = self._known.get(pool_id)
        age_s = boottime() - known[0] if known is not None else float("inf")
        if age_s > _FRESH_S and pool_id not in self._counting:
            task = asyncio.create_task(self._count(pool_id), name="place_figures")
            self._counting[pool_id] = task
            task.add_done_callback(lambda _: self._counting.pop(pool_id, None))
        if age_s > _USEFUL_S:
            await asyncio.wait([self._counting[pool_id]])
        return self._known[pool_id][1] if pool_id in self._known else PlaceCounts()

    async def _count(self, pool_id: int) -> None:
        at = boottime()
        try:
            counted = await places.counts(self._db, [pool_id])
        except DatabaseAway:
            return
        self._known[pool_id] = at, counted[pool_id]
