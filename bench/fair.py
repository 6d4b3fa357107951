"""``python -m bench.fair``: one caller asks for a hundred times its share of an app's limit.

Twenty callers bind at half of their shares, by turns alone and beside that one, which does not wait for its answers.
Their latency counts from when a bind was due, until its 201.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import asyncpg
import orjson

from bench.batches import Items
from bench.machine import machine
from bench.options import measured
from bench.scenario import Scenario, Shape, prepare
from bench.stack import BenchError, Stack, running
from broker.api.auth import new_key
from broker.store.registry import hash_key
from broker.store.statements import statements

_DRAIN_S = 120.0
_HEAD_START_S = 2.0
_MOST_IN_FLIGHT = 2_000
#: Orders of one request of the caller that asks for too much: it is to load the lane, not the machine.
_BATCH = 50


@dataclass(slots=True)
class Seen:
    """Statuses and latencies in seconds."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def ms(self, share: float) -> float:
        """Return the latency that ``share`` did not exceed."""
        ordered = sorted(self.seconds)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1000 if ordered else 0.0


def main() -> int:
    """Measure; 1 = the others waited more than half as long again."""
    parser = argparse.ArgumentParser(
        prog="bench.fair", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=float, default=50.0, help="the app's limit, calls a second (default 50)")
    parser.add_argument("--others", type=int, default=20, help="callers that keep to their share (default 20)")
    parser.add_argument("--times", type=float, default=100.0, help="of its share that one asks for (default 100)")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a turn (default 15)")
    parser.add_argument("--turns", type=int, default=2, help="turns alone and beside it, each (default 2)")
    parser.add_argument("--answer-ms", type=int, default=30, help="how long the platform takes to answer (default 30)")
    parser.add_argument("--workers", type=int, default=2)
    return measured(parser, _measure)


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    here = machine(None)
    print(orjson.dumps(here).decode())
    share = options.rate / (options.others + 1)
    all_of = {False: Seen(), True: Seen()}
    async with running(options.workers) as stack:
        scenario = await prepare(stack, Shape(pools=4))
        keys = await callers(stack, options.others)
        await _delay(stack, options.answer_ms)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as http:
            for turn in range(2 * options.turns):
                crowded = turn % 2 == 1
                await _limit(stack, options.rate)
                seen, greedy = await _turn(options, stack, scenario, http, keys, share=share, crowded=crowded)
                all_of[crowded].seconds += seen.seconds
                all_of[crowded].statuses += seen.statuses
                print(
                    f"{'beside it' if crowded else 'alone'}: {len(seen.seconds)} binds of the others,"
                    f" p50 {seen.ms(0.5):.0f} ms, p99 {seen.ms(0.99):.0f} ms, answers {dict(seen.statuses)};"
                    f" of the one: {dict(greedy.statuses)}",
                    flush=True,
                )
                await _drain(stack)
    alone, beside = all_of[False].ms(0.99), all_of[True].ms(0.99)
    print(f"p99 alone {alone:.0f} ms, beside {options.times:g} shares {beside:.0f} ms: {beside / alone:.2f} times")
    violations = ["the others waited more than half as long again"] if beside > 1.5 * alone else []
    return {"machine": here, "beside_by_alone": {"p99": round(beside / alone, 3)}, "violations": violations}


async def _turn(
    options: argparse.Namespace,
    stack: Stack,
    scenario: Scenario,
    http: aiohttp.ClientSession,
    keys: list[str],
    *,
    share: float,
    crowded: bool,
) -> tuple[Seen, Seen]:
    seen, greedy = Seen(), Seen()
    until = time.monotonic() + options.seconds + _HEAD_START_S
    loads = []
    if crowded:
        loads.append(
            asyncio.create_task(
                _load(http, stack, scenario, scenario.api_key, share * options.times, until, greedy, wait=False)
            )
        )
    await asyncio.sleep(_HEAD_START_S)
    loads += [asyncio.create_task(_load(http, stack, scenario, key, share / 2, until, seen, wait=True)) for key in keys]
    await asyncio.gather(*loads)
    return seen, greedy


async def _load(
    http: aiohttp.ClientSession,
    stack: Stack,
    scenario: Scenario,
    key: str,
    rate: float,
    until: float,
    seen: Seen,
    *,
    wait: bool,
) -> None:
    """Bind at Poisson arrivals, whatever becomes of those before."""
    dice = random.Random()
    size = 1 if wait else _BATCH
    path = "/v1/bindings" if wait else "/v1/bindings:batch"
    items = Items(dice.getrandbits(32), scenario.pools)
    headers = {"Authorization": f"Bearer {key}", "Request-Timeout": "10"} | (
        {} if wait else {"Prefer": "respond-async"}
    )
    flying: set[asyncio.Task[None]] = set()

    async def one(due: float) -> None:
        body = orjson.dumps(items.good()) if wait else items.batch(size)
        async with http.post(stack.api + path, data=body, headers=headers) as response:
            await response.read()
        seen.statuses[response.status] += size
        seen.seconds.append(time.monotonic() - due)

    rate /= size
    due = time.monotonic() + dice.expovariate(rate)
    while due < until:
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        if len(flying) < _MOST_IN_FLIGHT:
            task = asyncio.create_task(one(due))
            flying.add(task)
            task.add_done_callback(flying.discard)
        due += dice.expovariate(rate)
    await asyncio.gather(*flying)


async def callers(stack: Stack, count: int) -> list[str]:
    """Add callers to the load's app; return a key of each."""
    sql = statements("config")
    keys = [new_key() for _ in range(count)]
    db = await asyncpg.connect(stack.database)
    try:
        app_id = await db.fetchval("SELECT id FROM app WHERE name = 'bench'")
        for place, key in enumerate(keys):
            caller = await db.fetchval(sql["add_caller"], app_id, f"other-{place}")
            await db.execute(sql["add_key"], hash_key(key), caller, ["bind", "read"], key[-4:])
    finally:
        await db.close()
    await asyncio.sleep(_HEAD_START_S)
    return keys


async def _limit(stack: Stack, rate: float | None) -> None:
    db = await asyncpg.connect(stack.database)
    try:
        burst = max(2, round((rate or 0) / 5))
        await db.execute("UPDATE app SET rate = $1, burst = $2 WHERE name = 'bench'", rate, burst)
    finally:
        await db.close()
    # A changed limit takes effect within two seconds everywhere.
    await asyncio.sleep(_HEAD_START_S)


async def _drain(stack: Stack) -> None:
    """Let what waits go out without a limit."""
    await _limit(stack, None)
    give_up = time.monotonic() + _DRAIN_S
    db = await asyncpg.connect(stack.database)
    try:
        while await db.fetchval("SELECT count(*) FROM platform_call WHERE state = 'open'"):
            if time.monotonic() > give_up:
                raise BenchError("The queue of platform calls does not drain.")
            await asyncio.sleep(0.2)
    finally:
        await db.close()


async def _delay(stack: Stack, ms: int) -> None:
    if ms:
        fault = {"interface": "bind", "kind": "delay", "ms": ms}
        async with aiohttp.ClientSession(raise_for_status=True) as http:
            await http.post(f"{stack.emulator_admin}/emulator/faults", json=fault)


if __name__ == "__main__":
    sys.exit(main())
