"""``/metrics``: what all processes of this instance count, from the folder they keep it in."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from broker.errors import Problem
from broker.metrics import Metrics

log = structlog.get_logger()

_PREFIX = "broker-metrics-"
_LOCK = "lock"
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class MetricsFolder:
    """A fresh folder for each start, so that nothing stale is ever counted; removed at the end."""

    def __init__(self, base: str) -> None:
        """Make it below ``base`` ("" = the system's temporary folder), and remove those of parents that were killed.

        Raises:
            OSError: ``base`` cannot be written.
        """
        parent = Path(base or tempfile.gettempdir())
        _clear_abandoned(parent)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        fresh = self.path / "locking"
        self._lock = fresh.open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Under its name only once it is held: a free lock means an abandoned folder.
        fresh.rename(self.path / _LOCK)

    def forget(self, seat: str) -> None:
        """Drop the gauges of a process that ended; its counters stay."""
        mark_process_dead(seat, str(self.path))

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()

    def families(self) -> Sequence[Metric]:
        """Return the values of all processes together.

        Raises:
            OSError: the folder or a file cannot be read.
        """
        files = [str(path) for path in self.path.iterdir() if path.suffix == ".db"]
        return list(MultiProcessCollector.merge(files))


class MetricsPage(Collector):
    """Renders the folder, beside the loop: many series take tens of milliseconds."""

    def __init__(self, folder: MetricsFolder, metrics: Metrics) -> None:
        """``metrics`` names the families: those without a value yet are shown, too."""
        self._folder = folder
        self._known = list(metrics.families())
        self._rendering = asyncio.Lock()
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Return every family, in the order of their definition."""
        found = {family.name: family for family in self._folder.families()}
        for known in self._known:
            yield found.get(known.name, known)

    async def show(self, _request: web.Request) -> web.Response:
        """``GET /metrics``."""
        try:
            async with self._rendering:
                body = await asyncio.to_thread(generate_latest, self._registry)
        except (OSError, ValueError, RuntimeError, struct.error) as error:
            log.error("metrics_unreadable", error=type(error).__name__)  # noqa: TRY400 - its kind says it
            words = error.strerror if isinstance(error, OSError) else "a file in it is broken"
            raise Problem(f"The metrics cannot be read from {self._folder.path}: {words}.") from None
        return web.Response(body=body, headers={"Content-Type": _TEXT})


def _clear_abandoned(base: Path) -> None:
    for folder in base.glob(f"{_PREFIX}*"):
        try:
            with (folder / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue
