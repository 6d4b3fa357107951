"""An X with many live lines is evacuated under load, while calls are played: nobody wrong is reached, nobody lost.

``python -m bench.evacuation [--lines 500] [--rate 100] [--overlap-s 30] [--kill-every-s 0]`` starts a broker with
everything it needs here and fills one X. Then ``broker numbers freeze --evacuate`` moves its lines, while orders come
and go and phones dial the X that the order system has read last. Every call is played by the emulator, which tells who
was reached. ``--kill-every-s`` kills a worker (SIGKILL) again and again meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import orjson

from bench.check import WRONG_BOOKS
from bench.crash.points import workers_of
from bench.importing import command, phone
from bench.machine import machine
from bench.scenario import Scenario, Shape, prepare
from bench.stack import BenchError, Stack, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_TTL_S = 7_200
_NUMBERS = 8
_FIRST_LOAD = 60_000_000
_CLIENTS = 4
_CALLERS = 4
_FILLERS = 32
_END_S = 900.0


@dataclass(slots=True)
class Order:
    """One binding as its order system knows it: with the X that it has read last."""

    id: str
    a: str
    b: str
    x: str


@dataclass(slots=True)
class Seen:
    """What happened while the X was being evacuated."""

    calls: int = 0
    nobody: int = 0
    outdated: int = 0
    wrong: int = 0
    orders: int = 0
    refused: int = 0
    kills: int = 0


@asynccontextmanager
async def _api(stack: Stack, scenario: Scenario) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": f"Bearer {scenario.api_key}"}
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(stack.api, headers=headers, timeout=timeout) as http:
        yield http


async def _ask(http: aiohttp.ClientSession, method: str, path: str, **content: Any) -> tuple[int, dict[str, Any]]:
    """Ask as a client does whose connection may break because a worker was killed: again."""
    while True:
        with suppress(aiohttp.ClientError, TimeoutError):
            async with http.request(method, path, **content) as answer:
                return answer.status, await answer.json()
        await asyncio.sleep(0.05)


async def _fill(http: aiohttp.ClientSession, scenario: Scenario, lines: int) -> list[Order]:
    made: list[Order] = []
    todo = iter(range(lines))

    async def work() -> None:
        for nth in todo:
            a, b = phone(2 * nth), phone(2 * nth + 1)
            order = {"a": a, "b": b, "ttl_s": _TTL_S, "pool": scenario.pools[0]}
            status, body = await _ask(http, "POST", "/v1/bindings", json=order)
            while status == 202:
                await asyncio.sleep(0.1)
                _, body = await _ask(http, "GET", f"/v1/bindings/{body['id']}")
                status = 202 if body["state"] == "pending" else 201
            if body.get("state") != "active":
                raise BenchError(f"an order was not bound: {body}")
            made.append(Order(body["id"], a, b, body["x"]))

    await asyncio.gather(*(work() for _ in range(_FILLERS)))
    return made


async def _load(http: aiohttp.ClientSession, scenario: Scenario, seen: Seen, done: asyncio.Event) -> None:
    """Bind and release other pairs until ``done``."""

    async def work(client: int) -> None:
        nth = _FIRST_LOAD + client * 1_000_000
        while not done.is_set():
            nth += 2
            order = {"a": phone(nth), "b": phone(nth + 1), "ttl_s": 3600, "pool": scenario.pools[0]}
            status, body = await _ask(http, "POST", "/v1/bindings", json=order)
            seen.orders += 1
            seen.refused += status >= 400
            if "id" in body:
                await _ask(http, "DELETE", f"/v1/bindings/{body['id']}")

    await asyncio.gather(*(work(client) for client in range(_CLIENTS)))


async def _learn(http: aiohttp.ClientSession, orders: list[Order], done: asyncio.Event) -> None:
    """Read the orders' X again and again, as an order system does that has not heard the event."""
    while not done.is_set():
        for order in orders:
            status, body = await _ask(http, "GET", f"/v1/bindings/{order.id}")
            if status == 200 and body["x"]:
                order.x = body["x"]
            if done.is_set():
                return
        await asyncio.sleep(0.1)


async def _call(stack: Stack, api: aiohttp.ClientSession, orders: list[Order], seen: Seen, done: asyncio.Event) -> None:
    """Have either party of some order dial the X that its order system knows, until ``done``.

    Who reaches nobody looks whether there is another X by now: then the order system was late.
    """
    chance = random.Random(1)

    async def work(http: aiohttp.ClientSession) -> None:
        while not done.is_set():
            order = chance.choice(orders)
            caller, wanted = (order.a, order.b) if chance.random() < 0.5 else (order.b, order.a)
            dialled = order.x
            async with http.post("/emulator/calls", json={"from": caller, "to": dialled}) as answer:
                reached = (await answer.json())["connected_to"]
            seen.calls += 1
            if reached is None:
                seen.nobody += 1
                _, body = await _ask(api, "GET", f"/v1/bindings/{order.id}")
                seen.outdated += body["x"] != dialled
            seen.wrong += reached not in {None, wanted}
            await asyncio.sleep(0.005)

    async with aiohttp.ClientSession(stack.emulator_admin) as http:
        await asyncio.gather(*(work(http) for _ in range(_CALLERS)))


async def _kill(stack: Stack, every_s: float, seen: Seen, done: asyncio.Event) -> None:
    """Kill a worker every so often; the parent starts another one."""
    while every_s and not done.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), every_s)
            return
        if workers := list(workers_of(stack.pid)):
            os.kill(random.choice(workers), signal.SIGKILL)
            seen.kills += 1


async def _evacuate(stack: Stack, x: str) -> tuple[dict[str, Any], float]:
    """Freeze the number, and follow it until its lines have moved and the old ones are unbound."""
    began = time.monotonic()
    await command(stack, "numbers", "freeze", x, "--evacuate")
    moved_s = 0.0
    while time.monotonic() - began < _END_S:
        (shown,) = (await command(stack, "numbers", "evacuation", x, codes=(0, 1)))["items"]
        if shown["state"] == "done":
            moved_s = moved_s or time.monotonic() - began
            if not shown["unbinding"]:
                return shown, moved_s
        await asyncio.sleep(1.0)
    raise BenchError(f"The evacuation did not end in {_END_S:.0f} s.")


async def _state_of(stack: Stack, *numbers: str, state: str) -> None:
    await command(stack, "numbers", state, *numbers)
    await asyncio.sleep(2.5)  # instances look for changes every second


async def _measure(options: argparse.Namespace) -> int:
    os.environ["BROKER_EVACUATION_OVERLAP_S"] = str(options.overlap_s)
    async with running(options.workers) as stack:
        shape = Shape(pools=1, numbers=_NUMBERS, cap=max(options.lines, 500), quarantine_s=60, rate=options.rate)
        scenario = await prepare(stack, shape)
        rows = await command(stack, "numbers", "list")
        x, *others = (row["number"] for row in rows["items"])
        await _state_of(stack, *others, state="freeze")
        async with _api(stack, scenario) as http:
            orders = await _fill(http, scenario, options.lines)
            await _state_of(stack, *others, state="open")
            if {order.x for order in orders} != {x}:
                raise BenchError("The lines are not all on one X.")
            after = await _last_row(stack)
            seen, done = Seen(), asyncio.Event()
            tasks = [
                asyncio.create_task(work)
                for work in (
                    _load(http, scenario, seen, done),
                    _learn(http, orders, done),
                    _call(stack, http, orders, seen, done),
                    _kill(stack, options.kill_every_s, seen, done),
                )
            ]
            try:
                shown, moved_s = await _evacuate(stack, x)
            finally:
                done.set()
                await asyncio.gather(*tasks)
            told = await _told(stack, http, x, orders, after)
    told = {
        "machine": machine(None), "lines": options.lines, "rate": options.rate, "overlap_s": options.overlap_s,
        "moved_s": round(moved_s, 1), "moved": shown["moved"], **told, "calls_played": seen.calls,
        "calls_that_reached_nobody": seen.nobody, "of_these_at_an_outdated_x": seen.outdated,
        "calls_that_reached_a_wrong_person": seen.wrong,
        "orders_meanwhile": seen.orders, "orders_refused": seen.refused, "kills": seen.kills,
    }  # fmt: skip
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
    unreachable = seen.nobody - seen.outdated
    return 1 if seen.wrong or unreachable or told["lost"] or told["left_on_the_old_x"] or told["wrong_books"] else 0


async def _told(stack: Stack, http: aiohttp.ClientSession, x: str, orders: list[Order], after: int) -> dict[str, Any]:
    """Compare our books with the platform's, and count what the move cost by the platform's own ledger."""
    there = [one for one in await _items(stack, "bindings?limit=10000") if one["x"].startswith("+86162")]
    pairs = Counter((one["x"], one["a"], one["b"]) for one in there)
    lost = 0
    for order in orders:
        _, body = await _ask(http, "GET", f"/v1/bindings/{order.id}")
        lost += body["state"] != "active" or body["x"] == x or pairs[body["x"], order.a, order.b] != 1
    ours = {order.a for order in orders}
    spent = Counter(
        row["op"]
        for row in await _items(stack, f"ledger?after={after}&limit=10000")
        if row["request"] is not None and row.get("a") in ours
    )
    db = await asyncpg.connect(stack.database)
    try:
        wrong = len(await db.fetch(WRONG_BOOKS))
    finally:
        await db.close()
    return {
        "lost": lost, "left_on_the_old_x": sum(one["x"] == x for one in there), "wrong_books": wrong,
        "platform_calls": dict(spent), "platform_calls_a_line": round(sum(spent.values()) / len(orders), 3),
    }  # fmt: skip


async def _items(stack: Stack, path: str) -> list[dict[str, Any]]:
    """Return all pages of a list of the emulator's."""
    base, _, query = path.partition("?")
    found: list[dict[str, Any]] = []
    async with aiohttp.ClientSession(stack.emulator_admin) as http:
        while True:
            async with http.get(f"/emulator/{base}?{query}") as answer:
                body = await answer.json()
            found += body["items"]
            if not body.get("next"):
                return found
            query = f"after={body['next']}&limit=10000"


async def _last_row(stack: Stack) -> int:
    rows = await _items(stack, "ledger?after=0&limit=10000")
    return int(rows[-1]["seq"]) if rows else 0


def main() -> int:
    """Run; 1 = somebody wrong was reached or a line was lost, 2 = nothing could be measured."""
    parser = argparse.ArgumentParser(
        prog="bench.evacuation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lines", type=int, default=500, help="live lines on the X (default 500)")
    parser.add_argument("--rate", type=float, default=100.0, help="the app's platform calls a second (default 100)")
    parser.add_argument("--overlap-s", type=float, default=30.0, help="both X reach a pair for so long (default 30)")
    parser.add_argument("--kill-every-s", type=float, default=0.0, help="kill a worker every so often (default never)")
    parser.add_argument("--workers", type=int, default=2)
    try:
        return asyncio.run(_measure(parser.parse_args()))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
