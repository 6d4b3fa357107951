"""``python -m bench.tls``: what it costs how the platform is spoken to.

Three brokers beside each other, each with a platform of its own: one keeps connections open, one closes after each
answer as the platform's documents describe it, one keeps them open and speaks TLS. Closed loops in turn, A B C, C B A,
...: confirmed binds a second, processor time of each, and their ratios to the first. Exit code 1 if a promise was
broken.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from bench.commands import BROKEN, print_told, with_progress
from bench.options import number, whole
from bench.run import Ask, in_turn, prepared, ratios
from bench.scenario_file import ScenarioFile, find, read
from bench.stack import BenchError
from bench.window import Progress

#: By what each is called; the others are told as ratios to the first.
WAYS: Final[Mapping[str, Mapping[str, bool]]] = {
    "keep_alive": {}, "close": {"keep_alive": False}, "tls": {"tls": True},
}  # fmt: skip
_FIRST: Final = "keep_alive"
_FIGURES: Final[Mapping[str, Callable[[Mapping[str, Any]], float]]] = {
    "confirmed_per_s": lambda run: run["confirmed_per_s"],
    "service_cpu_us": lambda run: run["cost"]["cpu_us"]["workers"],
    "emulator_cpu_us": lambda run: run["cost"]["cpu_us"]["emulator"],
    "all_cpu_us": lambda run: run["cost"]["cpu_us_all"],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 1 = a promise was broken, 2 = nothing could be measured."""
    parser = argparse.ArgumentParser(
        prog="bench.tls", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--runs", type=whole(1, 100), default=6, help="windows of each (default 6)")
    add("--seconds", type=number(0.5, 600), default=8.0, help="length of a window (default 8)")
    add("--scenario", default="many-cities", help="a closed loop (default many-cities)")
    add("--workers", type=whole(1, 64), default=2, help="worker processes of each broker (default 2)")
    add("--state-root", type=Path, help="where the databases go: a disk, not memory (default /var/tmp)")
    add("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args(arguments)
    try:
        told = with_progress(lambda progress: measure(options, progress))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    print_told(told, words(told), options)
    return BROKEN if told["violations"] else 0


async def measure(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Start a broker for each way, load them in turn, check all."""
    file = read(find(options.scenario))
    if file.runner is not None or file.load.kind != "closed":
        raise BenchError(f"{options.scenario} is no closed loop.")
    async with AsyncExitStack() as exits:
        benches = []
        for name in WAYS:
            progress(f"starting the broker of {name}", 0.0)
            ask = Ask(name, _spoken(file, name, options), state_root=options.state_root)
            benches.append(await prepared(ask, exits))
        await in_turn(benches, options.runs, progress)
        progress("checking the books", 1.0)
        return told([await bench.result() for bench in benches])


def _spoken(file: ScenarioFile, name: str, options: argparse.Namespace) -> ScenarioFile:
    load = {"seconds": options.seconds, "runs": options.runs}
    return file.model_copy(
        update={
            "load": file.load.model_copy(update=load),
            "platform": file.platform.model_copy(update=WAYS[name]),
            "broker": file.broker.model_copy(update={"workers": options.workers}),
        }
    )


def told(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of each by its name, in the median and with their spread, and ratios to the first."""
    first = results[0]
    return {
        "ways": {one["name"]: _figures(one["runs"]) for one in results},
        "ratios": {one["name"]: ratios(one["runs"], first["runs"]) for one in results[1:]},
        "violations": [f"{one['name']}: {violation}" for one in results for violation in one["violations"]],
        "machine": first["machine"],
        "not_201": {one["name"]: [run["not_201"] for run in one["runs"]] for one in results},
    }


def _figures(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    return {name: _spread([of(run) for run in runs]) for name, of in _FIGURES.items()}


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": round(statistics.median(values), 1), "least": min(values), "most": max(values)}


def words(told: Mapping[str, Any]) -> str:
    """Return it as a table, violations first."""
    lines = [f"VIOLATION: {one}" for one in told["violations"]]
    lines.append(f"{'platform':<12}{'confirmed/s':>26}{'CPU us: service':>26}{'emulator':>10}{'all':>10}")
    for name, of in told["ways"].items():
        rate, service = (
            f"{of[figure]['median']:,.0f} ({of[figure]['least']:,.0f} to {of[figure]['most']:,.0f})"
            for figure in ("confirmed_per_s", "service_cpu_us")
        )
        emulator, whole_us = (f"{of[figure]['median']:,.0f}" for figure in ("emulator_cpu_us", "all_cpu_us"))
        lines.append(f"{name:<12}{rate:>26}{service:>26}{emulator:>10}{whole_us:>10}")
    for name, turns in told["ratios"].items():
        parts = [f"{of} {one['median']:.2f} ({one['least']:.2f} to {one['most']:.2f})" for of, one in turns.items()]
        lines.append(f"{name} / {_FIRST}: " + ", ".join(parts))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
