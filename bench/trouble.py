"""What is done to a broker under load: workers killed or frozen, PostgreSQL restarted, checkpoints, a snapshot held."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from bench.crash.points import workers_of
from bench.mixed import kill_a_worker
from bench.scenario_file import Faults
from bench.stack import BenchError, Stack

_LIMIT_S = 5.0
_CHECKPOINT_S = 300.0
_BACKEND = """
SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() LIMIT 1
"""


@asynccontextmanager
async def trouble(faults: Faults, stack: Stack) -> AsyncIterator[dict[str, int]]:
    """Make trouble until the end of the block; the counts say how often each was done."""
    done: dict[str, int] = {}
    kinds: list[tuple[str, float | None, Callable[[], Awaitable[int]]]] = [
        ("killed", faults.kill_every_s, lambda: _kill(stack)),
        ("frozen", faults.freeze_every_s, lambda: _freeze(stack, faults.freeze_s)),
        ("postgres_restarts", faults.restart_postgres_every_s, lambda: _restart_postgres(stack)),
        ("checkpoints", faults.checkpoint_every_s, lambda: _checkpoint(stack)),
    ]
    tasks = [asyncio.create_task(_again(done, name, every, act)) for name, every, act in kinds if every is not None]
    holder = await _hold(stack) if faults.held_snapshot else None
    try:
        yield done
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        if holder is not None:
            holder.terminate()


async def _again(done: dict[str, int], name: str, every_s: float, act: Callable[[], Awaitable[int]]) -> None:
    done[name] = 0
    while True:
        await asyncio.sleep(every_s)
        done[name] += await act()


async def _kill(stack: Stack) -> int:
    return kill_a_worker(stack.pid)


async def _freeze(stack: Stack, seconds: float) -> int:
    victim = next(workers_of(stack.pid), None)
    if victim is None:
        return 0
    with suppress(ProcessLookupError):
        os.kill(victim, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(victim, signal.SIGCONT)
    return 1


async def _restart_postgres(stack: Stack) -> int:
    """End one of its processes hard: it ends all of them, recovers from its log, and starts anew."""
    with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        db = await asyncpg.connect(stack.database, timeout=_LIMIT_S)
        try:
            pid = await db.fetchval(_BACKEND, timeout=_LIMIT_S)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                return 1
        finally:
            db.terminate()
    return 0


async def _checkpoint(stack: Stack) -> int:
    with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
        db = await asyncpg.connect(stack.database, timeout=_LIMIT_S)
        try:
            await db.execute("CHECKPOINT", timeout=_CHECKPOINT_S)
        finally:
            db.terminate()
        return 1
    return 0


async def _hold(stack: Stack) -> asyncpg.Connection[Any]:
    """Begin a transaction that sees what is now, and let nothing that ends meanwhile be cleaned away."""
    try:
        db = await asyncpg.connect(stack.database, timeout=_LIMIT_S)
        await db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM app", timeout=_LIMIT_S)
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise BenchError(f"The snapshot to be held could not be taken: {error}") from None
    return db
