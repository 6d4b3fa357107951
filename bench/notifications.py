"""``python -m bench.notifications``: pushes from socket to 200, and whether each had its effects.

Calls of bound orders, five events and a record each, signed as the platform signs. First at a steady rate (open loop: a
push is due at its time whatever became of those before it, and its latency counts from then), then as fast as they are
answered (closed loop). After each everything must be projected: as many calls and records as were pushed, none
unreadable or stuck. Exit code 1 if something is lost, or p99 at the rate is over 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson
import uvloop
from rich.console import Console

from bench.figures import histogram, percentiles
from bench.machine import load_average, machine
from bench.pushing import Sender, Signature, Spent, lag_ms
from bench.stack import Stack, running

_MOST_RATE, _MOST_S, _MOST_RUNS = 20_000, 600.0, 20
_ORDERS = 50
_WANTED_P99_MS = 50.0
_DRAIN_S = 300.0
_STEPS = ("callin", "callout", "alerting", "answer", "disconnect")
_WARM_RATE, _WARM_S = 500.0, 3.0
_WIDTH = 100
_BOOKS = """
SELECT (SELECT count(*) FROM call) AS calls, (SELECT count(*) FROM cdr) AS cdrs, (SELECT count(*) FROM inbox) AS kept,
       (SELECT coalesce(sum(jsonb_array_length(timeline)), 0) FROM call) AS steps,
       (SELECT count(*) FROM call WHERE bindings = '{}') AS unattributed,
       (SELECT count(*) FROM event WHERE type LIKE 'call.%' OR type = 'cdr.created') AS events
"""
_LEFT = "SELECT count(*) FROM inbox WHERE state <> 'done'"


@dataclass(slots=True)
class _Calls:
    """What the platform sends, one after the other: calls in turn over the orders, their steps interleaved."""

    signed: Signature
    orders: list[dict[str, Any]]
    run: str = field(default_factory=lambda: f"{time.time_ns():x}")
    sent: int = 0

    def next(self) -> tuple[bytes, bytes]:
        """Return a request; any answer to it will do."""
        block, place = divmod(self.sent, _WIDTH * 6)
        step, number = divmod(place, _WIDTH)
        self.sent += 1
        order = self.orders[number % len(self.orders)]
        session = f"{self.run}_{block}_{number}"
        at = datetime.now(UTC)
        if step < len(_STEPS):
            called = order["x"] if step == 0 else order["b"]
            told: dict[str, Any] = {
                "sessionId": session, "timestamp": at.strftime("%Y-%m-%d %H:%M:%S"), "caller": order["a"],
                "called": called, "userData": order["mark"], "stateCode": 0,
            }  # fmt: skip
            return self.signed.request("events", {"eventType": _STEPS[step], "statusInfo": told}), b""
        fee = {
            "direction": 1, "icid": session, "sessionId": session, "bindNum": order["x"], "callerNum": order["a"],
            "callInTime": (at - timedelta(seconds=1)).strftime("%Y-%m-%d %H:%M:%S"),
            "callEndTime": at.strftime("%Y-%m-%d %H:%M:%S"), "userData": order["mark"],
        }  # fmt: skip
        return self.signed.request("cdr", {"eventType": "fee", "feeLst": [fee]}), b""

    def meant(self) -> dict[str, int]:
        """Return what must be in the books by now."""
        whole, place = divmod(self.sent, _WIDTH * 6)
        steps = whole * _WIDTH * 5 + min(place, _WIDTH * 5)
        # Nobody is told of callout.
        silent = whole * _WIDTH + min(max(place - _WIDTH, 0), _WIDTH)
        return {
            "calls": whole * _WIDTH + min(place, _WIDTH), "cdrs": self.sent - steps, "kept": self.sent, "steps": steps,
            "unattributed": 0, "events": self.sent - silent,
        }  # fmt: skip


async def _orders(stack: Stack, key: str) -> list[dict[str, Any]]:
    made = []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        for number in range(_ORDERS):
            parties = {"a": f"+86139{number:08d}", "b": f"+86138{number:08d}"}
            async with http.post(f"{stack.api}/v1/bindings", json={**parties, "ttl_s": 3600}) as answer:
                bound = await answer.json()
            made.append({**parties, "x": bound["x"], "mark": bound["line"].replace("-", "") + ".1"})
    return made


@dataclass(slots=True)
class _Bench:
    stack: Stack
    db: asyncpg.Connection[Any]
    sender: Sender
    console: Console

    async def window(self, name: str, seconds: float, rate: float | None) -> dict[str, Any]:
        """Load for so long and wait for all effects."""
        self.sender.took.clear()
        self.sender.answers.clear()
        load, before = load_average(), await Spent.now(self.stack, self.db)
        with self.console.status(f"{name}: {seconds:.0f} s"):
            if rate is None:
                await self.sender.flat_out(seconds)
            else:
                await self.sender.at_rate(rate, seconds)
        answered, pushes = await Spent.now(self.stack, self.db), len(self.sender.took)
        drained_s = await self._drained()
        after = await Spent.now(self.stack, self.db)
        return {
            "load_before": load[0],
            "pushes": pushes,
            "a_second": round(pushes / (answered.at - before.at).total_seconds(), 1),
            "answers": dict(self.sender.answers),
            "latency_ms": percentiles(histogram(self.sender.took)),
            "cost_until_answered": answered.a_push(before, pushes),
            "cost_with_effects": after.a_push(before, pushes),
            "lag_to_events_ms": await lag_ms(self.db, before.at, answered.at),
            "all_effects_s_after_the_last": round(drained_s, 2),
        }

    async def _drained(self) -> float:
        began = time.perf_counter()
        with self.console.status("") as status:
            while (left := await self.db.fetchval(_LEFT)) and time.perf_counter() - began < _DRAIN_S:
                status.update(f"{left:,} wait for their effects")
                await asyncio.sleep(0.2)
        return time.perf_counter() - began


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    async with running(options.workers, options.state_root) as stack:
        app = stack.who.apps["axb"]
        calls = _Calls(
            Signature(stack.edge, "demo-axb", app.app_key, app.app_secret), await _orders(stack, app.api_key)
        )
        sender = Sender(calls.next)
        await sender.connect(stack.edge, options.connections)
        db = await asyncpg.connect(stack.database)
        bench = _Bench(stack, db, sender, Console(stderr=True))
        await bench.window("warm-up", _WARM_S, _WARM_RATE)
        found: dict[str, Any] = {"machine": machine(stack.folder), "rate": options.rate}
        if options.seconds:
            steady = f"{options.rate:,.0f}/s"
            found["open"] = [await bench.window(steady, options.seconds, options.rate) for _ in range(options.runs)]
        if options.closed:
            found["closed"] = [
                await bench.window("as fast as they are answered", options.closed, None) for _ in range(options.runs)
            ]
        found["books"] = dict(await db.fetchrow(_BOOKS) or {})
        found["right"] = found["books"] == calls.meant() and await db.fetchval(_LEFT) == 0
        await db.close()
        sender.close()
        return found


def _shown(name: str, window: dict[str, Any]) -> str:
    ms, lag = window["latency_ms"], window["lag_to_events_ms"]
    return (
        f"{name}: {window['pushes']:,} pushes, {window['a_second']:,.0f}/s; p50 {ms['p50']:.1f} ms  p90 {ms['p90']:.1f}"
        f"  p99 {ms['p99']:.1f}  p99.9 {ms['p99_9']:.1f}  max {ms['max']:.1f}; answers {window['answers']}\n"
        f"  a push, until answered: {window['cost_until_answered']}\n"
        f"  a push, with its effects: {window['cost_with_effects']}\n"
        f"  from push to event: p50 {lag['p50']:,.0f} ms  p99 {lag['p99']:,.0f}  max {lag['max']:,.0f}; "
        f"all {window['all_effects_s_after_the_last']} s after the last push (load {window['load_before']} before)"
    )


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=2000.0, help=f"pushes a second, at most {_MOST_RATE:,}")
    parser.add_argument("--seconds", type=float, default=10.0, help="at that rate; 0 = not at all")
    parser.add_argument("--closed", type=float, default=10.0, help="seconds as fast as possible; 0 = not at all")
    parser.add_argument("--runs", type=int, default=1, help="windows of each kind")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--state-root", type=Path, default=Path("/var/tmp"), help="a real disk")  # noqa: S108
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if (
        not 1 <= options.rate <= _MOST_RATE
        or not 0 <= options.seconds <= _MOST_S
        or not 0 <= options.closed <= _MOST_S
        or not 1 <= options.runs <= _MOST_RUNS
        or not 1 <= options.connections <= 500
    ):
        parser.error("that is more than this bench is for")
    found = uvloop.run(_measure(options))
    if options.json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        print(f"{found['machine']['cores']} cores shared with everything")
        for name in ("open", "closed"):
            for window in found.get(name, ()):
                print(_shown(name, window))
        print(f"books {found['books']}, {'right' if found['right'] else 'WRONG'}")
    late = "open" in found and statistics.median(w["latency_ms"]["p99"] for w in found["open"]) > _WANTED_P99_MS
    sys.exit(0 if found["right"] and not late else 1)


if __name__ == "__main__":
    main()
