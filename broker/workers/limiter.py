"""The shared limiter as one app's lane sees it."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from typing import Protocol

from broker.errors import Problem
from broker.store import limits
from broker.store.database import Database
from broker.store.limits import Limit, Slots
from broker.store.registry import App

#: How far ahead slots are reserved.
HORIZON_S = 0.2
#: Near the limit no more are reserved at once than those of this long: what dies takes them along.
SLICE_S = 0.01
#: Far below the limit a look at the limiter serves the callers of this long, not only those who wait.
AHEAD_S = 0.02
#: The part of the burst that callers with a queue leave to those without, where an app has several callers.
_KEPT = 0.5
#: The rate of an app of which only single interfaces are limited.
_NO_LIMIT = Limit(100_000.0, 100_000)


class Limiter(Protocol):
    """Gives send slots."""

    @property
    def rate(self) -> float:
        """Slots a second."""
        ...

    @property
    def own(self) -> Collection[str]:
        """The interfaces that have a limit of their own."""
        ...

    async def take(self, want: int, interface: str, *, rare: bool) -> Slots:
        """Give up to ``want`` slots, or some more; for an interface with a limit of its own, or "" for all others.

        ``rare``: for callers that ask for less than their shares; for such a part of the burst is kept.
        """
        ...

    async def give_back(self, slots: Slots, unused: int) -> None:
        """Take the last ``unused`` ones of ``slots`` back, if that can still be done."""
        ...


class AppLimiter:
    """The limit of an app over all instances."""

    def __init__(self, db: Database, app: App) -> None:
        """Go by the app's profile."""
        self._db = db
        self._app = app
        self._limit = Limit(app.rate, app.burst) if app.rate is not None else _NO_LIMIT
        self.rate = self._limit.rate
        self.own = app.own_rates.keys()

    async def take(self, want: int, interface: str, *, rare: bool) -> Slots:
        """Ask the database."""
        kept = _KEPT if self._app.callers > 1 and not rare else 0.0
        # A slot reserved for later is taken from what is kept, too.
        horizon_s = SLICE_S if kept else HORIZON_S
        return await limits.take_slots(
            self._db, self._app.id, want=want, limit=self._limit, horizon_s=horizon_s, slice_s=SLICE_S,
            ahead_s=AHEAD_S,
            interface=interface, own_rate=self._app.own_rates.get(interface),
            kept=kept,
        )  # fmt: skip

    async def give_back(self, slots: Slots, unused: int) -> None:
        """Tell the database; what cannot be told is lost."""
        with contextlib.suppress(Problem):
            await limits.give_back(self._db, self._app.id, slots, unused)


def limiter_of(db: Database, app: App) -> AppLimiter | None:
    """Return the app's limiter; None = its calls need not ask anybody."""
    return AppLimiter(db, app) if app.rate is not None or app.own_rates else None
