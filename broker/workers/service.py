"""Background loops with a start and a stop."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import structlog

from broker.errors import Problem

log = structlog.get_logger()


class Periodic:
    """Runs ``work()`` every ``every_s`` seconds (with jitter), at once again while it returns True (= more to do)."""

    def __init__(self, name: str, every_s: float, work: Callable[[], Awaitable[bool]]) -> None:
        """Describe the loop."""
        self.name = name
        self._every_s = every_s
        self._work = work
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the loop lives."""
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._loop(), name=self.name)

    async def stop(self) -> None:
        """End, in the middle of the work if need be."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _loop(self) -> None:
        while True:
            more = False
            try:
                more = await self._work()
            except Problem as problem:
                log.warning("service_waits", service=self.name, code=problem.code)
            except Exception:
                log.exception("service_failed", service=self.name)
            await asyncio.sleep(0 if more else self._every_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
