"""Bindings a second through ``POST /v1/bindings:batch`` with ``Prefer: respond-async``: allocated and committed.

``python -m bench.batch [--size 250] [--seconds 4] [--rate 50]`` starts a broker with everything it needs, sends batches
over a few connections, and compares what was answered 202 with the rows of the database. Every run has a fresh
database. ``--zipf`` runs in turn one pool and 300 pools, the k-th of which gets 1/k of the first one's traffic.

``--rate`` is the app's platform calls a second. The figure is of allocation and commit, so by default the calls go
slowly and do not compete for the two processors; they queue in the workers, which refuse more (503) at 30,000 each, so
a run must end before that. With ``--rate 0`` they go out as fast as they can while the batches come in.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import asyncpg
import orjson

from bench.batches import Items, Tally, send, session
from bench.cost import Parts, cost, snapshot
from bench.machine import machine
from bench.options import measured
from bench.scenario import Scenario, Shape, prepare
from bench.stack import Stack, running

_MOST_PER_S = 25_000  # bodies are made for that, beforehand


@dataclass(frozen=True, slots=True)
class _Traffic:
    name: str
    pools: int
    numbers: int
    zipf: bool = False


_EVEN = (_Traffic("8 pools", 8, 500),)
_ZIPF = (_Traffic("1 pool", 1, 2000), _Traffic("300 pools, Zipf", 300, 100, zipf=True))


def main() -> int:
    """Measure; 1 = what was answered is not what was committed."""
    parser = argparse.ArgumentParser(
        prog="bench.batch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=250, help="items of a request (default 250)")
    parser.add_argument("--clients", type=int, default=8, help="connections (default 8)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a run (default 4)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=50.0, help="platform calls a second; 0 = no limit (default 50)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--zipf", action="store_true", help="compare 300 pools with one, in turn")
    return measured(parser, _measure)


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    here = machine(None)
    print(orjson.dumps(here).decode())
    traffics = _ZIPF if options.zipf else _EVEN
    rates: dict[str, list[float]] = {traffic.name: [] for traffic in traffics}
    violations: list[str] = []
    for run in range(options.runs):
        for traffic in traffics:
            shape = Shape(pools=traffic.pools, numbers=traffic.numbers, rate=options.rate or None)
            async with running(options.workers) as stack:
                scenario = await prepare(stack, shape)
                db = await asyncpg.connect(stack.database)
                try:
                    rate, equal = await _run(options, run, traffic, stack, scenario, db)
                finally:
                    await db.close()
            rates[traffic.name].append(rate)
            if not equal:
                violations.append(f"{traffic.name}, run {run + 1}: what was answered 202 is not what was committed")
    medians = {name: statistics.median(found) for name, found in rates.items()}
    print("median: " + "; ".join(f"{name} {found:,.0f}/s" for name, found in medians.items()))
    if options.zipf:
        one, many = (rates[traffic.name] for traffic in _ZIPF)
        print("300 pools / 1 pool, run by run: " + " ".join(f"{m / o:.2f}" for o, m in zip(one, many, strict=True)))
    return {"machine": here, "bindings_per_s": rates, "violations": violations}


async def _run(
    options: argparse.Namespace,
    run: int,
    traffic: _Traffic,
    stack: Stack,
    scenario: Scenario,
    db: asyncpg.Connection[asyncpg.Record],
) -> tuple[float, bool]:
    """Return bindings a second, and whether exactly what was answered 202 is in the database."""
    items = Items(run, scenario.pools, zipf=traffic.zipf)
    bodies = [items.batch(options.size) for _ in range(int(options.seconds * _MOST_PER_S / options.size))]
    tally = Tally()
    await db.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    parts = Parts(stack.pid, stack.workers, (os.getpid(),))
    async with session(scenario.api_key, Prefer="respond-async") as http:
        before = await snapshot(db, parts)
        began = time.monotonic()
        until = began + options.seconds
        await asyncio.gather(*(send(http, stack.api, bodies, tally, until) for _ in range(options.clients)))
        elapsed = time.monotonic() - began
        after = await snapshot(db, parts)
    committed = await db.fetchval(
        "SELECT count(*) FROM binding AS b JOIN app AS a ON a.id = b.app_id WHERE a.name = 'bench'"
    )
    made = tally.statuses[202] + tally.statuses[201]
    spent = cost(before, after, made)
    statuses = {status: count for status, count in tally.statuses.items() if count}
    listed = [f"{one['name']} {one['exec_us']} us ({one['rows_per_call']} rows)" for one in spent["statements"][:6]]
    print(
        f"{traffic.name}, run {run + 1}: {made / elapsed:,.0f} bindings/s over {elapsed:.1f} s;"
        f" items {options.size}, clients {options.clients}, statuses {statuses}, committed {committed},"
        f" request p50 {tally.ms(0.5):.0f} ms, p99 {tally.ms(0.99):.0f} ms\n"
        f"  CPU us a binding {spent['cpu_us']}, WAL {spent['wal_bytes']:.0f} bytes,"
        f" others' CPU {spent['others_cpu_s']} s\n  {', '.join(listed)}"
    )
    return made / elapsed, bool(committed == made)


if __name__ == "__main__":
    sys.exit(main())
