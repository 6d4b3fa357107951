"""The audit: compares the platform's view of every app with ours, place by place, one process at a time per app."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import structlog

from broker.clock import boottime
from broker.crashpoints import crashpoint
from broker.domain.ids import new_id
from broker.store import drift as store
from broker.store import shadow
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.drift import Place, Run, Tally
from broker.store.registry import App, Registry
from broker.workers.compare import compare_place, follow_place
from broker.workers.looking import Look, Looker, Pace, Stopped
from broker.workers.sender import Sender

log = structlog.get_logger()

#: How long a process works on an app before it looks at what else there is.
_SLICE_S = 5.0
_STEPS = 16
#: Of extensions that nobody of ours has, each run looks at every so manieth.
SWEEP = 24


class Auditor:
    """Works on the open runs of all apps, and begins those that are due."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        sender: Sender,
        registry: Callable[[], Registry],
        *,
        every_s: int,
        share: float,
        per_s: float,
        lease_s: float,
    ) -> None:
        """``share`` of an app's limit is used, ``per_s`` where it has none; ``every_s`` 0 = only on demand.

        A process that dies is followed by another one after ``lease_s``; its cursor is at most a few steps behind.
        """
        self._db = db
        self._vault = vault
        self._sender = sender
        self._registry = registry
        self._every_s = every_s
        self._share = share
        self._per_s = per_s
        self._lease_s = lease_s
        self._paces: dict[int, Pace] = {}
        self._owner = new_id()
        self.found: Counter[str] = Counter()
        self.calls = 0

    async def look(self) -> bool:
        """Do a slice of every app's run; True: there is more."""
        await store.begin_due(self._db, every_s=self._every_s)
        known = self._registry().apps
        apps = [known[app_id] for app_id in await store.waiting(self._db, self._owner) if app_id in known]
        slices = [self._slice(app) for app in apps if app.suspended is None and app.mode != "x"]
        more = False
        for ended in await asyncio.gather(*slices, return_exceptions=True):
            if isinstance(ended, BaseException):
                # One app's trouble stops no other app's audit.
                log.error("audit_broken", exc_info=ended)
            else:
                more |= ended
        return more

    async def _slice(self, app: App) -> bool:
        run = await store.take(self._db, app.id, self._owner, lease_s=self._lease_s)
        if run is None:
            return False
        if not run.steps:
            await self._size(app, run)
        deadline = boottime() + _SLICE_S
        while boottime() < deadline:
            places = await store.steps(
                self._db, app.id, app.mode, run.at, run_id=run.id, sweep=self._sweep(run), limit=_STEPS
            )
            if not places:
                await store.finish(self._db, run, self._owner)
                if app.shadow:
                    await shadow.forget(self._db, app.id)
                log.info("audit_done", app=app.name, run=run.id, why=run.why)
                return False
            try:
                ours = await self._steps(app, run, places)
            except Stopped as stopped:
                log.warning("audit_waits", app=app.name, verdict=stopped.answer.verdict.value)
                return False
            if not ours:
                return False
            run = replace(run, at=cursor(places[-1]))
        return True

    async def _steps(self, app: App, run: Run, places: list[Place]) -> bool:
        """Compare some places one after the other and write down that this was done; False: the run is not ours."""
        tally = Tally()
        look = Look(
            self._db, self._vault, app, run, Looker(self._sender, self._vault, app, self._pace(app), tally), tally
        )
        at, done = run.at, 0
        try:
            for place in places:
                if app.shadow:
                    await follow_place(look, place)
                else:
                    self.found.update(one.kind.value for one in await compare_place(look, place))
                at, done = cursor(place), done + 1
                crashpoint("in_audit")
        finally:
            tally.steps = done
            self.calls += tally.calls
            await store.resolve(self._db, run, places[:done])
            ours = await store.progress(self._db, run, self._owner, lease_s=self._lease_s, at=at, tally=tally)
        return ours

    async def _size(self, app: App, run: Run) -> None:
        steps = await store.count(self._db, app.id, app.mode, run_id=run.id, sweep=self._sweep(run))
        await store.size(self._db, run, self._owner, steps)

    def _sweep(self, run: Run) -> int:
        # After a restore nothing is left for another time.
        return 1 if run.why == "restore" else SWEEP

    def _pace(self, app: App) -> Pace:
        per_s = app.rate * self._share if app.rate is not None else self._per_s
        pace = self._paces.get(app.id)
        if pace is None or pace.per_s != per_s:
            pace = self._paces[app.id] = Pace(per_s)
        return pace


def cursor(place: Place) -> tuple[int, int, int]:
    """Return how a run remembers that it has passed a place."""
    return place.pool_id, place.x_id, place.extension or 0
