"""How soon the calls of a killed process are settled, at the times that users have (P4)."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
from typing import Any, Final

import asyncpg

from bench.check import check_books
from bench.crash.orders import add_faults
from bench.crash.pinned import pinned
from bench.crash.points import workers_of
from bench.figures import histogram, percentiles
from bench.scenario import Shape, prepare
from bench.stack import Stack, running

#: Answers take so long: many calls are under way, with a lease each, when their process dies.
_SLOW: Final = ({"interface": "*", "kind": "delay", "ms": 1500},)
_WARM_S: Final = 4.0
#: Longer than the promise.
_WATCH_S: Final = 22.0
_PROMISE_S: Final = 15.0
_SETTLE_S: Final = 60.0
_SHAPE: Final = Shape(pools=1, numbers=400, cap=500, quarantine_s=1)

_NOW: Final = "SELECT clock_timestamp()"
#: What was under way at the moment of the kill and has had another owner since.
_ORPHANS: Final = """
SELECT extract(epoch FROM settled_at - $1)::float8 AS after_s FROM platform_call
WHERE token > 1 AND created_at <= $1 AND (settled_at IS NULL OR settled_at > $1)
"""


async def take_over(options: argparse.Namespace) -> dict[str, Any]:
    """Kill a process amid its calls, again and again, and see when others have settled them."""
    # A release before the confirmation is not asked for here, so no X has to be kept for absence's sake.
    async with running(options.workers) as stack:
        scenario = await prepare(stack, _SHAPE)
        await add_faults(stack, _SLOW)
        kills: list[list[float | None]] = []
        async with pinned(stack.api, scenario.api_key, options.clients) as _:
            for number in range(options.kills):
                await asyncio.sleep(_WARM_S)
                kills.append(await _kill(stack))
                settled = [one for one in kills[-1] if one is not None]
                print(f"kill {number + 1}: {len(kills[-1])} calls taken over, the last one settled after"
                      f" {max(settled, default=0.0):.1f} s", file=sys.stderr)  # fmt: skip
        violations = await check_books(stack.database, stack.vault(), stack.emulator_admin, settle_s=_SETTLE_S)
    every = [one for kill in kills for one in kill]
    settled = [one for one in every if one is not None]
    after_ms = percentiles(histogram(settled))
    if len(settled) < len(every):
        violations.append(f"{len(every) - len(settled)} calls were not settled {_WATCH_S:g} s after a kill")
    if after_ms.get("p99", 0.0) > _PROMISE_S * 1000:
        violations.append(f"p99 is more than {_PROMISE_S:g} s")
    return {
        "kills": len(kills), "workers": options.workers, "clients": options.clients, "calls_taken_over": len(every),
        "settled_after_ms": after_ms, "violations": violations[:40], "violations_in_all": len(violations),
    }  # fmt: skip


async def _kill(stack: Stack) -> list[float | None]:
    db = await asyncpg.connect(stack.database)
    try:
        victim = random.choice(list(workers_of(stack.pid)))
        os.kill(victim, signal.SIGKILL)
        at = await db.fetchval(_NOW)
        await asyncio.sleep(_WATCH_S)
        return [row["after_s"] for row in await db.fetch(_ORPHANS, at)]
    finally:
        await db.close()
