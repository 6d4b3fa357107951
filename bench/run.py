"""One measurement: windows of load over a prepared broker, their cost, and the check of everything at the end."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg

from bench.check import check_books, check_promises
from bench.cost import Parts, Snapshot, cost, snapshot
from bench.figures import Sample, closed_window, open_window
from bench.history import Operation, check_history
from bench.load import read_samples
from bench.machine import load_average, machine, server
from bench.plan import Plan
from bench.scenario import Scenario, Shape, prepare
from bench.stack import BenchError, Stack, address, running

_START_AHEAD_S = 0.3
_READY_S = 30.0
_SETTLE_S = 30.0

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Ask:
    """What to measure."""

    plan: Plan
    warmup_s: float
    runs: int
    workers: int
    load_processes: int
    shape: Shape
    target: str | None = None
    own_target: bool = False
    state_root: Path | None = None
    checkpoint: bool = False


@dataclass(frozen=True, slots=True)
class Window:
    """What the load processes saw from ``begin`` to ``end`` (monotonic), and what it cost."""

    begin: float
    end: float
    samples: list[Sample]
    before: Snapshot | None
    after: Snapshot | None


async def measure(ask: Ask, progress: Progress) -> dict[str, Any]:
    """Measure and check; ``violations`` of the result is empty if every promise held."""
    async with AsyncExitStack() as exits:
        folder = Path(exits.enter_context(TemporaryDirectory(prefix="broker-bench-samples-")))
        if ask.target is not None:
            host, port = address(ask.target, mine=ask.own_target)
            return await _measure(
                replace(ask, plan=replace(ask.plan, host=host, port=port)), None, None, folder, progress
            )
        progress("starting the broker", 0.0)
        stack = await exits.enter_async_context(running(ask.workers, ask.state_root))
        scenario = await prepare(stack, ask.shape)
        host, port = address(stack.api, mine=False)
        plan = replace(
            ask.plan, host=host, port=port, api_key=scenario.api_key, pools=scenario.pools, couriers=ask.shape.couriers
        )
        return await _measure(replace(ask, plan=plan), stack, scenario, folder, progress)


async def _measure(
    ask: Ask, stack: Stack | None, scenario: Scenario | None, folder: Path, progress: Progress
) -> dict[str, Any]:
    db = await asyncpg.connect(stack.database) if stack is not None else None
    try:
        if db is not None:
            await db.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        result: dict[str, Any] = {
            "machine": machine(stack.folder if stack else None),
            "postgres": await server(db) if db is not None else None,
            "scenario": _described(ask),
            "runs": [],
        }
        operations: list[Operation] = []
        for run in range(ask.runs):
            plan = replace(ask.plan, seed=ask.plan.seed + 1000 * run)
            window = await run_window(replace(ask, plan=plan), stack, db, folder, _part(progress, run, ask.runs))
            operations.extend(operation for _, operation in window.samples)
            result["runs"].append(_judged(ask, window))
    finally:
        if db is not None:
            await db.close()
    progress("checking the books", 1.0)
    began = time.monotonic()
    result["violations"] = await _violations(operations, ask, stack, scenario)
    result["checked"] = {"operations": len(operations), "seconds": round(time.monotonic() - began, 1)}
    return result


async def _violations(
    operations: Sequence[Operation], ask: Ask, stack: Stack | None, scenario: Scenario | None
) -> list[str]:
    if stack is None or scenario is None:
        # Neither rest nor cap of somebody else's app is known: no rest is demanded, and the platform's own cap.
        return check_history(operations, quarantine_s=0.0, cap=5000, sharing=True)
    found = check_history(operations, quarantine_s=scenario.quarantine_s, cap=scenario.cap)
    found += await check_books(stack.database, stack.vault(), stack.emulator_admin, settle_s=_SETTLE_S)
    may_expire = 0 < ask.plan.ttl_s < 600
    found += await check_promises(stack.database, operations, settle_s=_SETTLE_S, expired=may_expire)
    return found


async def run_window(
    ask: Ask, stack: Stack | None, db: asyncpg.Connection[Any] | None, folder: Path, progress: Progress
) -> Window:
    """Run the load processes once; the window begins after the warm-up."""
    plan = ask.plan
    outs = [folder / f"{plan.seed}-{number}" for number in range(ask.load_processes)]
    processes: list[Process] = []
    try:
        for number, out in enumerate(outs):
            processes.append(await _start_load(_share(plan, ask, number, out)))
        await asyncio.gather(*(_hear_ready(process) for process in processes))
        start = time.monotonic() + _START_AHEAD_S
        for process in processes:
            _tell(process, f"{start}\n".encode())
        begin, end = start + ask.warmup_s, start + plan.seconds
        parts = Parts(stack.pid, stack.workers, tuple(process.pid for process in processes)) if stack else None
        await _wait_until(begin, start, end, progress)
        if db is not None and ask.checkpoint:
            await db.execute("CHECKPOINT")
        before = await snapshot(db, parts) if db is not None and parts is not None else None
        await _wait_until(end, start, end, progress)
        after = await snapshot(db, parts) if db is not None and parts is not None else None
        if any([await process.wait() for process in processes]):
            raise BenchError("A load process failed; its message is above.")
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    return Window(begin, end, [sample for out in outs for sample in read_samples(out)], before, after)


def _share(plan: Plan, ask: Ask, number: int, out: Path) -> Plan:
    """Return the part of one of the load processes."""
    count = ask.load_processes
    connections = plan.connections // count + (number < plan.connections % count)
    return replace(
        plan,
        connections=max(connections, 1),
        rate=plan.rate / count,
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


async def _wait_until(moment: float, start: float, end: float, progress: Progress) -> None:
    while (left := moment - time.monotonic()) > 0:
        progress("loading", min(max((time.monotonic() - start) / (end - start), 0.0), 1.0))
        await asyncio.sleep(min(left, 0.25))


def _judged(ask: Ask, window: Window) -> dict[str, Any]:
    figures = (closed_window if ask.plan.kind == "closed" else open_window)(window.samples, window.begin, window.end)
    figures["load_average"] = load_average()
    # Costs are read a few milliseconds after the window's edges; what is confirmed in them is counted with it.
    if window.before is not None and window.after is not None:
        figures["cost"] = cost(window.before, window.after, figures["confirmed"])
    return figures


def _described(ask: Ask) -> dict[str, Any]:
    plan, shape = ask.plan, ask.shape
    told: dict[str, Any] = {
        "kind": plan.kind, "connections": plan.connections, "keep_alive": plan.keep_alive,
        "idempotency_keys": plan.idempotency, "release_after_s": plan.release_after_s, "ttl_s": plan.ttl_s,
        "seconds": plan.seconds - ask.warmup_s, "warmup_s": ask.warmup_s, "load_processes": ask.load_processes,
    }  # fmt: skip
    if plan.kind == "open":
        told |= {"rate": plan.rate, "arrivals": plan.arrivals}
    if ask.target is not None:
        return {**told, "target": ask.target}
    settings = {name: value for name, value in sorted(os.environ.items()) if name.startswith("BROKER_")}
    return {
        **told, "workers": ask.workers, "pools": shape.pools, "numbers_per_pool": shape.numbers, "cap": shape.cap,
        "quarantine_s": shape.quarantine_s, "couriers": shape.couriers, "app_rate": shape.rate,
        "checkpoint": ask.checkpoint or None, "broker_settings": settings,
    }  # fmt: skip


def _part(progress: Progress, run: int, runs: int) -> Progress:
    return lambda what, share: progress(f"{what}, run {run + 1} of {runs}", (run + share) / runs)
