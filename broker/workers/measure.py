"""Once a second: what the parts of a worker count for themselves becomes metrics.

Plain integers cost the hot path nothing. A `kill -9` loses what they counted since the last look.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping

import prometheus_client
import structlog

from broker.domain.admission import Gate
from broker.flows.allocators import Allocates
from broker.metrics import Metrics
from broker.store.database import Database
from broker.store.registry import Registry
from broker.workers.dispatch import Dispatcher
from broker.workers.lane import Lane
from broker.workers.sender import Sender

log = structlog.get_logger()

#: Apps that are told apart; all further ones are one.
_MOST_APPS = 100
_OTHER_APPS = "(others)"
_LAG_STEP_S = 0.1
_LAG_LOOKS = 15


class LoopLag:
    """How late the event loop runs what is due: the longest delay of a steady timer."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque([0.0], maxlen=_LAG_LOOKS)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(loop.time() + _LAG_STEP_S, self._tick, loop.time() + _LAG_STEP_S)

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()

    def longest(self) -> float:
        """Return the longest delay of the last looks, and begin another one."""
        longest = max(self._latest)
        self._latest.append(0.0)
        return longest

    def _tick(self, due: float) -> None:
        self._latest[-1] = max(self._latest[-1], asyncio.get_running_loop().time() - due)
        self.start()


class Measures:
    """Looks at the parts of one worker."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        worker: str,
        db: Database,
        allocator: Allocates,
        dispatcher: Dispatcher,
        sender: Sender,
        registry: Callable[[], Registry],
        in_flight: Mapping[str, int],
        gate: Gate,
    ) -> None:
        """``in_flight`` are platform calls by operation."""
        self._gate = gate
        self._shedding = False
        self._metrics = metrics
        self._worker = worker
        self._db = db
        self._allocator = allocator
        self._dispatcher = dispatcher
        self._sender = sender
        self._registry = registry
        self._in_flight = in_flight
        self._seen: dict[object, int] = {}
        self.lag = LoopLag()

    async def look(self) -> bool:
        """Take everything over; False: the next look can wait."""
        metrics, allocator = self._metrics, self._allocator
        metrics.write()
        self._rise(metrics.database_flights, self._db.flights)
        self._rise(metrics.database_away, self._db.away)
        self._rise(metrics.allocation_batches, allocator.batches)
        self._rise(metrics.allocation_items, allocator.items)
        self._rise(metrics.lost_rounds, allocator.lost_rounds)
        self._rise(metrics.releases, self._dispatcher.released)
        for outcome, count in self._dispatcher.outcomes.items():
            self._rise(metrics.binds, count, outcome)
        for owner, count in self._dispatcher.picked.items():
            self._rise(metrics.picked, count, owner)
        for statement, (batches, items) in self._dispatcher.batch_sizes().items():
            self._rise(metrics.settle_batches, batches, statement)
            self._rise(metrics.settle_items, items, statement)
        for reason, count in self._refusals().items():
            self._rise(metrics.refusals, count, reason)
        for op, count in self._in_flight.items():
            metrics.platform_in_flight.labels(op).set(count)
        metrics.connections_in_use.set(self._db.in_use)
        metrics.loop_lag.labels(self._worker).set(self.lag.longest())
        self._lanes()
        self._admission()
        return False

    def _admission(self) -> None:
        metrics, gate = self._metrics, self._gate
        for reason, count in gate.refused.items():
            self._rise(metrics.requests_refused, count, reason)
        metrics.requests_in_work.set(gate.items)
        metrics.request_wait.set(gate.expected_s())
        metrics.shedding.set(gate.shedding)
        if gate.shedding is not self._shedding:
            self._shedding = gate.shedding
            said = "overload_begun" if gate.shedding else "overload_over"
            log.warning(said, in_work=gate.items, refused=sum(gate.refused.values()))

    def _refusals(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for pool_id in self._registry().pools:
            found.update(self._allocator.refusals(pool_id))
        return found

    def _lanes(self) -> None:
        names = {app_id: self._registry().apps[app_id].name for app_id in sorted(self._registry().apps)[:_MOST_APPS]}
        by_name: dict[str, list[Lane]] = defaultdict(list)
        for app_id, lane in self._sender.lanes().items():
            by_name[names.get(app_id, _OTHER_APPS)].append(lane)
        metrics = self._metrics
        metrics.source_blocked.set(self._sender.blocked_s())
        for name, lanes in by_name.items():
            metrics.lane_waiting.labels(name).set(sum(lane.waiting for lane in lanes))
            metrics.lane_oldest.labels(name).set(max(lane.oldest_s() for lane in lanes))
            metrics.lane_shut.labels(name).set(max(lane.shut is not None for lane in lanes))
            for lane in lanes:
                self._rise(metrics.lane_grants, lane.granted, name, of=lane)
                self._rise(metrics.lane_pauses, lane.pauses, name, of=lane)

    def _rise(self, counter: prometheus_client.Counter, total: int, *labels: str, of: object = None) -> None:
        """Add what ``total`` has risen by since the last look; ``of``: one of several parts that share a series."""
        key = (counter, labels, of)
        (counter.labels(*labels) if labels else counter).inc(max(total - self._seen.get(key, 0), 0))
        self._seen[key] = total
