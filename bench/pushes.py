"""``python -m bench.pushes``: pushes of all kinds, each delivered one to seven times in disorder: every effect once.

Calls with their records, messages, states of numbers, and in mode X questions, over three workers of which one is
killed every five seconds, and one connection in twenty is cut before its answer. Afterwards the books must equal the
ledger of who pushed: calls with their steps, records, messages, statuses, and the events, each once. Exit code 1 if
anything is missing, doubled or different.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.ledger import Ledger, differences
from bench.machine import load_average, machine
from bench.mixed import kill_while
from bench.pushed import Deliverer, books, bound, idle_numbers, left
from bench.pushing import Signature
from bench.stack import Stack, running

_MOST, _MOST_WORKERS = 1_000_000, 16
_APPS = {"axb": "demo-axb", "x": "demo-x"}
_ORDERS = 100
_CUT = 0.05
_SETTLE_S = 600.0


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


async def _run(stack: Stack, options: argparse.Namespace) -> dict[str, Any]:
    console = Console(stderr=True)
    db = await asyncpg.connect(stack.database)
    keys = {mode: stack.who.apps[mode].api_key for mode in _APPS}
    async with aiohttp.ClientSession() as http:
        orders = await bound(http, stack.api, keys, _ORDERS // len(keys))
    ledger = Ledger(random.Random(options.seed))
    ledger.fill(options.count, orders, await idle_numbers(db, _APPS["axb"]))
    queue = ledger.deliveries()
    total, before = len(queue), load_average()
    signatures = {
        mode: Signature(stack.edge, name, stack.who.apps[mode].app_key, stack.who.apps[mode].app_secret)
        for mode, name in _APPS.items()
    }
    deliverer = Deliverer(stack.edge, signatures, cut=_CUT, seed=options.seed)
    began = time.perf_counter()
    async with _progress(console, "deliveries", total, lambda: deliverer.delivered):
        delivering = asyncio.create_task(deliverer.deliver(queue, options.senders))
        kills = await kill_while(delivering, stack.pid, options.kill_every)
    took_s = time.perf_counter() - began
    settled_s = await _settled(db, console)
    wrong = differences(ledger, await books(db, stack.vault(), _APPS, ledger))
    if waiting := await left(db):
        wrong.insert(0, f"{waiting:,} pushes have no effects")
    await db.close()
    return {
        "machine": machine(stack.folder), "load_before": before[0], "seed": options.seed,
        "pushes": ledger.things, "questions": ledger.questions, "deliveries": total, "answers": dict(deliverer.answers),
        "workers": options.workers, "kills": kills, "seconds": round(took_s, 1),
        "settled_s_after_the_last": round(settled_s, 1), "effects": sum(ledger.events.values()), "wrong": wrong,
    }  # fmt: skip


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    async with running(options.workers, options.state_root) as stack:
        return await _run(stack, options)


def main() -> None:
    """Deliver, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help=f"different pushes, at most {_MOST:,}")
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
            f"{found['effects']:,} effects, all {found['settled_s_after_the_last']} s after the last delivery;"
            f" {len(found['wrong'])} differences to the sender's ledger"
        )
    sys.exit(1 if found["wrong"] else 0)


if __name__ == "__main__":
    main()
