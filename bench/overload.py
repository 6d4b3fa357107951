"""``python -m bench.overload``: several times of what the broker can do is asked of it.

First as much as it can (closed loop), then a part of that, then a multiple (open loop, latency from the intended start,
so that what waits in sockets or cannot be sent counts). What is accepted must take at most twice as long as with little
to do.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import orjson

from bench.figures import histogram, percentiles
from bench.machine import load_average, machine
from bench.plan import Plan
from bench.scenario import Scenario, Shape, prepare
from bench.stack import BenchError, Stack, address, running
from bench.window import Window, run_window
from broker.settings import Settings

_MOST_TIMES = 2.0
_ACCEPTED = frozenset({201, 202})
_SHOWN = ("broker_requests_refused_total", "broker_shedding", "broker_event_loop_lag_seconds")


def main() -> int:
    """Measure; 1 = what was accepted took more than twice as long, or nothing was refused."""
    parser = argparse.ArgumentParser(
        prog="bench.overload", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--times", type=float, default=3.0, help="of the capacity that is offered (default 3)")
    parser.add_argument("--share", type=float, default=0.3, help="of the capacity that is little (default 0.3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a window (default 8)")
    parser.add_argument("--warmup", type=float, default=3.0, help="seconds before it (default 3)")
    parser.add_argument("--turns", type=int, default=2, help="of little and too much, each (default 2)")
    parser.add_argument("--clients", type=int, default=64, help="connections of the closed loop (default 64)")
    parser.add_argument("--connections", type=int, default=1500, help="of the open loops (default 1500)")
    parser.add_argument("--load-processes", type=int, default=1, help="they compete for the processors (default 1)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="print everything as one line of JSON")
    options = parser.parse_args()
    os.environ.setdefault("BROKER_OVERLOAD_WAIT_S", f"{Settings.model_fields['overload_wait_s'].default}")
    try:
        result = asyncio.run(_measure(options))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(result) + b"\n")
    else:
        _show(result)
    return 0 if result["ratio"] is not None and result["ratio"] <= _MOST_TIMES else 1


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    async with running(options.workers) as stack:
        scenario = await prepare(stack, Shape())
        result: dict[str, Any] = {"machine": machine(stack.folder)}
        full = _told([await _load(options, stack, scenario, "closed", 0.0)])
        if full["refused"]:
            raise BenchError(
                "The closed loop was refused already: the machine does too much else; try fewer --clients."
            )
        result["capacity"] = full
        windows: dict[str, list[Window]] = {"little": [], "much": []}
        for _ in range(options.turns):
            for name, part in (("little", options.share), ("much", options.times)):
                windows[name].append(await _load(options, stack, scenario, "open", full["accepted_per_s"] * part))
        result |= {name: _told(turns) for name, turns in windows.items()}
        result["metrics"] = await _metrics(stack)
    little, much = (result[name]["accepted_ms"].get("p99") for name in ("little", "much"))
    result["ratio"] = round(much / little, 2) if little and much and result["much"]["refused"] else None
    return result


async def _load(options: argparse.Namespace, stack: Stack, scenario: Scenario, kind: Any, rate: float) -> Window:
    host, port = address(stack.api, mine=False)
    plan = Plan(
        host=host, port=port, api_key=scenario.api_key, kind=kind, pools=scenario.pools, rate=rate, out="",
        connections=options.connections if kind == "open" else options.clients,
        seconds=options.warmup + options.seconds, seed=round(rate) + 1,
    )  # fmt: skip
    with TemporaryDirectory(prefix="broker-bench-samples-") as folder:
        return await run_window(
            plan, Path(folder), lambda _what, _share: None, warmup_s=options.warmup, processes=options.load_processes
        )


def _told(turns: Sequence[Window]) -> dict[str, Any]:
    """Return the figures of all turns together."""
    binds = [one for turn in turns for one in turn.samples if turn.begin <= one[0] < turn.end]
    seconds = sum(turn.end - turn.begin for turn in turns)
    accepted = [one for one in binds if one[1].status in _ACCEPTED]
    refused = [one for one in binds if one[1].status == 503]
    return {
        "offered_per_s": round(len(binds) / seconds, 1),
        "accepted_per_s": round(len(accepted) / seconds, 1),
        "refused_per_s": round(len(refused) / seconds, 1),
        "refused": len(refused),
        "answers": dict(sorted(Counter(str(event.status or "none") for _, event in binds).items())),
        "p99_of_turns_ms": [
            percentiles(
                histogram(
                    event.done - at
                    for at, event in turn.samples
                    if turn.begin <= at < turn.end and event.status in _ACCEPTED
                )
            ).get("p99")
            for turn in turns
        ],
        "accepted_ms": percentiles(histogram(event.done - intended for intended, event in accepted)),
        "refused_ms": percentiles(histogram(event.done - intended for intended, event in refused)),
        "accepted_sent_ms": percentiles(histogram(event.done - event.invoked for _, event in accepted)),
        "sent_late_ms": percentiles(histogram(event.invoked - intended for intended, event in binds)),
        "load_average": load_average(),
    }


async def _metrics(stack: Stack) -> list[str]:
    async with aiohttp.ClientSession(raise_for_status=True) as http, http.get(f"{stack.admin}/metrics") as page:
        return [line for line in (await page.text()).splitlines() if line.startswith(_SHOWN)]


def _show(result: dict[str, Any]) -> None:
    for name, words in (("capacity", "as much as it can"), ("little", "little"), ("much", "too much")):
        one = result[name]
        accepted, refused, late = (one[kind] for kind in ("accepted_ms", "refused_ms", "sent_late_ms"))
        print(
            f"{words}: {one['offered_per_s']:.0f}/s offered, {one['accepted_per_s']:.0f}/s accepted,"
            f" {one['refused_per_s']:.0f}/s refused; accepted p50 {accepted.get('p50', 0):.1f} ms, p99"
            f" {accepted.get('p99', 0):.1f} ms; refusals p99 {refused.get('p99', 0):.1f} ms; sent late p99"
            f" {late.get('p99', 0):.1f} ms; answers {one['answers']}; load average {one['load_average'][0]}"
        )
    print(*result["metrics"], sep="\n")
    print(f"p99 of what was accepted: {result['ratio']} times that with little to do (at most {_MOST_TIMES:g})")


if __name__ == "__main__":
    sys.exit(main())
