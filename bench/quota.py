"""``python -m bench.quota``: how soon an urgent order can call while an app's quota of platform calls is used up.

Orders that nobody waits for (batches with ``Prefer: respond-async``) fill the app's queue and keep it so long. Beside
them come urgent ones: of the same caller, told apart by a ``Request-Timeout`` of a second alone, and in a second window
of a caller of their own. What counts is the time from a binding's commit until it can be called, by the database.
Exit code 1 if an order got lost.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from typing import Any

import aiohttp
import asyncpg
import orjson
from rich.console import Console

from bench.batches import Items, session
from bench.fair import callers
from bench.figures import histogram, percentiles
from bench.machine import machine
from bench.options import measured, number
from bench.scenario import Scenario, Shape, prepare
from bench.stack import BenchError, Stack, running

_BATCH = 100
_LOOK_S = 0.5
_LONGEST_S = 120.0
_WAITING = """
SELECT count(*) AS calls, coalesce(extract(epoch FROM max(broker_now() - created_at)), 0)::float AS oldest_s
FROM platform_call WHERE state = 'open'
"""
_TOOK = """
SELECT extract(epoch FROM l.confirmed_at - b.created_at)::float AS took_s
FROM binding AS b JOIN line AS l ON l.pool_id = b.pool_id AND l.id = b.line_id
WHERE b.order_id LIKE $1 || '%'
"""


def main() -> int:
    """Measure; 1 = an order got lost."""
    parser = argparse.ArgumentParser(
        prog="bench.quota", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rate", type=number(1, 500), default=50.0, help="the app's platform calls a second")
    parser.add_argument("--queue", type=number(1, 120), default=30.0, help="seconds that the queue is long")
    parser.add_argument("--urgent", type=number(0.5, 100), default=5.0, help="urgent orders a second")
    parser.add_argument("--seconds", type=number(1, 300), default=15.0, help="of each window")
    parser.add_argument("--workers", type=int, default=2)
    return measured(parser, _measure)


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": machine(None), "windows": {}, "violations": []}
    console = Console(stderr=True)
    async with running(options.workers) as stack:
        scenario = await prepare(stack, Shape(pools=8, numbers=500, rate=options.rate))
        (own,) = await callers(stack, 1)
        db = await asyncpg.connect(stack.database)
        try:
            with console.status("a queue of platform calls is made"):
                crowd = _Crowd(stack, scenario, db, round(options.rate * options.queue))
                keeping = asyncio.create_task(crowd.keep())
                await crowd.full()
            for name, key in (("same_caller", scenario.api_key), ("own_caller", own)):
                with console.status(f"urgent orders, {name.replace('_', ' ')}: {options.seconds:g} s"):
                    window = await _urgent(options, stack, scenario, db, key, name)
                found["windows"][name] = window
                if window["lost"]:
                    found["violations"].append(f"{name}: {window['lost']} urgent orders got lost")
            keeping.cancel()
            found["queue"] = crowd.told()
        finally:
            await db.close()
    for name, window in found["windows"].items():
        told = window["callable_s"]
        print(
            f"{name}: {window['orders']} urgent orders can call after p50 {told['p50']:.2f} s, p99 {told['p99']:.2f} s"
        )
    return found


class _Crowd:
    """Orders that nobody waits for."""

    def __init__(self, stack: Stack, scenario: Scenario, db: asyncpg.Connection[Any], calls: int) -> None:
        """``calls`` are to wait."""
        self._stack = stack
        self._scenario = scenario
        self._db = db
        self._calls = calls
        self._items = Items(1, scenario.pools)
        self._is_full = asyncio.Event()
        self._answers: Counter[str] = Counter()
        self._waited: list[int] = []
        self._oldest_s = 0.0

    def told(self) -> dict[str, Any]:
        """Return how many have waited at least and at most, for how long the oldest, and what all were answered."""
        least, most = min(self._waited, default=0), max(self._waited, default=0)
        return {
            "calls": {"least": least, "most": most},
            "oldest_s": round(self._oldest_s, 1),
            "answers": dict(self._answers),
        }

    async def full(self) -> None:
        """Wait until so many wait."""
        async with asyncio.timeout(_LONGEST_S):
            await self._is_full.wait()

    async def keep(self) -> None:
        """Send as many as have left the queue, until cancelled."""
        headers = {"Prefer": "respond-async", "Request-Timeout": "30"}
        db = await asyncpg.connect(self._stack.database)
        try:
            async with session(self._scenario.api_key) as http:
                while True:
                    (row,) = await db.fetch(_WAITING)
                    waiting = row["calls"]
                    missing = self._calls - waiting
                    if missing < _BATCH:
                        self._is_full.set()
                    if self._is_full.is_set():
                        self._waited.append(waiting)
                        self._oldest_s = max(self._oldest_s, row["oldest_s"])
                    for _ in range(missing // _BATCH):
                        await self._send(http, headers)
                    await asyncio.sleep(_LOOK_S)
        finally:
            await db.close()

    async def _send(self, http: aiohttp.ClientSession, headers: dict[str, str]) -> None:
        url = f"{self._stack.api}/v1/bindings:batch"
        async with http.post(url, data=self._items.batch(_BATCH), headers=headers) as response:
            for item in orjson.loads(await response.read()).get("items", ()):
                self._answers[str(item["status"])] += 1


async def _urgent(
    options: argparse.Namespace, stack: Stack, scenario: Scenario, db: asyncpg.Connection[Any], key: str, name: str
) -> dict[str, Any]:
    """Bind at an even rate; return what was answered, and how soon all of them could call."""
    items, answers = Items(len(name), scenario.pools), Counter[str]()
    number_of = round(options.urgent * options.seconds)

    async def one(place: int) -> None:
        await asyncio.sleep(place / options.urgent)
        body = orjson.dumps(items.good() | {"order_id": f"{name}-{place}"})
        async with http.post(f"{stack.api}/v1/bindings", data=body, headers={"Request-Timeout": "1"}) as response:
            await response.read()
        answers[str(response.status)] += 1

    async with session(key) as http:
        await asyncio.gather(*(one(place) for place in range(number_of)))
    accepted = answers["201"] + answers["202"]
    give_up = time.monotonic() + _LONGEST_S
    while len(took := [row["took_s"] for row in await db.fetch(_TOOK, name)]) < accepted or None in took:
        if time.monotonic() > give_up:
            break
        await asyncio.sleep(_LOOK_S)
    done = [one for one in took if one is not None]
    if not done:
        raise BenchError(f"No urgent order was bound; the answers were {dict(answers)}.")
    figures = percentiles(histogram(done))
    return {
        "orders": number_of, "answers": dict(answers), "lost": accepted - len(done),
        "callable_s": {share: round(ms / 1000, 3) for share, ms in figures.items()},
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
