"""One window of load: the processes that make it, what they saw, and what was measured beside them."""

from __future__ import annotations

import asyncio
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import asyncpg

from bench.cost import Parts, Snapshot, snapshot
from bench.figures import Sample
from bench.load import read_samples
from bench.plan import Plan
from bench.scenario_file import Faults
from bench.series import Series, watching
from bench.stack import BenchError, Stack
from bench.trouble import trouble

_START_AHEAD_S = 0.3
_READY_S = 30.0

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Window:
    """What the load processes saw from ``begin`` to ``end`` (monotonic), and what it cost."""

    begin: float
    end: float
    samples: list[Sample]
    before: Snapshot | None = None
    after: Snapshot | None = None
    series: Series = field(default_factory=Series)
    troubles: dict[str, int] = field(default_factory=dict)


async def run_window(
    plan: Plan,
    folder: Path,
    progress: Progress,
    *,
    warmup_s: float,
    processes: int = 1,
    stack: Stack | None = None,
    db: asyncpg.Connection[Any] | None = None,
    faults: Faults | None = None,
) -> Window:
    """Run the load processes once; the window begins after the warm-up.

    With ``stack`` processors are watched, with ``db`` costs are read too. Faults are done in the window.
    """
    faults = faults or Faults()
    outs = [folder / f"{plan.seed}-{number}" for number in range(processes)]
    running: list[Process] = []
    async with AsyncExitStack() as exits:
        exits.push_async_callback(_end_all, running)
        for number, out in enumerate(outs):
            running.append(await _start_load(_share(plan, processes, number, out)))
        await asyncio.gather(*(_hear_ready(process) for process in running))
        start = time.monotonic() + _START_AHEAD_S
        for process in running:
            _tell(process, f"{start}\n".encode())
        begin, end = start + warmup_s, start + plan.seconds
        counts = [0] * processes
        for number, process in enumerate(running):
            counting = asyncio.create_task(_count(process, counts, number))
            exits.callback(counting.cancel)

        def tell(share: float) -> None:
            rate = sum(counts) / max(time.monotonic() - start, 1.0)
            progress(f"{rate:,.0f} confirmed/s", share)

        await _wait_until(begin, start, end, tell)
        series, troubles = Series(), dict[str, int]()
        before = None
        if stack is not None:
            parts = Parts(stack.pid, stack.workers, tuple(process.pid for process in running))
            if db is not None and faults.checkpoint:
                await db.execute("CHECKPOINT")
            before = await snapshot(db, parts) if db is not None else None
            series = await exits.enter_async_context(watching(stack, parts))
            troubles = await exits.enter_async_context(trouble(faults, stack))
        await _wait_until(end, start, end, tell)
        after = await snapshot(db, parts) if stack is not None and db is not None else None
        if any([await process.wait() for process in running]):
            raise BenchError("A load process failed; its message is above.")
    samples = [sample for out in outs for sample in read_samples(out)]
    return Window(begin, end, samples, before, after, series, troubles)


async def _end_all(running: list[Process]) -> None:
    for process in running:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _share(plan: Plan, count: int, number: int, out: Path) -> Plan:
    """Return the part of one of the load processes."""
    connections = plan.connections // count + (number < plan.connections % count)
    return replace(
        plan,
        connections=max(connections, 1),
        rate=plan.rate / count,
        steps=tuple((at, rate / count) for at, rate in plan.steps),
        keep=None if plan.keep is None else max(plan.keep // count, 1),
        max_requests=plan.max_requests // count,
        seed=plan.seed + number,
        out=str(out),
    )


async def _start_load(plan: Plan) -> Process:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.load", stdin=PIPE, stdout=PIPE)
    _tell(process, plan.line())
    return process


def _tell(process: Process, line: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 - asked for with PIPE
    process.stdin.write(line)


async def _hear_ready(process: Process) -> None:
    assert process.stdout is not None  # noqa: S101 - asked for with PIPE
    if not await asyncio.wait_for(process.stdout.readline(), _READY_S):
        raise BenchError("A load process could not connect; its message is above.")


async def _count(process: Process, counts: list[int], number: int) -> None:
    """Take in how many were confirmed so far, until the process ends."""
    assert process.stdout is not None  # noqa: S101 - asked for with PIPE
    async for line in process.stdout:
        counts[number] = int(line)


async def _wait_until(moment: float, start: float, end: float, tell: Callable[[float], None]) -> None:
    while (left := moment - time.monotonic()) > 0:
        tell(min(max((time.monotonic() - start) / (end - start), 0.0), 1.0))
        await asyncio.sleep(min(left, 0.25))
