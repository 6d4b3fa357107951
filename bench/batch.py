"""Bindings a second through ``POST /v1/bindings:batch`` with ``Prefer: respond-async``: allocated and committed.

``python -m bench.batch [--size 250] [--seconds 5] [--rate 50]`` starts a broker with everything it needs here, sends
batches over a few connections, and compares what was answered 202 with the rows of the database. ``--rate`` is the
app's platform calls a second: with a low one the figure is of allocation and commit; 0 lets the calls compete.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp
import asyncpg
import orjson

from bench.machine import machine
from bench.scenario import Scenario, Shape, prepare
from bench.stack import BenchError, Stack, running

_KNOWN_S = 2.5  # workers look for a changed configuration every second


@dataclass(slots=True)
class _Tally:
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


def main() -> int:
    """Measure; 1 = what was answered is not what was committed."""
    parser = argparse.ArgumentParser(
        prog="bench.batch", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=250, help="items of a request (default 250)")
    parser.add_argument("--clients", type=int, default=8, help="connections (default 8)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a run (default 5)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rate", type=float, default=50.0, help="platform calls a second; 0 = no limit (default 50)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pools", type=int, default=8)
    try:
        return asyncio.run(_measure(parser.parse_args()))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2


async def _measure(options: argparse.Namespace) -> int:
    wrong = 0
    print(orjson.dumps(machine(None)).decode())
    for run in range(options.runs):
        async with running(options.workers) as stack:
            scenario = await prepare(stack, Shape(pools=options.pools))
            db = await asyncpg.connect(stack.database)
            try:
                if options.rate:
                    await db.execute("UPDATE app SET rate = $1 WHERE name = 'bench'", options.rate)
                    await asyncio.sleep(_KNOWN_S)
                wrong += await _run(options, run, stack, scenario, db)
            finally:
                await db.close()
    return 1 if wrong else 0


async def _run(options: argparse.Namespace, run: int, stack: Stack, scenario: Scenario, db: asyncpg.Connection) -> bool:
    bodies = _bodies(options, scenario, random.Random(run))
    tally = _Tally()
    headers = {"Authorization": f"Bearer {scenario.api_key}", "Prefer": "respond-async", "Request-Timeout": "10"}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=0)) as http:
        began = time.monotonic()
        until = began + options.seconds
        await asyncio.gather(*(_client(http, stack.api, bodies, tally, until) for _ in range(options.clients)))
        elapsed = time.monotonic() - began
    committed = await db.fetchval(
        "SELECT count(*) FROM binding AS b JOIN app AS a ON a.id = b.app_id WHERE a.name = 'bench'"
    )
    tally.seconds.sort()
    print(
        f"run {run + 1}: {tally.statuses[202] / elapsed:,.0f} bindings/s over {elapsed:.1f} s; items {options.size},"
        f" clients {options.clients}, statuses {dict(tally.statuses)}, committed {committed},"
        f" request p50 {tally.seconds[len(tally.seconds) // 2] * 1000:.0f} ms,"
        f" p99 {tally.seconds[len(tally.seconds) * 99 // 100] * 1000:.0f} ms"
    )
    return bool(committed != tally.statuses[202])


async def _client(http: aiohttp.ClientSession, api: str, bodies: list[bytes], tally: _Tally, until: float) -> None:
    while time.monotonic() < until and bodies:
        began = time.monotonic()
        async with http.post(f"{api}/v1/bindings:batch", data=bodies.pop()) as response:
            answer = await response.read()
        tally.seconds.append(time.monotonic() - began)
        if response.status != 200:
            raise BenchError(f"A batch was answered {response.status}: {answer[:200]!r}")
        # Counted by the bytes of each item's head: reading the whole answer would be load on the same processors.
        for status in (201, 202, 409, 422, 500, 502, 503):
            tally.statuses[status] += answer.count(b'{"status":%d,' % status)


def _bodies(options: argparse.Namespace, scenario: Scenario, draw: random.Random) -> list[bytes]:
    """Make more than can be sent, beforehand."""
    count = int(options.seconds * 25_000 / options.size) + options.clients
    return [
        orjson.dumps(
            {
                "items": [
                    {
                        "a": f"+86{13_800_000_000 + draw.randrange(20_000)}",
                        "b": f"+86{15_000_000_000 + draw.randrange(90_000_000)}",
                        "pool": draw.choice(scenario.pools),
                        "order_id": f"o{draw.randrange(10**9)}",
                    }
                    for _ in range(options.size)
                ]
            }
        )
        for _ in range(count)
    ]


if __name__ == "__main__":
    sys.exit(main())
