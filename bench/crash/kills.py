"""Killing at each point, and the judgement after each (P3)."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench.crash.environment import HASTE, variables
from bench.crash.orders import FAULTS, FULL, Orders, add_faults, fault_hits, judge_all, rescued
from bench.crash.points import KILLED, Point, Trap, advance, kill_one
from bench.stack import BenchError, Stack, running

MODES: Final = ("axb", "axe", "axyb", "ax")
_WARM_S: Final = 1.0
#: Longer than the shortest lifetime and what clocks are moved at a time; and how long until that is swept.
_OVER_S, _SWEPT_S = 150.0, 5.0
#: Clients repeat what was not answered for so long, or a little longer.
_LATE_S: Final = 120.0
#: Longer than all leases, retries and waits for absence of a call together.
_SETTLE_S, _SETTLE_DEFAULT_S = 90.0, 240.0


async def kill_at_all(options: argparse.Namespace) -> dict[str, Any]:
    """Kill at each of the points; ``violations`` is empty if nothing was lost, doubled or leaked."""
    began = time.monotonic()
    points = [await _kill_at(KILLED[name], options) for name in options.points]
    violations = [f"{one['point']}: {words}" for one in points for words in one.pop("violations")]
    return {
        "kills": sum(one["kills"] for one in points), "seconds": round(time.monotonic() - began, 1),
        "modes": options.modes, "workers": options.workers, "clients": options.clients * len(options.modes),
        "default_times": options.default_times, "full": options.full,
        "orders": sum(one["answered"].get("bind", 0) for one in points),
        "taken_over": sum(one["taken_over"] for one in points),
        "axyb_lost_answers": sum(one["axyb_lost_answers"] for one in points),
        "points": points, "violations": violations[:40], "violations_in_all": len(violations),
    }  # fmt: skip


async def _kill_at(point: Point, options: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    with TemporaryDirectory(prefix="broker-crash-") as folder:
        trap = Trap(Path(folder) / "hit")
        haste = {} if options.default_times else HASTE
        with variables({**haste, **point.settings, **trap.environment(point, "kill")}):
            async with running(options.workers, None, *point.options) as stack:
                return await _measure(stack, trap, point, options, began)


async def _measure(stack: Stack, trap: Trap, point: Point, options: argparse.Namespace, began: float) -> dict[str, Any]:
    loads = [
        await Orders.prepare(stack, mode, place, options.clients, moving=bool(point.advance_s))
        for place, mode in enumerate(options.modes)
    ]
    await add_faults(stack, [*FAULTS, {**FULL, "share": options.full}] if options.full else FAULTS)
    killed = await _kill_amid(loads, stack, trap, point, options.kills)
    loaded = time.monotonic()
    if point.advance_s:
        # What the platform and our books end at different moments, because clocks were moved in between, is over then.
        await advance(stack, _OVER_S)
        await asyncio.sleep(_SWEPT_S)
    violations = await judge_all(stack, loads, settle_s=_SETTLE_DEFAULT_S if options.default_times else _SETTLE_S)
    settled = time.monotonic()
    print(f" in {settled - began:.0f} s, {len(violations)} violations", file=sys.stderr)
    for words in violations:
        print(f"  {words}", file=sys.stderr)
    failed = [await one.failed() for one in loads if one.mode == "axyb"]
    return {
        "point": point.name, "kills": killed, "seconds": round(settled - began, 1),
        "settled_s": round(settled - loaded, 1), "answered": dict(sum((one.asked() for one in loads), Counter[str]())),
        "taken_over": await rescued(stack), "faults": await fault_hits(stack),
        "ends": {one.mode: await one.ends() for one in loads},
        "axyb_lost_answers": sum(one.get("outcome_unknown", 0) for one in failed), "violations": violations,
    }  # fmt: skip


async def _kill_amid(loads: Sequence[Orders], stack: Stack, trap: Trap, point: Point, kills: int) -> int:
    """Let all loads work until so many were killed; return how many were."""
    tasks = [asyncio.create_task(one.load.run(), name=one.app) for one in loads]
    killed = 0
    try:
        await asyncio.sleep(_WARM_S)
        while killed < kills and not any(task.done() for task in tasks):
            moved_s = await kill_one(stack, trap, point)
            killed += 1
            for one in loads:
                one.moved(moved_s)
            print(f"\r{point.name:<14} {killed}/{kills} kills", end="", file=sys.stderr, flush=True)
    finally:
        trap.shut()
        for one in loads:
            one.load.stop()
        late = (await asyncio.wait(tasks, timeout=_LATE_S))[1]
        for task in late:
            task.cancel()
    if late:
        raise BenchError("The load did not end; the broker may be stuck.")
    await asyncio.gather(*tasks)
    return killed
