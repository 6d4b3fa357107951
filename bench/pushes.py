"""``python -m bench.pushes``: pushes of all kinds, each delivered one to seven times in disorder: every effect once.

Calls with their records, messages, states of numbers, and in mode X questions, over three workers of which one is
killed every five seconds, and one connection in twenty is cut before its answer. Afterwards the books must equal the
ledger of who pushed: calls with their steps, records, messages, statuses, and the events, each once. Exit code 1 if
anything is missing, doubled or different. ``--sender emulator``: the same with the emulator as the platform.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.emulated import Traffic, ledger_of
from bench.ledger import PROJECTED, Ledger, Order, differences
from bench.machine import load_average, machine
from bench.mixed import kill_while
from bench.pushed import Deliverer, books, bound, idle_numbers, left, undone
from bench.pushing import Signature
from bench.stack import Stack, running

_MOST, _MOST_WORKERS = 1_000_000, 16
_APPS = {"axb": "demo-axb", "x": "demo-x"}
_ORDERS = 100
_CUT = 0.05
#: Five events, a record, a message for every third; fewer where nobody answers.
_THINGS_A_CALL = 6
_SETTLE_S = 120.0


@asynccontextmanager
async def _progress(console: Console, text: str, total: int, done: Any) -> AsyncIterator[None]:
    """Show how far something has come; ``done()`` says it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(text, total=total)

        async def look() -> None:
            while True:
                progress.update(task, completed=done())
                await asyncio.sleep(0.5)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()
            progress.update(task, completed=done())


async def _settled(db: asyncpg.Connection[Any], console: Console) -> float:
    began = time.perf_counter()
    with console.status("") as status:
        while (waiting := await left(db)) and time.perf_counter() - began < _SETTLE_S:
            status.update(f"{waiting:,} wait for their effects")
            await asyncio.sleep(0.5)
    return time.perf_counter() - began


async def _by_us(run: _Run, options: argparse.Namespace) -> dict[str, Any]:
    """Push ourselves: everything one to seven times."""
    ledger = Ledger(random.Random(options.seed))
    ledger.fill(options.count, run.orders, await idle_numbers(run.db, _APPS["axb"]))
    queue = ledger.deliveries()
    total = len(queue)
    who, edge = run.stack.who, run.stack.edge
    signatures = {
        mode: Signature(edge, name, who.apps[mode].app_key, who.apps[mode].app_secret) for mode, name in _APPS.items()
    }
    deliverer = Deliverer(edge, signatures, cut=_CUT, seed=options.seed)
    async with _progress(run.console, "deliveries", total, lambda: deliverer.delivered):
        delivering = asyncio.create_task(deliverer.deliver(queue, options.senders))
        kills = await kill_while(delivering, run.stack.pid, options.kill_every)
    settled_s = await _settled(run.db, run.console)
    wrong = differences(ledger, await books(run.db, run.stack.vault(), _APPS, ledger))
    return {
        "pushes": ledger.things, "questions": ledger.questions, "deliveries": total, "answers": dict(deliverer.answers),
        "kills": kills, "settled_s_after_the_last": round(settled_s, 1), "effects": sum(ledger.events.values()),
        "wrong": wrong,
    }  # fmt: skip


async def _by_emulator(run: _Run, options: argparse.Namespace) -> dict[str, Any]:
    """Have the emulator push, with its troubles and its schedule, whose hours pass on the test clock."""
    calls = max(options.count // _THINGS_A_CALL, 1)
    traffic = Traffic(run.http, run.stack.emulator_admin, run.orders, random.Random(options.seed))

    async def advance(seconds: float) -> None:
        async with run.http.post(f"{run.stack.admin}/test/clock", json={"advance_s": seconds}) as answer:
            answer.raise_for_status()

    async with _progress(run.console, "calls", calls, lambda: traffic.placed):
        playing = asyncio.create_task(traffic.play(calls))
        kills = await kill_while(playing, run.stack.pid, options.kill_every)
    with run.console.status("the platform pushes again what was not heard"):
        passed_s = await traffic.calm(advance)
    settled_s = await _settled(run.db, run.console)
    modes = {run.stack.who.apps[mode].app_key: mode for mode in _APPS}
    ledger, unsure, states = await ledger_of(traffic, modes)
    wrong = differences(ledger, await books(run.db, run.stack.vault(), _APPS, ledger, unsure), PROJECTED)
    counts = await traffic.counts()
    return {
        "pushes": sum(states.values()), "questions": sum(order.mode == "x" for order in traffic.sessions.values()),
        "deliveries": counts["pushes"].get("sent", 0), "answers": counts["pushes"], "states": dict(states),
        "unsure": len(unsure), "platform_time_passed_s": passed_s, "kills": kills,
        "settled_s_after_the_last": round(settled_s, 1), "effects": sum(ledger.events.values()), "wrong": wrong,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Run:
    stack: Stack
    db: asyncpg.Connection[Any]
    http: aiohttp.ClientSession
    orders: list[Order]
    console: Console


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    flags = ["--test-clock"] if options.sender == "emulator" else []
    async with running(options.workers, options.state_root, *flags) as stack, aiohttp.ClientSession() as http:
        db = await asyncpg.connect(stack.database)
        keys = {mode: stack.who.apps[mode].api_key for mode in _APPS}
        orders = await bound(http, stack.api, keys, _ORDERS // len(keys))
        run = _Run(stack, db, http, orders, Console(stderr=True))
        before, began = load_average(), time.perf_counter()
        found = await (_by_us if options.sender == "us" else _by_emulator)(run, options)
        seconds = round(time.perf_counter() - began, 1)
        if await left(db):
            found["wrong"].insert(0, f"some have no effects: {await undone(db)}")
        await db.close()
        return {
            "machine": machine(stack.folder), "load_before": before[0], "seed": options.seed, "sender": options.sender,
            "workers": options.workers, "seconds": seconds, **found,
        }  # fmt: skip


def main() -> None:
    """Deliver, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help=f"different pushes, at most {_MOST:,}")
    parser.add_argument(
        "--sender", choices=("us", "emulator"), default="us",
        help="emulator: calls through it, its own troubles, ledger and schedule (on the test clock)",
    )  # fmt: skip
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--senders", type=int, default=32, help="connections")
    parser.add_argument("--kill-every", type=float, default=5.0, help="seconds")
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--state-root", type=Path, default=Path("/var/tmp"), help="a real disk")  # noqa: S108
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if (
        not 1 <= options.count <= _MOST
        or not 1 <= options.workers <= _MOST_WORKERS
        or not 1 <= options.senders <= 500
        or options.kill_every < 1
    ):
        parser.error("that is more than this bench is for")
    found = uvloop.run(_measure(options))
    if options.json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        for line in found["wrong"]:
            print(f"WRONG: {line}")
        print(
            f"{found['pushes']:,} pushes, {found['questions']:,} of them questions, in {found['deliveries']:,}"
            f" deliveries ({found['seconds']} s; {found['kills']} kills of {found['workers']} workers; answers"
            f" {found['answers']})"
        )
        print(
            f"{found['effects']:,} effects, all there {found['settled_s_after_the_last']} s after the last delivery;"
            f" {len(found['wrong'])} differences to the sender's ledger"
        )
    sys.exit(1 if found["wrong"] else 0)


if __name__ == "__main__":
    main()
