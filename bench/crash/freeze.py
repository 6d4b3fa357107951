"""A process frozen at each point past its leases, and woken when its work is done by others (P5)."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp
import asyncpg

from bench.check import check_books, read_platform
from bench.crash.environment import HASTE, variables
from bench.crash.pinned import now, pinned, served
from bench.crash.points import FROZEN, Point, Trap, bring, workers_of
from bench.scenario import Scenario, Shape, prepare
from bench.stack import BenchError, Stack, running
from broker.domain.ids import public_id

_WARM_S: Final = 2.0
_BEFORE_S: Final = 5.0
#: Beyond the lease: whoever looks for calls without an owner has looked twice.
_BEYOND_S: Final = 3.0
_SETTLE_S: Final = 60.0
_AWAKE_S: Final = 3.0
_LOOK_S: Final = 0.1
#: So soon one who is awake has answered.
_ANSWERED_S: Final = 2.0
_AT_ONCE: Final = 16
#: So soon after the freeze a client of another process has had an answer.
_SOON_S: Final = 1.5
#: Room for all.
_SHAPE: Final = Shape(pools=1, numbers=200, cap=500, quarantine_s=1)

_CALLS: Final = "SELECT line_id::text || ' ' || no AS call, c::text AS all_of_it FROM platform_call AS c"
_LINES: Final = "SELECT id FROM line"
_OPEN: Final = "SELECT count(*) FROM platform_call WHERE state = 'open'"
_LIVE: Final = "SELECT pool_id, id FROM binding WHERE state IN ('pending', 'active')"


async def freeze_at_all(options: argparse.Namespace) -> dict[str, Any]:
    """Freeze a process at each of the points; ``violations`` is empty if nothing came of it."""
    points = [await _freeze_at(FROZEN[name], options) for name in options.points]
    violations = [f"{one['point']}: {words}" for one in points for words in one.pop("violations")]
    return {
        "workers": options.workers, "clients": options.clients, "default_times": options.default_times,
        "rate_kept_percent_min": min(one["rate_kept_percent"] for one in points),
        "p99_ms_max": max(one["during_ms"].get("p99", 0.0) for one in points),
        "stale_effects": sum(one["stale_effects"] for one in points),
        "stale_requests": sum(one["stale_requests"] for one in points),
        "stale_settles": sum(one["stale_settles"] for one in points),
        "points": points, "violations": violations[:40], "violations_in_all": len(violations),
    }  # fmt: skip


async def _freeze_at(point: Point, options: argparse.Namespace) -> dict[str, Any]:
    with TemporaryDirectory(prefix="broker-freeze-") as folder:
        trap = Trap(Path(folder) / "hit")
        haste = {} if options.default_times else HASTE
        with variables({**haste, **point.settings, **trap.environment(point, "stop")}):
            async with running(options.workers, None, *point.options) as stack:
                scenario = await prepare(stack, _SHAPE)
                return await _measure(stack, scenario, trap, point, options)


async def _measure(
    stack: Stack, scenario: Scenario, trap: Trap, point: Point, options: argparse.Namespace
) -> dict[str, Any]:
    lease_s = float(os.environ.get("BROKER_LEASE_S", "8"))
    victim = None
    try:
        async with pinned(stack.api, scenario.api_key, options.clients) as clients:
            await asyncio.sleep(_WARM_S)
            began = now()
            await asyncio.sleep(_BEFORE_S)
            opened = now()
            trap.open()
            victim, _ = await bring(stack, trap, point)
            frozen = now()
            await asyncio.sleep(lease_s + _BEYOND_S)
            ended = now()
        living = [one for one in clients if any(frozen + _SOON_S < at for at, _ in one.binds)]
        woken = await _wake(stack, scenario, victim)
    finally:
        if victim is not None:
            _signal(victim, signal.SIGCONT)
    was, before_ms = served(living, began, opened)
    kept, during_ms = served(living, frozen, ended)
    violations = await check_books(stack.database, stack.vault(), stack.emulator_admin, settle_s=_SETTLE_S)
    violations += [
        f"{woken[name]} {name.replace('_', ' ')}" for name in ("stale_effects", "stale_settles") if woken[name]
    ]
    told = {
        "point": point.name, "clients_of_the_others": len(living), "before_per_s": round(was, 1),
        "during_per_s": round(kept, 1), "rate_kept_percent": round(100 * kept / was, 1) if was else 0.0,
        "before_ms": before_ms, "during_ms": during_ms, **woken,
    }  # fmt: skip
    print(f"{point.name:<14} {told['rate_kept_percent']} % of the rate, p99 {during_ms.get('p99', 0):.0f} ms,"
          f" {woken['stale_effects']} stale effects, {len(violations)} violations", file=sys.stderr)  # fmt: skip
    return {**told, "violations": violations}


async def _wake(stack: Stack, scenario: Scenario, victim: int) -> dict[str, Any]:
    """End all lines while the process still sleeps; then wake it, and see what it does to them."""
    await _settled(stack)
    await _release_all(stack, scenario)
    await _settled(stack)
    calls, lines = await _read(stack, _CALLS), await _read(stack, _LINES)
    ledger = len((await read_platform(stack.emulator_admin))[1])
    _signal(victim, signal.SIGCONT)
    await asyncio.sleep(_AWAKE_S)
    await _settled(stack)
    after = {row["call"]: row["all_of_it"] for row in await _read(stack, _CALLS)}
    old = {row["call"]: row["all_of_it"] for row in calls}
    # What it was asked before it froze and finds in its sockets now is new work, on lines of its own.
    new_lines = {row["id"].hex for row in await _read(stack, _LINES)} - {row["id"].hex for row in lines}
    rows = [row for row in (await read_platform(stack.emulator_admin))[1][ledger:] if _is_stale(row, new_lines)]
    return {
        "stale_effects": sum(row["result_code"] == "0" for row in rows),
        "stale_requests": len(rows),
        "stale_settles": sum(old[call] != after.get(call) for call in old),
        "gone_when_woken": victim not in set(workers_of(stack.pid)),
    }


def _is_stale(row: Mapping[str, Any], new_lines: set[str]) -> bool:
    mark = str(row["user_data"] or "").partition(".")[0]
    return row["request"] is not None and row["op"] in {"bind", "modify", "unbind"} and mark not in new_lines


async def _release_all(stack: Stack, scenario: Scenario) -> None:
    headers = {"Authorization": f"Bearer {scenario.api_key}", "Connection": "close"}
    connector = aiohttp.TCPConnector(limit=_AT_ONCE)
    async with aiohttp.ClientSession(
        headers=headers, connector=connector, timeout=aiohttp.ClientTimeout(sock_read=_ANSWERED_S)
    ) as http:

        async def release(binding: str) -> None:
            for _ in range(20):
                # A new connection may be the sleeper's: the next one need not.
                with suppress(TimeoutError, aiohttp.ClientError):
                    async with http.delete(f"{stack.api}/v1/bindings/{binding}") as answer:
                        await answer.read()
                    return

        live = await _read(stack, _LIVE)
        await asyncio.gather(*(release(public_id(row["pool_id"], row["id"])) for row in live))


async def _settled(stack: Stack) -> None:
    give_up = time.monotonic() + _SETTLE_S
    while (await _read(stack, _OPEN))[0]["count"]:
        if time.monotonic() > give_up:
            raise BenchError(f"Calls are still open {_SETTLE_S:g} s after the freeze.")
        await asyncio.sleep(_LOOK_S)


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


async def _read(stack: Stack, query: str) -> list[asyncpg.Record]:
    db = await asyncpg.connect(stack.database)
    try:
        return list(await db.fetch(query))
    finally:
        await db.close()
