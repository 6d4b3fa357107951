"""``python -m bench.added``: the latency that the broker adds to the platform's own.

The platform takes its time by a log-normal distribution. A closed loop finds the capacity with it (or --capacity tells
it); then binds come at shares of that, Poisson arrivals drawn beforehand, with a checkpoint in the middle of each
window. What a bind waited from its intended start on, less the time that the emulator drew for its calls by its ledger,
was added: the emulator's own work and whatever made the load late included. Exit code 1 if a promise was broken.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from bench.check import read_platform
from bench.commands import BROKEN, print_told, with_progress
from bench.figures import Sample, closed_window, histogram, open_window, percentiles
from bench.machine import machine
from bench.options import number, whole
from bench.plan import Pair
from bench.run import Ask, Bench, prepared
from bench.scenario_file import Faults, ScenarioFile, read, shipped
from bench.stack import BenchError
from bench.window import Progress, Window

_SCENARIO: Final = "platform-slow"
#: Shares of the capacity, and what p99 may be there, in milliseconds.
_TARGETS_MS: Final = {0.5: 10.0, 0.7: 20.0, 0.9: 60.0}
_TOLD: Final = ("p50", "p99", "p99_9")


@dataclass(frozen=True, slots=True)
class Level:
    """One window at a share of the capacity."""

    share: float
    rate: float
    window: Window


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 1 = a promise was broken, 2 = nothing could be measured."""
    options = _parser().parse_args(arguments)
    try:
        told = with_progress(lambda progress: measure(options, progress))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    print_told(told, words(told), options)
    return BROKEN if told["violations"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench.added", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--capacity", type=number(1, 1e6), metavar="N", help="binds a second (default: a closed loop finds it)")
    add(
        "--shares", type=number(0.01, 2), nargs="+", default=list(_TARGETS_MS), help="of it (default 0.5 0.7 0.9)"
    )  # fmt: skip
    add("--seconds", type=number(1, 600), default=20.0, help="length of a window (default 20)")
    add("--runs", type=whole(1, 20), default=1, help="windows of each share (default 1)")
    add("--median-ms", type=number(1, 10_000), default=80.0, help="the platform's latency (default 80)")
    add("--sigma", type=number(0, 2), default=0.5, help="of its logarithm (default 0.5)")
    add("--clients", type=whole(1, 10_000), default=1000, help="connections of the load (default 1000)")
    add("--workers", type=whole(1, 64), default=2, help="worker processes (default 2)")
    add(
        "--platform-connections", type=whole(1, 1000), default=400,
        help="BROKER_PLATFORM_CONNECTIONS unless that is set: with 64 they are the limit (default 400)",
    )  # fmt: skip
    add("--state-root", type=Path, help="where the database goes: a disk, not memory (default /var/tmp)")
    add("--json", action="store_true", help="print everything as JSON")
    return parser


async def measure(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Find the capacity, run the windows, join what was waited with what the platform took."""
    async with AsyncExitStack() as exits:
        progress("starting the broker", 0.0)
        bench = await prepared(Ask("added", _file(options), state_root=options.state_root), exits)
        if bench.stack is None:
            raise BenchError("Only the emulator tells what the platform took.")
        capacity = options.capacity or await _capacity(bench, progress)
        levels = await _levels(bench, capacity, options, progress)
        progress("checking the books", 1.0)
        _, rows = await read_platform(bench.stack.emulator_admin)
        took = platform_s(rows)
        return {
            "capacity_per_s": capacity,
            "platform_ms": {"median": options.median_ms, "sigma": options.sigma},
            "levels": [
                level_of([_figures(level, took) for level in levels if level.share == share])
                for share in sorted(set(options.shares))
            ],
            "violations": await bench.violations(),
            "machine": machine(bench.stack.folder),
        }


async def _capacity(bench: Bench, progress: Progress) -> float:
    plan = replace(bench.plan, kind="closed", rate=0.0)
    window = await bench.window(plan, lambda what, share: progress(f"capacity: {what}", share), Faults())
    found = float(closed_window(window.samples, window.begin, window.end)["confirmed_per_s"])
    if not found:
        raise BenchError("Nothing was confirmed; there is no capacity to take shares of.")
    return found


async def _levels(bench: Bench, capacity: float, options: argparse.Namespace, progress: Progress) -> list[Level]:
    """Run the windows: up and down, so that what changes with time falls on all alike."""
    levels: list[Level] = []
    shares = sorted(set(options.shares))
    order = [share for run in range(options.runs) for share in (shares[::-1] if run % 2 else shares)]
    faults = Faults(checkpoint_every_s=options.seconds / 2)
    for place, share in enumerate(order):
        rate = round(capacity * share, 1)
        plan = replace(bench.plan, rate=rate, seed=bench.plan.seed + 1000 * (place + 1))

        def tell(what: str, part: float, place: int = place, share: float = share) -> None:
            progress(f"{share:.0%} of {capacity:,.0f}/s: {what}", (place + part) / len(order))

        levels.append(Level(share, rate, await bench.window(plan, tell, faults)))
    return levels


def _file(options: argparse.Namespace) -> ScenarioFile:
    """Return the shipped scenario with what the options say."""
    file = read(shipped()[_SCENARIO])
    load = {"seconds": options.seconds, "clients": options.clients}
    broker = {
        "workers": options.workers, "settings": {"BROKER_PLATFORM_CONNECTIONS": str(options.platform_connections)}
    }  # fmt: skip
    platform = {"median_ms": options.median_ms, "sigma": options.sigma}
    return file.model_copy(
        update={
            "load": file.load.model_copy(update=load),
            "platform": file.platform.model_copy(update=platform),
            "broker": file.broker.model_copy(update=broker),
        }
    )


def platform_s(rows: Iterable[Mapping[str, Any]]) -> dict[Pair, float]:
    """Return by pair how long the platform took for all its bind calls, in seconds, from rows of the ledger."""
    took: defaultdict[Pair, float] = defaultdict(float)
    for row in rows:
        if row["op"] == "bind":
            took[row["a"], row["b"]] += row.get("delay_ms", 0) / 1e3
    return took


def added_s(samples: Iterable[Sample], took: Mapping[Pair, float], begin: float, end: float) -> list[float]:
    """Return for each bind meant to start in the window what it waited beyond the platform's own time, in seconds.

    Of what was refused, and of what never was sent, the platform took nothing: all of its wait counts.
    """
    return [
        event.done - intended - took.get((event.a, event.b), 0.0)
        for intended, event in samples
        if event.op == "bind" and begin <= intended < end
    ]


def _figures(level: Level, took: Mapping[Pair, float]) -> dict[str, Any]:
    window = level.window
    seen = open_window(window.samples, window.begin, window.end)
    added = percentiles(histogram(added_s(window.samples, took, window.begin, window.end)))
    return {
        "share": level.share, "rate": level.rate, "added_ms": added, "checkpoints": window.troubles["checkpoints"],
        **{name: seen[name] for name in ("confirmed_per_s", "not_201", "unsent", "sent_late", "latency_ms")},
    }  # fmt: skip


def level_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the windows of one share as one: medians, the spread of p99, and what it should be."""
    added = {name: [run["added_ms"][name] for run in runs if run["added_ms"]] for name in _TOLD}
    share = runs[0]["share"]
    return {
        "share": share,
        "rate": runs[0]["rate"],
        "confirmed_per_s": statistics.median(run["confirmed_per_s"] for run in runs),
        "added_ms": {name: round(statistics.median(of), 3) for name, of in added.items() if of},
        "added_p99_ms": {"least": min(added["p99"], default=None), "most": max(added["p99"], default=None)},
        "target_p99_ms": _TARGETS_MS.get(share),
        "runs": list(runs),
    }


def words(told: Mapping[str, Any]) -> str:
    """Return it as a table, violations first."""
    lines = [f"VIOLATION: {one}" for one in told["violations"]]
    own = told["platform_ms"]
    lines.append(
        f"capacity {told['capacity_per_s']:,.0f} binds/s, the platform takes {own['median']:g} ms"
        f" (sigma {own['sigma']:g}); added to that, in ms:"
    )
    for level in told["levels"]:
        added, spread, target = level["added_ms"], level["added_p99_ms"], level["target_p99_ms"]
        if not added:
            lines.append(f"  {level['share']:.0%}  nothing came")
            continue
        wanted = "" if target is None else f", target {target:g}"
        failed = sum(sum(run["not_201"].values()) for run in level["runs"])
        lines.append(
            f"  {level['share']:>4.0%} = {level['rate']:,.0f}/s: p50 {added['p50']:.1f}  p99 {added['p99']:.1f}"
            f" ({spread['least']:.1f} to {spread['most']:.1f}{wanted})  p99.9 {added['p99_9']:.1f};"
            f" {level['confirmed_per_s']:,.0f} confirmed/s, {failed} not"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
