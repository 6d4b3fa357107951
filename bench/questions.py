"""``python -m bench.questions``: what the platform waits for when a call of mode X comes in.

Loads the books of the demonstration's app of mode X with live pairs (a million, by COPY), then asks over the edge
listener as the platform does, signed, one caller in ten a stranger, and judges every answer. Three kinds of windows: as
fast as answers come; at half of that; and at a steady rate while orders are bound. Exit code 1 if an answer is wrong or
missing, or p99 at the rate is over 20 ms (of several windows, in the median).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.figures import histogram, percentiles
from bench.live_pairs import CAP, NUMBERS, POOLS, LivePairs
from bench.machine import load_average, machine
from bench.pushing import Sender, Signature, Spent, lag_ms
from bench.stack import Stack, running

_MOST, _MOST_RATE, _MOST_S, _MOST_RUNS = 2_000_000, 20_000, 600.0, 20
_STRANGERS = 0.1
_WANTED_MS = 20.0
_WARM_RATE, _WARM_S = 300.0, 5.0
_FRESH_A, _FRESH_B = 14_000_000_000, 16_000_000_000
_DRAIN_S = 300.0
APP = "demo-x"
#: Until every process has heard of the new pools.
_CONFIG_S = 3.0


@dataclass(slots=True)
class Platform:
    """Asks for calls of random pairs; and, beside that, orders to be bound in the same pools."""

    signed: Signature
    pairs: LivePairs
    api: str
    api_key: str
    dice: random.Random = field(default_factory=lambda: random.Random(7))
    asked: int = 0
    ordered: int = 0

    def question(self) -> tuple[bytes, bytes]:
        """Return a question and what the answer must hold."""
        self.asked += 1
        n = self.dice.randrange(self.pairs.live)
        caller, callee = self.dice.sample(self.pairs.ends(n), 2)
        wanted = f'"calleeNum":"{callee}"'.encode()
        if self.dice.random() < _STRANGERS:
            caller, wanted = self.pairs.stranger(n), b'"operation":"close"'
        told = {
            "sessionId": f"q{self.asked}", "timestamp": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S"),
            "caller": caller, "called": self.pairs.x(n), "notifyMode": "Block",
        }  # fmt: skip
        return self.signed.request("events", {"eventType": "callin", "statusInfo": told}), wanted

    def order(self) -> tuple[bytes, bytes]:
        """Return a bind."""
        self.ordered += 1
        body = orjson.dumps({
            "a": f"+86{_FRESH_A + self.ordered}", "b": f"+86{_FRESH_B + self.ordered}", "ttl_s": 3600,
            "pool": f"bench-{1 + self.ordered % POOLS}",
        })  # fmt: skip
        head = (
            f"POST /v1/bindings HTTP/1.1\r\nHost: {urlsplit(self.api).netloc}\r\n"
            f"Authorization: Bearer {self.api_key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body, b'"x":'


@dataclass(slots=True)
class _Bench:
    stack: Stack
    db: asyncpg.Connection[Any]
    platform: Platform
    asking: Sender
    binding: Sender
    console: Console

    async def window(self, name: str, seconds: float, rate: float | None, binds: float = 0.0) -> dict[str, Any]:
        """Ask for so long, and wait until nothing is left of it."""
        for sender in (self.asking, self.binding):
            sender.took.clear()
            sender.answers.clear()
        load, before = load_average(), await Spent.now(self.stack, self.db)
        with self.console.status(f"{name}: {seconds:.0f} s"):
            orders = asyncio.ensure_future(self.binding.at_rate(binds, seconds)) if binds else None
            await (self.asking.flat_out(seconds) if rate is None else self.asking.at_rate(rate, seconds))
            if orders is not None:
                await orders
        after = await Spent.now(self.stack, self.db)
        answers = len(self.asking.took)
        await self._settled()
        return {
            "load_before": load[0],
            "questions": answers,
            "a_second": round(answers / seconds, 1),
            "answers": dict(self.asking.answers),
            "latency_ms": percentiles(histogram(self.asking.took)),
            "binds": dict(self.binding.answers),
            "bind_latency_ms": percentiles(histogram(self.binding.took)),
            "cost": after.a_push(before, answers),
            "lag_to_events_ms": await lag_ms(self.db, before.at, after.at),
        }

    async def _settled(self) -> None:
        """Wait until what one window left to be done no longer burdens the next."""
        began = time.perf_counter()
        with self.console.status("") as status:
            while left := await self.db.fetchval("SELECT count(*) FROM inbox WHERE state = 'new'"):
                if time.perf_counter() - began > _DRAIN_S:
                    raise SystemExit(f"{left:,} questions are left without their effects.")
                status.update(f"{left:,} wait for their effects")
                await asyncio.sleep(0.2)


async def loaded(stack: Stack, db: asyncpg.Connection[Any], live: int, console: Console) -> LivePairs:
    """Fill the books with live pairs; return them once every process has heard of the pools."""
    row = await db.fetchrow(
        "SELECT a.id, c.id AS caller_id FROM app AS a JOIN caller AS c ON c.app_id = a.id WHERE a.name = $1", APP
    )
    if row is None:
        raise SystemExit(f"The app {APP} is missing.")
    pairs = LivePairs(row["id"], row["caller_id"], stack.vault(), live)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        await pairs.load(db, progress)
    await asyncio.sleep(_CONFIG_S)
    return pairs


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    console = Console(stderr=True)
    edge = () if options.edge_workers is None else ("--edge-workers", str(options.edge_workers))
    async with running(options.workers, options.state_root, *edge) as stack:
        db = await asyncpg.connect(stack.database)
        pairs = await loaded(stack, db, options.live, console)
        app = stack.who.apps["x"]
        signed = Signature(stack.edge, APP, app.app_key, app.app_secret)
        platform = Platform(signed, pairs, stack.api, app.api_key)
        asking, binding = Sender(platform.question), Sender(platform.order)
        await asking.connect(stack.edge, options.connections)
        await binding.connect(stack.api, options.connections)
        bench = _Bench(stack, db, platform, asking, binding, console)
        await bench.window("warm-up", _WARM_S, _WARM_RATE, min(options.binds, 100.0))
        found: dict[str, Any] = {
            "machine": machine(stack.folder),
            "live": options.live,
            "edge_workers": options.edge_workers or 0,
        }
        if options.closed:
            found["closed"] = [
                await bench.window("as fast as answers come", options.closed, None) for _ in range(options.runs)
            ]
            half = statistics.median(window["a_second"] for window in found["closed"]) / 2
            found["half"] = [await bench.window(f"{half:,.0f}/s", options.closed, half) for _ in range(options.runs)]
        if options.seconds:
            # What is written first after the load, or after a checkpoint, is logged as whole pages.
            await bench.window("warm-up beside binds", options.warm, options.rate, options.binds)
            beside = f"{options.rate:,.0f}/s beside {options.binds:,.0f} binds/s"
            found["binding"] = [
                await bench.window(beside, options.seconds, options.rate, options.binds) for _ in range(options.runs)
            ]
        await db.close()
        for sender in (asking, binding):
            sender.close()
        return found


def _shown(name: str, window: dict[str, Any]) -> str:
    ms, bind = window["latency_ms"], window["bind_latency_ms"]
    text = (
        f"{name}: {window['questions']:,} questions, {window['a_second']:,.0f}/s; p50 {ms['p50']:.1f} ms  "
        f"p90 {ms['p90']:.1f}  p99 {ms['p99']:.1f}  p99.9 {ms['p99_9']:.1f}  max {ms['max']:.1f}; "
        f"answers {window['answers']} (load {window['load_before']} before)\n  a question: {window['cost']}"
    )
    if bind:
        text += f"\n  binds {window['binds']}: p50 {bind['p50']:.1f} ms  p99 {bind['p99']:.1f}"
    return text


def _right(window: dict[str, Any]) -> bool:
    return set(window["answers"]) == {"200"} and set(window["binds"]) <= {"201"}


def main() -> None:
    """Load, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", type=int, default=1_000_000, help=f"live bindings, at most {_MOST:,}")
    parser.add_argument("--rate", type=float, default=500.0, help="questions a second while orders are bound")
    parser.add_argument("--binds", type=float, default=1000.0, help="binds a second meanwhile; 0 = none")
    parser.add_argument("--seconds", type=float, default=20.0, help="of that; 0 = not at all")
    parser.add_argument("--closed", type=float, default=10.0, help="seconds as fast as possible, and at half; 0 = not")
    parser.add_argument("--runs", type=int, default=1, help="windows of each kind")
    parser.add_argument("--warm", type=float, default=30.0, help="seconds of the same before, not counted")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--edge-workers", type=int, help="so many of the workers listen to the platform alone")
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--state-root", type=Path, default=Path("/var/tmp"), help="a real disk")  # noqa: S108
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if (
        not 1 <= options.live <= min(_MOST, POOLS * NUMBERS * CAP)
        or not 1 <= options.rate <= _MOST_RATE
        or not 0 <= options.binds <= _MOST_RATE
        or not 0 <= options.seconds <= _MOST_S
        or not 1 <= options.runs <= _MOST_RUNS
        or not 1 <= options.warm <= _MOST_S
        or not 0 <= options.closed <= _MOST_S
        or not 1 <= options.connections <= 500
    ):
        parser.error("that is more than this bench is for")
    found = uvloop.run(_measure(options))
    windows = [name for name in ("closed", "half", "binding") if name in found]
    if options.json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        print(f"{found['live']:,} live bindings, {found['machine']['cores']} cores shared with everything")
        for name in windows:
            print("\n".join(_shown(name, window) for window in found[name]))
    slow = "binding" in found and statistics.median(w["latency_ms"]["p99"] for w in found["binding"]) > _WANTED_MS
    kept = not slow and all(_right(window) for name in windows for window in found[name])
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
