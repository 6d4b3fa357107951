"""Looks at the budgets of X numbers, in slices: complaints grow old and calls come in without anybody asking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

from broker.clock import boottime
from broker.domain.budget import Over
from broker.flows.budgets import judge
from broker.metrics import Metrics
from broker.store import budgets
from broker.store.budgets import FIRST, X
from broker.store.database import Database
from broker.store.registry import Registry

_SLICE: Final = 500
#: A walk takes at most this share of the time: 20,000 numbers that all have calls take two seconds.
_SHARE: Final = 0.02
#: Apps whose numbers over budget are metrics.
_NAMED_APPS: Final = 100


class Budgets:
    """A walk over all X numbers that may be over a budget. Each instance makes it; what is done is done once."""

    def __init__(
        self,
        db: Database,
        metrics: Metrics,
        registry: Callable[[], Registry],
        heed: Callable[[Mapping[int, int]], None],
    ) -> None:
        """Begin with the first X. ``heed``: hears which X are hot, by pool."""
        self._db = db
        self._metrics = metrics
        self._registry = registry
        self._heed = heed
        self._after: X = FIRST
        self._spent_s = 0.0
        self._rests_until = 0.0

    async def look(self) -> bool:
        """Judge a slice. True: there is more."""
        began = boottime()
        if began < self._rests_until:
            return False
        found = await budgets.standings(self._db, after=self._after, limit=_SLICE)
        await judge(self._db, found)
        more = len(found) == _SLICE
        self._after = found[-1].x if more else FIRST
        self._spent_s += boottime() - began
        if not more:
            await budgets.forget(self._db)
            await self._show()
            self._rests_until = boottime() + self._spent_s / _SHARE
            self._spent_s = 0.0
        return more

    async def look_at_heat(self) -> bool:
        """Learn which X carry as many calls as they may, where an app wants to know."""
        registry = self._registry()
        wanted = [app for app in registry.apps.values() if app.heat is not None]
        hot = await budgets.hot(self._db) if wanted else {}
        self._heed(hot)
        for app in islice(wanted, _NAMED_APPS):
            many = sum(hot.get(pool.id, 0).bit_count() for pool in registry.app_pools.get(app.id, ()))
            self._metrics.numbers_hot.labels(app.name).set(many)
        return False

    async def _show(self) -> None:
        counted = await budgets.counts(self._db)
        for app in islice(self._registry().apps.values(), _NAMED_APPS):
            for why in Over:
                self._metrics.numbers_over.labels(app.name, why.value).set(counted.get((app.id, why), 0))
