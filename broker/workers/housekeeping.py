"""What any instance does in turn so that the books stay in order: ends, counts, partitions, leftovers; in slices."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice

import structlog

from broker.clock import boottime
from broker.crashpoints import crashpoint
from broker.domain.cooldown import exposure
from broker.domain.drift import Kind
from broker.metrics import Metrics
from broker.store import (
    bindings,
    call_back,
    calls,
    drift,
    events,
    failing,
    idempotency,
    inbox,
    learned,
    peers,
    reach,
    retention,
    webhooks,
)
from broker.store.bindings import ReleaseAsk
from broker.store.database import Database
from broker.store.registry import Registry

log = structlog.get_logger()

_SWEEP_SLICE = 500
_HISTORY_AHEAD_WEEKS = 2
_EVENTS_AHEAD_DAYS = 2
_EVENT_PAGES = 100
#: So many times as long as a slice of deleting took, its walk pauses: a fifth of one connection's time at most.
_REST = 4
#: Pools whose exposure is a metric.
_NAMED_POOLS = 100
#: Apps whose open differences and dead calls are metrics.
_NAMED_APPS = 100


class Housekeeping:
    """Each method is one slice and tells whether there is more."""

    def __init__(
        self, db: Database, metrics: Metrics, registry: Callable[[], Registry], *, expiry_grace_s: float
    ) -> None:
        """``expiry_grace_s``: so long after a line's end the platform is left to end it by itself."""
        self._db = db
        self._metrics = metrics
        self._registry = registry
        self._expiry_grace_s = expiry_grace_s

    async def sweep(self) -> bool:
        """End what is over, and begin renewals. True: there is more."""
        swept = await calls.sweep(self._db, limit=_SWEEP_SLICE, grace_s=self._expiry_grace_s)
        for kind, lines in swept._asdict().items():
            self._metrics.swept.labels(kind).inc(lines)
        if any(swept):
            log.info("lines_swept", **swept._asdict())
            crashpoint("in_sweep")
        gone = await peers.sweep(self._db, limit=_SWEEP_SLICE)
        self._metrics.swept.labels("peers").inc(gone)
        return max(sum(swept), gone) >= _SWEEP_SLICE

    async def count_drift(self) -> bool:
        """Tell how many differences to the platform are open."""
        counted = {(row["app_id"], row["kind"]): row["many"] for row in await drift.open_findings(self._db)}
        for app in islice(self._registry().apps.values(), _NAMED_APPS):
            for kind in Kind:
                self._metrics.drift_open.labels(app.name, kind.value).set(counted.get((app.id, kind.value), 0))
        return False

    async def withdraw(self) -> bool:
        """Withdraw pending binds whose clients have gone, where an app says so."""
        if all(app.withdraw_after_s is None for app in self._registry().apps.values()):
            return False
        overdue = await failing.overdue(self._db, limit=_SWEEP_SLICE)
        if overdue:
            await bindings.release(self._db, overdue, reason="withdrawn", lease_s=0.0)
            self._metrics.swept.labels("withdrawn").inc(len(overdue))
            log.info("binds_withdrawn", bindings=len(overdue))
        return len(overdue) >= _SWEEP_SLICE

    async def count_dead(self) -> bool:
        """Tell how many calls are dead, and forget the failures of settled ones."""
        counted = await failing.dead(self._db)
        for app in islice(self._registry().apps.values(), _NAMED_APPS):
            self._metrics.calls_dead.labels(app.name).set(counted.get(app.id, 0))
        return await failing.sweep(self._db, limit=_SWEEP_SLICE) >= _SWEEP_SLICE

    async def count_exposure(self) -> bool:
        """Tell what each pool's quarantine leaves, and forget what is too old."""
        pools = list(islice(self._registry().pools.values(), _NAMED_POOLS))
        known = await learned.of_pools(self._db, [pool.id for pool in pools])
        for pool in pools:
            left = exposure(known[pool.id].cohorts, pool.app.quarantine_s)
            if left is not None:
                gauge = self._metrics.late_calls
                gauge.labels(pool.app.name, pool.name, "calls").set(left.per_million)
                gauge.labels(pool.app.name, pool.name, "high").set(left.high)
        return await learned.forget(self._db, limit=_SWEEP_SLICE) >= _SWEEP_SLICE

    async def tend_history(self) -> bool:
        """Make and drop partitions of the history, one step. True: there is another one."""
        step = await reach.tend(self._db, ahead_weeks=_HISTORY_AHEAD_WEEKS, limit=_SWEEP_SLICE)
        if step is not None:
            log.info("history_tended", step=step)
        return step is not None

    async def tend_notices(self) -> bool:
        """The same of what the platform told; and forget ends by events of what has ended."""
        step = await inbox.tend(self._db, ahead=_HISTORY_AHEAD_WEEKS, limit=_SWEEP_SLICE)
        if step is not None:
            log.info("notices_tended", step=step)
        gone = await inbox.forget_ends(self._db, limit=_SWEEP_SLICE)
        gone = max(gone, await call_back.forget(self._db, limit=_SWEEP_SLICE))
        return step is not None or gone >= _SWEEP_SLICE

    async def tend_events(self) -> bool:
        """The same of events; then bury messages whose events are gone."""
        if await events.tend(self._db, days_ahead=_EVENTS_AHEAD_DAYS, slice_=_EVENT_PAGES):
            return True
        await webhooks.bury(self._db)
        return False

    async def forget_ended(self) -> bool:
        """Delete a slice of each kind of what has ended and is not kept any more."""
        more = False
        for kind in retention.KINDS:
            began = boottime()
            done = await retention.forget(self._db, kind, limit=_SWEEP_SLICE)
            if done is None:
                continue
            self._metrics.forgotten.labels(kind).inc(done.gone)
            if done.more:
                more = True
                await asyncio.sleep(_REST * (boottime() - began))
        return more

    async def count_retention(self) -> bool:
        """Tell whether deleting keeps up, and how old the oldest rows are."""
        for kind, seconds in (await retention.behind(self._db)).items():
            self._metrics.retention_behind.labels(kind).set(seconds)
        made = await retention.oldest(self._db)
        for kind in ("line", "binding"):
            age_s = (datetime.now(UTC) - made[kind]).total_seconds() if kind in made else 0.0
            self._metrics.retention_oldest.labels(kind).set(max(age_s, 0.0))
        return False

    async def sweep_idempotency(self) -> bool:
        """Forget what is older than a day."""
        return await idempotency.sweep(self._db, limit=_SWEEP_SLICE) >= _SWEEP_SLICE


async def release_abandoned(db: Database, queue: deque[tuple[float, ReleaseAsk]]) -> None:
    """Release claims that were answered 'not now' but turned up committed; look again for the others for a while."""
    looked = [queue[place] for place in range(min(len(queue), _SWEEP_SLICE))]
    if not looked:
        return
    begun = await bindings.release(db, [ask for _, ask in looked], reason="withdrawn", lease_s=0.0)
    for (until, ask), one in zip(looked, begun, strict=True):
        queue.popleft()
        if one is None and boottime() < until:
            queue.append((until, ask))
    found = sum(one is not None for one in begun)
    if found:
        log.warning("abandoned_released", found=found)
