"""Differences of every kind are planted among many bindings: the audit finds these and no others, within its share.

``python -m bench.audit [--bindings 100000] [--each 100]`` starts a broker with everything it needs here, imports what
the platform holds, plants differences on either side, and audits while orders come and go on the same numbers. A
second audit mends by policy; a later one finds nothing. ``--mode ax|axe|axyb``: see :mod:`bench.audit_modes`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import aiohttp
import asyncpg
import orjson

from bench.audit_modes import measure
from bench.importing import TTL_S, Platform, command, fill_and_import, parser, phone, set_up
from bench.machine import machine
from bench.scenario import Scenario
from bench.stack import BenchError, Stack, running
from broker.clock import boottime
from broker.platform.protocol import Direction, ModifyLine

_CLIENTS = 4
_SHARE = 0.1
_WINDOW_S = 5.0
_FIRST_LOAD = 60_000_000
_FIRST_STRANGER = 50_000_000

Planted = dict[str, set[str]]


async def _plant(stack: Stack, platform: Platform, made: list[Any], each: int, seed: int) -> Planted:
    """Plant ``each`` differences of every kind; of those unknown to our books half by forgetting."""
    chosen = iter(random.Random(seed).sample(made, 6 * each))
    planted: Planted = defaultdict(set)
    for nth in range(each // 2):
        line = await platform.bind(platform.numbers[nth % len(platform.numbers)], *(
            phone(_FIRST_STRANGER + 2 * nth + side) for side in (0, 1)
        ))  # fmt: skip
        planted["unknown_here"].add(line.subscription_id)
    forgotten = [next(chosen)[0].subscription_id for _ in range(each - each // 2)]
    planted["unknown_here"].update(forgotten)
    for nth in range(each):
        line = next(chosen)[0]
        await platform.driver.unbind(line.subscription_id, permit=lambda: True, timeout_s=30)
        planted["absent_there"].add(line.subscription_id)
        changes = {
            "parties_differ": ModifyLine("", "", b=phone(_FIRST_STRANGER + 1_000_000 + nth)),
            "expiry_differs": ModifyLine("", "", ttl_s=TTL_S + 60),
            "direction_differs": ModifyLine("", "", direction=Direction.A_TO_B),
        }
        for kind, change in changes.items():
            line = next(chosen)[0]
            asked = replace(change, subscription_id=line.subscription_id)
            await platform.driver.modify(asked, permit=lambda: True, timeout_s=30)
            planted[kind].add(line.subscription_id)
    await _forget(stack, forgotten)
    return planted


async def _forget(stack: Stack, subscriptions: list[str]) -> None:
    """Take lines out of our books; the others become lines of our own making, whose ends are known."""
    db = await asyncpg.connect(stack.database)
    try:
        await db.execute(
            "WITH gone AS (UPDATE line SET state = 'released', seat = NULL, sweep_at = NULL"
            " WHERE subscription_id = ANY ($1) RETURNING id),"
            " free AS (DELETE FROM slot USING gone WHERE slot.line_id = gone.id)"
            " UPDATE binding SET state = 'released', ended_at = broker_now() FROM gone WHERE binding.line_id = gone.id",
            subscriptions,
        )
        await db.execute("UPDATE line SET adopted_at = NULL WHERE adopted_at IS NOT NULL")
    finally:
        await db.close()


async def _load(stack: Stack, scenario: Scenario, done: asyncio.Event) -> int:
    """Bind and release on the same numbers until ``done``; return how often."""
    made = 0
    headers = {"Authorization": f"Bearer {scenario.api_key}"}
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(stack.api, headers=headers, timeout=timeout) as http:

        async def work(client: int) -> None:
            nonlocal made
            nth = _FIRST_LOAD + client * 1_000_000
            while not done.is_set():
                nth += 2
                order = {"a": phone(nth), "b": phone(nth + 1), "ttl_s": 3600, "pool": scenario.pools[0]}
                async with http.post("/v1/bindings", json=order) as answer:
                    binding = (await answer.json()).get("id")
                if binding is not None and nth % 4:
                    async with http.delete(f"/v1/bindings/{binding}"):
                        pass
                made += 1

        await asyncio.gather(*(work(client) for client in range(_CLIENTS)))
    return made


async def _found(stack: Stack, run_id: int) -> Planted:
    """Return what this run saw, whatever has become of it."""
    db = await asyncpg.connect(stack.database)
    try:
        rows = await db.fetch("SELECT kind, subscription_id FROM drift WHERE last_run = $1", run_id)
    finally:
        await db.close()
    found: Planted = defaultdict(set)
    for row in rows:
        found[row["kind"]].add(row["subscription_id"])
    return found


async def _queries(stack: Stack, app_key: str, after: int) -> list[float]:
    """Return when each query reached the platform, by its own ledger."""
    times: list[float] = []
    async with aiohttp.ClientSession(stack.emulator_admin) as http:
        while True:
            async with http.get(f"/emulator/ledger?after={after}&limit=10000") as answer:
                body = await answer.json()
            times.extend(
                datetime.fromisoformat(row["received_at"]).timestamp()
                for row in body["items"]
                if row["op"] == "query" and row["request"] is not None and row["app_key"] == app_key
            )
            if not body["next"]:
                return sorted(times)
            after = body["next"]


def _busiest(times: list[float]) -> int:
    """Return the most calls in any window."""
    first = most = 0
    for last, at in enumerate(times):
        while at - times[first] > _WINDOW_S:
            first += 1
        most = max(most, last - first + 1)
    return most


async def _audit(stack: Stack) -> tuple[dict[str, Any], float]:
    began = boottime()
    told = await command(stack, "audit", "run", codes=(0, 1))
    return told["runs"][0], boottime() - began


async def _measure(options: argparse.Namespace) -> int:
    began = time.monotonic()
    async with running(options.workers) as stack:
        scenario, platform = await set_up(stack, options.bindings, options.rate)
        await command(stack, "audit", "policy", "--every-s", "0", "--absent", "report", "--differing", "report")
        made, imported = await fill_and_import(stack, platform, options.bindings)
        planted = await _plant(stack, platform, made, options.each, options.seed)
        marker = await _last_row(stack)
        done = asyncio.Event()
        load = asyncio.create_task(_load(stack, scenario, done))
        try:
            run, seconds = await _audit(stack)
        finally:
            done.set()
            with suppress(aiohttp.ClientError):
                orders = await load
        found = await _found(stack, run["id"])
        times = await _queries(stack, platform.app_key, marker)
        await command(stack, "audit", "policy", "--unknown", "unbind", "--absent", "rebind", "--differing", "repair")
        await _audit(stack)
        last, _ = await _until_clean(stack)
        await platform.driver.close()
    kinds = {
        kind: {
            "planted": len(planted[kind]), "found": len(found[kind] & planted[kind]),
            "falsely": len(found[kind] - planted[kind]),
        }
        for kind in sorted({*planted, *found})
    }  # fmt: skip
    allowed = options.rate * _SHARE * _WINDOW_S + 1
    busiest = _busiest(times)
    wrong = [kind for kind, one in kinds.items() if one["found"] != one["planted"] or one["falsely"]]
    told = {
        "machine": machine(None), "seconds": round(time.monotonic() - began, 1), "imported": imported, "kinds": kinds,
        "audit_s": round(seconds, 1), "audit_calls": run["calls"], "compared": run["compared"],
        "orders_meanwhile": orders,
        "busiest_window": {"seconds": _WINDOW_S, "calls": busiest, "allowed": round(allowed)},
        "found_after_mending": last["found"], "wrong": wrong,
    }  # fmt: skip
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
    return 1 if wrong or busiest > allowed or last["found"] else 0


async def _measure_mode(options: argparse.Namespace) -> int:
    told = await measure(
        options.mode, bindings=options.bindings, each=options.each, rate=options.rate, workers=options.workers
    )
    print(orjson.dumps({"machine": machine(None), **told}, option=orjson.OPT_INDENT_2).decode())
    return 1 if told["wrong"] else 0


async def _until_clean(stack: Stack) -> tuple[dict[str, Any], float]:
    """Audit until nothing is found: what is mended goes out as calls of its own."""
    for _ in range(5):
        last, seconds = await _audit(stack)
        if not last["found"]:
            break
    return last, seconds


async def _last_row(stack: Stack) -> int:
    after = 0
    async with aiohttp.ClientSession(stack.emulator_admin) as http:
        while True:
            async with http.get(f"/emulator/ledger?after={after}&limit=10000") as answer:
                body = await answer.json()
            if not body["next"]:
                return int(body["items"][-1]["seq"]) if body["items"] else after
            after = body["next"]


def main() -> int:
    """Run; 1 = something was missed or found falsely, 2 = nothing could be measured."""
    options = parser("bench.audit", __doc__)
    options.add_argument("--each", type=int, default=100, help="differences of each kind (default 100)")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--mode", choices=("axb", "ax", "axe", "axyb"), default="axb")
    given = options.parse_args()
    try:
        return asyncio.run(_measure(given) if given.mode == "axb" else _measure_mode(given))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
