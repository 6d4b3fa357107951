"""What a window looked like second by second: rates and latencies, processors, WAL, memory."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from bench.cost import Parts, cpu_by_role
from bench.crash.points import workers_of
from bench.figures import Sample, histogram, percentiles
from bench.stack import Stack

_EVERY_S = 0.5
_POINTS = 120
_SHARES = (0, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 100)
_WAL = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Look:
    """Counters at one moment; ``wal_bytes`` None = the database was away."""

    at: float
    cpu_s: dict[str, float]
    wal_bytes: int | None
    worker_mib: float


@dataclass(slots=True)
class Series:
    """Looks in their order."""

    looks: list[Look] = field(default_factory=list)

    def told(self, begin: float) -> dict[str, Any]:
        """Return what was spent between each two looks: cores by role, bytes of WAL a second, MiB of the workers."""
        pairs = list(zip(self.looks, self.looks[1:], strict=False))
        roles = self.looks[0].cpu_s if self.looks else {}
        return {
            "t": [round(later.at - begin, 2) for _, later in pairs],
            "cores": {
                role: [
                    round(max(later.cpu_s[role] - one.cpu_s[role], 0.0) / (later.at - one.at), 3)
                    for one, later in pairs
                ]
                for role in roles
            },
            "wal_bytes_per_s": [
                None
                if later.wal_bytes is None or one.wal_bytes is None
                else round((later.wal_bytes - one.wal_bytes) / (later.at - one.at))
                for one, later in pairs
            ],
            "worker_mib": [round(later.worker_mib, 1) for _, later in pairs],
        }


@asynccontextmanager
async def watching(stack: Stack, parts: Parts) -> AsyncIterator[Series]:
    """Look at the processes again and again, until the end of the block."""
    series = Series()
    task = asyncio.create_task(_watch(stack, parts, series))
    try:
        yield series
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _watch(stack: Stack, parts: Parts, series: Series) -> None:
    db: asyncpg.Connection[Any] | None = None
    try:
        while True:
            wal = None
            try:
                if db is None or db.is_closed():
                    db = await asyncpg.connect(stack.database, timeout=_EVERY_S)
                wal = await db.fetchval(_WAL, timeout=_EVERY_S)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                db = None  # it is being restarted: the next look tries again
            workers = tuple(workers_of(stack.pid))
            cpu_s, _ = cpu_by_role(Parts(parts.parent, (*parts.workers, *workers), parts.load))
            series.looks.append(Look(time.monotonic(), cpu_s, wal, sum(map(_mib, workers)) / max(len(workers), 1)))
            await asyncio.sleep(_EVERY_S)
    finally:
        if db is not None:
            db.terminate()


def _mib(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE / 2**20
    except (OSError, IndexError):
        return 0.0


def answers(samples: Sequence[Sample], begin: float, end: float) -> dict[str, list[float | None]]:
    """Return confirmed binds a second, and p50 and p99 in milliseconds, in equal parts of the window."""
    width = max((end - begin) / _POINTS, 0.25)
    parts: list[list[float]] = [[] for _ in range(int((end - begin) / width) or 1)]
    for intended, event in samples:
        place = int((event.done - begin) / width)
        if event.op == "bind" and event.outcome == "ok" and event.done >= begin and place < len(parts):
            parts[place].append(event.done - intended)
    found = [percentiles(histogram(part)) for part in parts]
    return {
        "t": [round((place + 0.5) * width, 2) for place in range(len(parts))],
        "confirmed_per_s": [round(len(part) / width, 1) for part in parts],
        "p50_ms": [one.get("p50") for one in found],
        "p99_ms": [one.get("p99") for one in found],
    }


def distribution(seconds: Iterable[float]) -> list[tuple[float, float]]:
    """Return (percent, milliseconds): so many of the binds took at most so long."""
    made = histogram(seconds)
    if not made.get_total_count():
        return []
    return [(share, made.get_value_at_percentile(share) / 1e3) for share in _SHARES]
