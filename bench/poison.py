"""What poisonous items cost their neighbours: batches without and with them, in turn within one run.

``python -m bench.poison [--turns 8] [--seconds 2]`` starts a broker with everything it needs. In every other turn each
batch of good items has a bad one of each kind in it (bad number, unknown pool, oversized metadata, pair of our own X)
and one client sends nothing but a used ``Idempotency-Key`` with other bodies. Batches wait for the platform. The figure
is the p99 of the batches of all turns with poison by that of all turns without.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from typing import Any

import aiohttp
import orjson

from bench.batches import Items, Tally, send, session
from bench.machine import machine
from bench.options import measured
from bench.scenario import Scenario, Shape, prepare
from bench.stack import BenchError, Stack, running

_MOST_PER_S = 10_000  # bodies are made for that, beforehand
_WARM_UP_S = 1.0


def main() -> int:
    """Measure; 1 = a neighbour was not served, or a bad item was."""
    parser = argparse.ArgumentParser(
        prog="bench.poison", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=50, help="good items of a request (default 50)")
    parser.add_argument("--clients", type=int, default=4, help="connections (default 4)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn (default 2)")
    parser.add_argument("--turns", type=int, default=8, help="turns without and with poison each (default 8)")
    parser.add_argument("--workers", type=int, default=2)
    return measured(parser, _measure)


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    here = machine(None)
    print(orjson.dumps(here).decode())
    all_of = {False: Tally(), True: Tally()}
    violations: list[str] = []
    async with running(options.workers) as stack:
        scenario = await prepare(stack, Shape())
        async with session(scenario.api_key) as http:
            await _turn(options, stack, scenario, http, poisoned=True, seconds=_WARM_UP_S)
            for turn in range(2 * options.turns):
                # Clean, poisoned, poisoned, clean, ...: what grows with the tables falls on both alike.
                poisoned = turn % 4 in {1, 2}
                tally, refused = await _turn(options, stack, scenario, http, poisoned=poisoned, seconds=options.seconds)
                all_of[poisoned].seconds += tally.seconds
                if _is_wrong(options, tally, poisoned=poisoned):
                    violations.append(f"turn {turn + 1}: a good item was not bound, or a bad one was")
                statuses = {status: count for status, count in tally.statuses.items() if count}
                print(
                    f"{'poisoned' if poisoned else 'clean'}: {len(tally.seconds)} batches, p50 {tally.ms(0.5):.0f} ms,"
                    f" p99 {tally.ms(0.99):.0f} ms, items {statuses}, used keys refused {refused}"
                )
    times: dict[str, float] = {}
    for share in (0.5, 0.99):
        clean, bad = (all_of[which].ms(share) for which in (False, True))
        times[f"p{share * 100:.0f}"] = round(bad / clean, 3)
        print(f"p{share * 100:.0f} clean {clean:.0f} ms, poisoned {bad:.0f} ms: {bad / clean:.2f} times")
    return {"machine": here, "poisoned_by_clean": times, "violations": violations}


def _is_wrong(options: argparse.Namespace, tally: Tally, *, poisoned: bool) -> bool:
    """Tell whether not every good item was bound and every bad one refused."""
    batches = len(tally.seconds)
    bad = len(_POISON) * batches if poisoned else 0
    return tally.statuses[422] != bad or tally.statuses[201] + tally.statuses[202] != options.size * batches


#: Numbers of :mod:`bench.scenario`'s first pool stand for our own X.
_POISON: tuple[object, ...] = (
    {"a": "+86139-0000-0001", "b": "+8615000000001"},
    {"a": "+8613900000001", "b": "+8615000000001", "pool": "atlantis"},
    {"a": "+8613900000001", "b": "+8615000000001", "metadata": {"k": "v" * 2048}},
    {"a": "+8616200000000", "b": "+8616200000001"},
)


async def _turn(
    options: argparse.Namespace,
    stack: Stack,
    scenario: Scenario,
    http: aiohttp.ClientSession,
    *,
    poisoned: bool,
    seconds: float,
) -> tuple[Tally, int]:
    items = Items(random.getrandbits(32), scenario.pools)
    bad = _POISON if poisoned else ()
    bodies = [items.batch(options.size, bad=bad) for _ in range(int(seconds * _MOST_PER_S / options.size))]
    tally = Tally()
    until = time.monotonic() + seconds
    loads = [send(http, stack.api, bodies, tally, until) for _ in range(options.clients)]
    again = _use_a_key_again(http, stack.api, items, until, poisoned=poisoned)
    refused, _ = await asyncio.gather(again, asyncio.gather(*loads))
    return tally, refused


async def _use_a_key_again(http: aiohttp.ClientSession, api: str, items: Items, until: float, *, poisoned: bool) -> int:
    """Bind under a key, then ask for other orders under it; without poison each order has its own key."""
    refused = 0
    key = f"key-{random.getrandbits(64)}"
    first = True
    while time.monotonic() < until:
        headers = {"Idempotency-Key": key if poisoned else f"key-{random.getrandbits(64)}"}
        async with http.post(f"{api}/v1/bindings", data=orjson.dumps(items.good()), headers=headers) as response:
            answer = await response.read()
        if response.status != (422 if poisoned and not first else 201):
            raise BenchError(f"A bind with a key was answered {response.status}: {answer[:200]!r}")
        refused += response.status == 422
        first = False
    return refused


if __name__ == "__main__":
    sys.exit(main())
