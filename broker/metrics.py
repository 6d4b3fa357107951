"""What an instance counts, each value in one place: its name, its help, its labels.

Every process keeps its values in files of a folder of its parent's (prometheus-client's multiprocess mode), named after
its seat and not its process id: the successor of a worker that died counts on where it stopped, so counters outlive
`kill -9` and the files do not become more with every restart. They are written once a second. Labels are few and
bounded, never numbers or ids.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client import Counter, Gauge, Histogram, values
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import Metric

_FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
#: Methods that are counted by their name: what a client may invent must not become series.
_METHODS = frozenset({"GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS"})
_HTTP_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 3, 10, 30)
_PUSH_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5)
_PLATFORM_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


def keep_in(folder: str, seat: str) -> None:
    """Have this process keep the metrics that it makes from now on in files of ``folder``."""
    os.environ[_FOLDER_VARIABLE] = folder
    values.ValueClass = values.MultiProcessValue(lambda: seat)


def _counter(name: str, words: str, *labels: str) -> Counter:
    return Counter(f"broker_{name}", words, labels, registry=None)


def _gauge(name: str, words: str, *labels: str, most: bool = False) -> Gauge:
    """Gauges end with their process; of several processes their sum counts, or the largest."""
    mode = "livemax" if most else "livesum"
    return Gauge(f"broker_{name}", words, labels, registry=None, multiprocess_mode=mode)  # type: ignore[arg-type]


def _histogram(name: str, words: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
    return Histogram(f"broker_{name}", words, labels, registry=None, buckets=buckets)


class Tally:
    """Counts, and durations of the same things, in plain memory until they are written.

    A note costs 0.5 µs; a count and a duration straight into the shared file cost 5 (labels, locks, three writes), and
    a confirmed binding has two of them.
    """

    def __init__(self, counter: Counter, histogram: Histogram, buckets: tuple[float, ...]) -> None:
        self._counter = counter
        self._histogram = histogram
        self._bounds = (*buckets, float("inf"))
        self._counts: dict[tuple[object, ...], int] = {}
        self._times: dict[tuple[object, ...], list[float]] = {}

    def note(self, counted: tuple[object, ...], timed: tuple[object, ...], seconds: float) -> None:
        """Count under the labels ``counted`` and put the duration under ``timed``."""
        self._counts[counted] = self._counts.get(counted, 0) + 1
        times = self._times.get(timed)
        if times is None:
            times = self._times[timed] = [0.0] * (len(self._bounds) + 1)
        times[bisect_left(self._bounds, seconds)] += 1
        times[-1] += seconds

    def write(self) -> None:
        """Add everything noted to the metrics."""
        for labels, count in self._counts.items():
            self._counter.labels(*labels).inc(count)
        for labels, (*buckets, total) in self._times.items():
            child = self._histogram.labels(*labels)
            # The library has no way to add many at once.
            child._sum.inc(total)  # noqa: SLF001
            for bucket, fallen in zip(child._buckets, buckets, strict=True):  # noqa: SLF001
                bucket.inc(fallen)
        self._counts.clear()
        self._times.clear()


class Metrics:
    """All of them. Making the object makes the series that have no labels, at 0.

    Raises:
        OSError: the folder of :func:`keep_in` cannot be written.
    """

    def __init__(self) -> None:
        self.http_requests = _counter(
            "http_requests", "Requests answered, by pattern of the route.", "route", "method", "status"
        )
        self.http_seconds = _histogram(
            "http_request_duration_seconds", "From a request's head to its answer.", "route", "method", buckets=_HTTP_S
        )
        self.replays = _counter("idempotency_replays", "Answers given again for an Idempotency-Key.")
        self.requests_refused = _counter(
            "requests_refused", "Requests refused at once because they would have waited too long.", "reason"
        )
        self.requests_in_work = _gauge("requests_in_work", "Requests, and items of batches, that wait for us.")
        self.request_wait = _gauge(
            "request_wait_seconds", "What a request that came now would wait for those before it.", most=True
        )
        self.shedding = _gauge("shedding", "1 = more is asked for than can be done: some is refused.", most=True)
        self.binds = _counter("binds", "Outcomes of binds at the platform; active is the good one.", "outcome")
        self.releases = _counter("releases", "Lines whose end the platform confirmed.")
        self.allocation_batches = _counter("allocation_batches", "Rounds of allocation.")
        self.allocation_items = _counter("allocation_items", "Orders in those rounds; divide for the batch size.")
        self.lost_rounds = _counter("allocation_lost_rounds", "Orders that lost a round to another process.")
        self.refusals = _counter("allocation_refusals", "Pools that had no X for an order, by main reason.", "reason")
        self.platform_calls = _counter("platform_calls", "Calls to the platform that ended.", "op", "outcome")
        self.platform_seconds = _histogram(
            "platform_call_duration_seconds", "From its turn to its answer.", "op", buckets=_PLATFORM_S
        )
        self.platform_in_flight = _gauge("platform_calls_in_flight", "Calls being sent or answered.", "op")
        self.lane_waiting = _gauge("lane_waiting", "Calls that wait for their turn.", "app")
        self.lane_oldest = _gauge("lane_oldest_seconds", "Age of the one that waits longest.", "app", most=True)
        self.lane_shut = _gauge("lane_shut", "1 = nothing is sent: the secret is wrong.", "app", most=True)
        self.source_blocked = _gauge(
            "source_blocked_seconds", "How long the platform still blocks our address; 0 = it does not.", most=True
        )
        self.lane_grants = _counter("lane_grants", "Turns granted.", "app")
        self.lane_pauses = _counter("lane_pauses", "Pauses that the platform asked for.", "app")
        self.settle_batches = _counter("settle_batches", "Statements that write outcomes.", "statement")
        self.settle_items = _counter("settle_items", "Outcomes in them.", "statement")
        self._make_housekeeping()
        self._make_pools()
        self.evacuated_lines = _counter(
            "evacuated_lines",
            "Lines of evacuated numbers that began to move (won), or why they wait.",
            "outcome",
        )
        self.drift_found = _counter(
            "drift_found", "Differences between platform and books that an audit found.", "kind"
        )
        self.drift_open = _gauge("drift_open", "Differences that are open; should be 0.", "app", "kind", most=True)
        self.calls_dead = _gauge(
            "calls_dead", "Calls that kept failing and wait for an operator; should be 0.", "app", most=True
        )
        self.audit_calls = _counter("audit_calls", "Calls to the platform that audits made.")
        self.picked = _counter("picked_numbers", "Numbers that the platform picked, by whose they were.", "owner")
        self.pushes = _counter("pushes", "Notifications answered, by the kind in their path.", "kind", "outcome")
        self.push_seconds = _histogram(
            "push_duration_seconds", "From a notification's head to its answer.", "kind", buckets=_PUSH_S
        )
        self.questions = _counter("questions", "Questions of the platform, by our answer.", "kind", "answer")
        self.notices = _counter("notices", "Things told, by what became of them.", "kind", "outcome")
        self.inbox_waiting = _gauge("inbox_waiting", "Notifications whose effects are to come.", most=True)
        self.inbox_oldest = _gauge("inbox_oldest_seconds", "Age of the one that waits longest.", most=True)
        self._make_events()
        self.rescued = _counter("rescued_calls", "Calls taken over from an owner that died or froze.")
        self.database_flights = _counter("database_flights", "Statements sent to the database.")
        self.database_away = _counter("database_unavailable", "Statements that got no answer.")
        self.connections_in_use = _gauge("database_connections_in_use", "Of the pools' connections.")
        self.loop_lag = _gauge(
            "event_loop_lag_seconds", "Longest delay of a timer in the last 15 s.", "worker", most=True
        )
        self.workers_ready = _gauge("workers_ready", "Workers that serve.")
        self.worker_restarts = _counter("worker_restarts", "Workers that ended without being told to.")
        self.build_info = _gauge("build_info", "1, labelled with what runs.", "version", "python", most=True)
        self.push_tally = Tally(self.pushes, self.push_seconds, _PUSH_S)
        self.http = Tally(self.http_requests, self.http_seconds, _HTTP_S)
        self.platform = Tally(self.platform_calls, self.platform_seconds, _PLATFORM_S)

    def _make_pools(self) -> None:
        self.late_calls = _gauge(
            "wrong_person_exposure",
            "Calls later than the quarantine, for a million orders: counted (calls), and their upper limit (high).",
            "app",
            "pool",
            "figure",
            most=True,
        )
        self.pool_left = _gauge(
            "pool_left",
            "Share of a pool that is left, of its places or for its busiest party; counted every minute or so.",
            "app",
            "pool",
            most=True,
        )
        self.pool_level = _gauge(
            "pool_level", "0 = well, 1 = low, 2 = exhausted, as it was told last.", "app", "pool", most=True
        )
        self.numbers_over = _gauge(
            "numbers_over_budget", "Numbers over a budget of their app, by budget.", "app", "budget", most=True
        )
        self.numbers_hot = _gauge(
            "numbers_hot", "Numbers that carry as many calls an hour as their app lets them, or more.", "app", most=True
        )

    def _make_housekeeping(self) -> None:
        self.swept = _counter(
            "swept_lines", "Bindings and peers that expired or were withdrawn, lines renewed.", "kind"
        )
        self.forgotten = _counter("forgotten_rows", "Rows of what had ended that were deleted.", "kind")
        self.retention_behind = _gauge(
            "retention_behind_seconds", "Since when a walk that deletes has been due; 0 = it is not.", "kind", most=True
        )
        self.retention_oldest = _gauge(
            "retention_oldest_seconds", "Age of the oldest row, whether it lives or has ended.", "kind", most=True
        )

    def _make_events(self) -> None:
        self.events_placed = _counter("events_placed", "Events given their position in a feed.")
        self.webhook_deliveries = _counter(
            "webhook_deliveries", "Events sent to webhooks, by what came of it.", "outcome"
        )
        self.webhook_seconds = _histogram(
            "webhook_duration_seconds", "From sending an event to a webhook to its answer.", buckets=_HTTP_S
        )

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an HTTP request."""
        method = method if method in _METHODS else "other"
        self.http.note((route, method, status), (route, method), seconds)

    def pushed(self, kind: str, outcome: str, seconds: float) -> None:
        """Count a notification."""
        self.push_tally.note((kind, outcome), (kind,), seconds)

    def asked(self, kind: str, answer: str) -> None:
        """Count a question."""
        self.questions.labels(kind, answer).inc()

    def write(self) -> None:
        """Put what was noted since the last time where the parent reads it."""
        self.push_tally.write()
        self.http.write()
        self.platform.write()

    def families(self) -> Iterator[Metric]:
        """Return name, help and type of each, without values."""
        for one in vars(self).values():
            if isinstance(one, MetricWrapperBase):
                yield from one.describe()
