"""Tells of pools that have become low or have nothing left: they are counted in turn, and their refusals are heard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

import structlog

from broker.clock import boottime
from broker.domain.level import Level, level
from broker.metrics import Metrics
from broker.store import levels
from broker.store.database import Database
from broker.store.registry import Pool, Registry

log = structlog.get_logger()

_EVERY_S: Final = 60.0
#: Counting takes at most this share of the time of a process: large pools are counted less often.
_SHARE: Final = 0.005
#: A pool that has refused orders is not well again before it has refused none for so long.
_LATELY_S: Final = 600.0
#: A refusal is written down at most so often for each pool.
_AGAIN_S: Final = 30.0
#: Pools whose level is a metric.
_NAMED_POOLS: Final = 100
#: Refusals that say nothing of the pool: somebody wanted one certain extension.
_OF_THE_ORDER: Final = frozenset({"taken"})
_RANKS: Final = {Level.OK: 0, Level.LOW: 1, Level.EXHAUSTED: 2}


class Levels:
    """How much is left of the pools, as all instances together know it."""

    def __init__(
        self,
        db: Database,
        metrics: Metrics,
        registry: Callable[[], Registry],
        refusals: Callable[[int], Mapping[str, int]],
        clock: Callable[[], float] = boottime,
    ) -> None:
        """``refusals(pool id)``: how often this process found nothing in a pool since it began, by reason."""
        self._clock = clock
        self._db = db
        self._metrics = metrics
        self._registry = registry
        self._refusals = refusals
        self._seen: dict[int, Counter[str]] = {}
        self._noted: dict[int, float] = {}
        self._counts_again = float("-inf")

    async def heed(self) -> bool:
        """Tell of pools in which an order was refused since the last look: no request waits for that."""
        for pool in self._registry().pools.values():
            counted = Counter(self._refusals(pool.id))
            new = counted - self._seen.get(pool.id, Counter())
            reasons = {reason: count for reason, count in new.items() if reason not in _OF_THE_ORDER}
            if reasons and _told_of(pool) and self._clock() - self._noted.get(pool.id, -_AGAIN_S) >= _AGAIN_S:
                reason = max(reasons, key=lambda name: reasons[name])
                told = await levels.note_refusal(self._db, pool.id, reason)
                self._noted[pool.id] = self._clock()
                if told:
                    _log(pool, Level.EXHAUSTED, reason)
            if new:
                self._seen[pool.id] = counted
        return False

    async def count(self) -> bool:
        """Count the pool that waits longest, unless counting has had its share. True: there may be another one."""
        if self._clock() < self._counts_again:
            return False
        due = await levels.due(self._db, every_s=_EVERY_S, lately_s=_LATELY_S)
        if due is None:
            await self._show()
            return False
        pool = self._registry().pools.get(due.pool_id)
        if pool is not None and pool.low_percent is not None:
            began = self._clock()
            room = await levels.room(self._db, pool.id)
            took_s = self._clock() - began
            self._counts_again = self._clock() + took_s / _SHARE
            now = level(room, pool.low_percent / 100, due.level, refused=due.refused)
            if await levels.note(self._db, due, now, room, again_s=max(_EVERY_S, took_s / _SHARE)):
                _log(pool, now, room.bound)
        return True

    async def _show(self) -> None:
        pools = list(islice(self._registry().pools.values(), _NAMED_POOLS))
        known = await levels.known(self._db, [pool.id for pool in pools])
        for pool in pools:
            if pool.id in known:
                state, left = known[pool.id]
                self._metrics.pool_level.labels(pool.app.name, pool.name).set(_RANKS[state])
                if left is not None:
                    self._metrics.pool_left.labels(pool.app.name, pool.name).set(left / 100)


def _told_of(pool: Pool) -> bool:
    return pool.open and pool.low_percent is not None


def _log(pool: Pool, now: Level, reason: str) -> None:
    log.warning("pool_worse", app=pool.app.name, pool=pool.name, level=now.value, reason=reason)
