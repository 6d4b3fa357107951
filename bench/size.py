"""From a measured run to an installation: workers, connections, PostgreSQL's cores, X numbers, with the model shown.

The model: each binding costs what it cost in the run; a process that is busy to the share u answers within
p99 = S * ln(100) / (1 - u) (one server, arrivals by chance), where S is what the run itself says: its p99 at its own u.
So the p99 asked for sets the highest u, and the rate asked for by u sets the cores. X numbers follow from the bound
X* = max(D, E / cap): D the most X barred for one phone, E the live lines.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from bench.stack import BenchError

#: Above this share of a processor nothing is promised: checkpoints, vacuum and neighbours want their part.
MOST_BUSY: Final = 0.7
#: What is left for X that are frozen, and for choices that are not perfect.
X_RESERVE: Final = 1.2
#: The default of a worker.
_LEAST_CONNECTIONS: Final = 8
_TAIL: Final = math.log(100)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for; ``per_party`` is the most orders of one phone in a lifetime and the rest after it."""

    rate: float
    p99_ms: float
    lifetime_s: float
    quarantine_s: float
    per_party: int
    cap: int
    cities: int


@dataclass(frozen=True, slots=True)
class Measured:
    """What the model takes from a run (medians of its runs)."""

    rate: float
    p99_ms: float
    service_us: float
    postgres_us: float
    wal_bytes: float
    flights: float
    statement_ms: float
    workers: int
    cores: int
    platform_ms: float

    @property
    def busy(self) -> float:
        """Return how busy the busiest part was: its workers, or the machine."""
        of_workers = self.rate * self.service_us / 1e6 / self.workers
        return min(max(of_workers, 0.01), 0.95)

    @property
    def service_ms(self) -> float:
        """Return S of the model."""
        return max(self.p99_ms - self.platform_ms, 0.1) * (1 - self.busy) / _TAIL


@dataclass(frozen=True, slots=True)
class Size:
    """The advice."""

    busy: float
    workers: int
    postgres_cores: int
    connections: int
    wal_mib_per_s: float
    live: int
    x_numbers: int


def measured(result: Mapping[str, Any]) -> Measured:
    """Take what the model needs.

    Raises:
        BenchError: the run has no cost.
    """
    costs = [run["cost"] for run in result["runs"] if "cost" in run]
    if not costs:
        raise BenchError("This result has no costs: it is of somebody else's broker, or of one that was killed.")

    def middle(values: list[float]) -> float:
        return float(statistics.median(values))

    calls = sum(one["calls"] for one in costs[-1]["statements"])
    spent = sum(one["calls"] * one["mean_ms"] for one in costs[-1]["statements"])
    return Measured(
        rate=middle([run["confirmed_per_s"] for run in result["runs"]]),
        p99_ms=middle([run["latency_ms"].get("p99", 0.0) for run in result["runs"]]),
        service_us=middle([one["cpu_us"]["workers"] + one["cpu_us"]["parent"] for one in costs]),
        postgres_us=middle([one["cpu_us"]["postgres"] for one in costs]),
        wal_bytes=middle([one["wal_bytes"] for one in costs]),
        flights=middle([one["sql_flights"] for one in costs]),
        statement_ms=spent / calls if calls else 0.0,
        workers=result["scenario"]["broker"]["workers"],
        cores=result["machine"]["cores"],
        platform_ms=result["scenario"]["platform"].get("median_ms") or 0.0,
    )


def size(of: Measured, wanted: Wanted) -> Size:
    """Apply the model.

    Raises:
        BenchError: no load is small enough for the p99 that is asked for.
    """
    busy = min(1 - of.service_ms * _TAIL / wanted.p99_ms, MOST_BUSY)
    if busy <= 0.02:
        least = of.service_ms * _TAIL
        raise BenchError(
            f"A p99 of {wanted.p99_ms:g} ms is less than an idle broker of this run adds ({least:.1f} ms)."
        )
    at_once = wanted.rate * of.flights * of.statement_ms / 1e3 / busy
    workers = max(math.ceil(wanted.rate * of.service_us / 1e6 / busy), 1)
    live = math.ceil(wanted.rate * wanted.lifetime_s)
    per_city = max(wanted.per_party, live / wanted.cities / wanted.cap)
    return Size(
        busy=busy,
        workers=workers,
        postgres_cores=max(math.ceil(wanted.rate * of.postgres_us / 1e6 / busy), 1),
        connections=max(math.ceil(at_once), workers * _LEAST_CONNECTIONS),
        wal_mib_per_s=wanted.rate * of.wal_bytes / 2**20,
        live=live,
        x_numbers=wanted.cities * math.ceil(per_city * X_RESERVE),
    )


def words(of: Measured, wanted: Wanted, found: Size) -> str:
    """Tell the advice and how it came about."""
    barred = wanted.per_party
    return "\n".join(
        [
            f"For {wanted.rate:,.0f} binds/s with a p99 of at most {wanted.p99_ms:g} ms beyond the platform's own:",
            (
                f"  {found.workers} workers (a core each), {found.postgres_cores} PostgreSQL cores,"
                f" {found.connections} connections, WAL {found.wal_mib_per_s:.1f} MiB/s"
            ),
            f"  {found.x_numbers:,} X numbers in {wanted.cities} cities for {found.live:,} live bindings",
            "How:",
            (
                f"  the run: {of.rate:,.0f}/s at p99 {of.p99_ms:.1f} ms on {of.workers} workers and {of.cores} cores,"
                f" each binding {of.service_us:.0f} us of service, {of.postgres_us:.0f} us of PostgreSQL,"
                f" {of.wal_bytes:,.0f} bytes of WAL, {of.flights:.3f} round trips of {of.statement_ms:.1f} ms"
            ),
            (
                f"  its workers were {of.busy:.0%} busy, so S = {of.p99_ms - of.platform_ms:.1f} ms"
                f" * (1 - {of.busy:.2f}) / ln 100 = {of.service_ms:.2f} ms"
            ),
            f"  p99 = S * ln 100 / (1 - u) <= {wanted.p99_ms:g} ms allows u = {found.busy:.0%} (most {MOST_BUSY:.0%})",
            (
                f"  workers = rate * {of.service_us:.0f} us / u; PostgreSQL cores = rate * {of.postgres_us:.0f} us / u;"
                f" connections = rate * trips * time / u, at least {_LEAST_CONNECTIONS} each"
            ),
            (
                f"  X a city = {X_RESERVE:g} * max({barred} orders of one phone in {wanted.lifetime_s:g} s and"
                f" {wanted.quarantine_s:g} s of rest, {found.live / wanted.cities:,.0f} live / cap {wanted.cap})"
            ),
        ]
    )
