"""What ``python -m bench`` does with its words: from files and options to results, reports and exit codes."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench import baseline
from bench import compare as comparing
from bench import size as sizing
from bench import table as targets
from bench.compare import read_result
from bench.machine import machine
from bench.page import page
from bench.report import table
from bench.rivals import kea
from bench.rivals import run as racing
from bench.run import Ask, Target, measure
from bench.scenario_file import ScenarioFile, find, read, shipped
from bench.stack import BenchError

BROKEN = 1


def measured(asks: Sequence[Ask], options: argparse.Namespace) -> int:
    """Measure, report as ``options`` say; 1 = a promise was broken."""
    if options.html is not None and not options.html.absolute().parent.is_dir():
        raise BenchError(f"There is no folder for {options.html}.")
    result = with_progress(lambda progress: measure(asks, progress))
    if options.html is not None:
        options.html.write_text(page(result), encoding="utf-8")
    print_told(result, table(result), options)
    return BROKEN if result["violations"] else 0


def with_progress(
    work: Callable[[Callable[[str, float], None]], Coroutine[Any, Any, dict[str, Any]]],
) -> dict[str, Any]:
    """Run it, and show on a terminal how far it is, on standard error."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=Console(stderr=True),
        transient=True, disable=not sys.stderr.isatty(),
    ) as bar:  # fmt: skip
        task = bar.add_task("", total=1.0)
        return asyncio.run(work(lambda what, share: bar.update(task, description=what, completed=share)))


def print_told(told: object, words: str, options: argparse.Namespace) -> None:
    """Print what was found: as JSON if ``options`` say so, else in words."""
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(told) + b"\n")
    else:
        print(words)


def run(options: argparse.Namespace) -> int:
    """Run a scenario file, in turn with the one it is compared with."""
    path = find(options.scenario)
    file = _changed(read(path), options)
    if file.runner is not None:
        told = ["--json"] if options.json else []
        return subprocess.run([sys.executable, "-m", file.runner, *file.arguments, *told], check=False).returncode
    asks = [ask_of(path.stem, file, options)]
    if file.against is not None and not options.alone:
        beside = path.parent / f"{file.against}.toml"
        other = beside if beside.is_file() else find(file.against)
        asks.append(ask_of(other.stem, _changed(read(other), options), options))
    return measured(asks, options)


def ask_of(name: str, file: ScenarioFile, options: argparse.Namespace) -> Ask:
    """Return what to measure where.

    Raises:
        BenchError: a target without its key.
    """
    target = None
    if options.target:
        if not options.api_key:
            raise BenchError("--target needs --api-key.")
        target = Target(options.target, options.api_key, tuple(options.pool), options.i_own_this_target)
    return Ask(name, file, target, options.state_root)


def _changed(file: ScenarioFile, options: argparse.Namespace) -> ScenarioFile:
    """Return the file with what the command line says otherwise."""
    load = {
        name: value for name in ("seconds", "runs", "rate", "seed") if (value := getattr(options, name)) is not None
    }
    workers = {} if options.workers is None else {"workers": options.workers}
    if file.runner is not None:
        if load or workers:
            raise BenchError(f"This scenario is a bench of its own: {file.runner} --help tells its options.")
        return file
    if "rate" in load and file.load.kind == "closed":
        raise BenchError("A closed loop has no rate.")
    return file.model_copy(
        update={"load": file.load.model_copy(update=load), "broker": file.broker.model_copy(update=workers)}
    )


def list_all(options: argparse.Namespace) -> int:
    """Print the shipped scenarios."""
    told = {name: read(path).about for name, path in shipped().items()}
    print_told(told, "\n".join(f"{name:<18} {about}" for name, about in told.items()), options)
    return 0


def show(options: argparse.Namespace) -> int:
    """Print a scenario's file."""
    sys.stdout.write(Path(find(options.scenario)).read_text(encoding="utf-8"))
    return 0


def compare(options: argparse.Namespace) -> int:
    """Compare two results; 1 = something is worse."""
    old, new = (read_result(path) for path in (options.old, options.new))
    changes, notes = comparing.compare(old, new), comparing.remarks(old, new)
    told = {"changes": [{**asdict(one), "ratio": one.ratio} for one in changes], "notes": notes}
    print_told(told, comparing.table(changes, notes), options)
    return 1 if any(one.verdict == "worse" for one in changes) else 0


def size(options: argparse.Namespace) -> int:
    """Say how large an installation must be."""
    of = sizing.measured(read_result(options.result))
    wanted = sizing.Wanted(
        options.rate, options.p99_ms, options.lifetime_s, options.quarantine_s, options.per_party, options.cap,
        options.cities,
    )  # fmt: skip
    found = sizing.size(of, wanted)
    print_told(
        {"measured": asdict(of), "wanted": asdict(wanted), "size": asdict(found)},
        sizing.words(of, wanted, found),
        options,
    )
    return 0


def rivals(options: argparse.Namespace) -> int:
    """Run the broker and its rivals in turn."""
    if options.names == ["kea"]:
        runs, seconds = options.runs or 3, round(options.seconds or 10)
        found = kea.leases_per_s(options.state_root, seconds=seconds, runs=runs)
        rates = found["leases_per_s"]
        print_told(found, f"Kea: {median(rates):,.0f} leases/s, spread {min(rates):,.0f} to {max(rates):,.0f}", options)
        return 0
    if unknown := set(options.names) - set(racing.NAMES):
        raise BenchError(f"There is no rival {', '.join(sorted(unknown))}; there are {', '.join(racing.NAMES)}.")
    path = find(options.scenario)
    file = _changed(read(path), options)
    if file.runner is not None:
        raise BenchError("Rivals take the load of a scenario, and this one is a bench of its own.")
    ask = Ask(path.stem, file, state_root=options.state_root)
    result = with_progress(lambda progress: racing.rivals(ask, options.names or list(racing.NAMES), progress))
    for one in result["violations"]:
        print(f"VIOLATION: {one}", file=sys.stderr)
    print_told(result, racing.table(result), options)
    return BROKEN if result["violations"] else 0


def check(options: argparse.Namespace) -> int:
    """Run the short subset against the baseline; 1 = a promise was broken, or something got grossly slower."""
    result = with_progress(lambda progress: baseline.check(options.state_root, progress))
    if options.write and not result["violations"]:
        baseline.write(result["ratios"])
    was = baseline.load()
    result["regressions"] = baseline.regressions(result["best"], was)
    lines = [f"VIOLATION: {one}" for one in result["violations"]]
    lines += [f"REGRESSION: {one}" for one in result["regressions"]]
    print_told(result, "\n".join([*lines, baseline.table(result["ratios"], was)]), options)
    return BROKEN if lines else 0


def targets_table(options: argparse.Namespace) -> int:
    """Measure the targets, print them as a table, write it into the README if asked."""
    if options.list:
        there = targets.rows()
        print_told(
            {"rows": [asdict(row) for row in there]},
            "\n".join(f"{row.name:<20} {row.command}" for row in there),
            options,
        )
        return 0
    told = targets.measure(
        options.row,
        options.out,
        again=options.again and not options.saved,
        run=not options.saved,
        progress=lambda what: print(what, file=sys.stderr),
    )
    text = targets.table(told)
    print_told({"machine": machine(None), "rows": [asdict(one) for one in told]}, text, options)
    if options.write:
        readme = Path("README.md")
        readme.write_text(targets.replaced(readme.read_text(encoding="utf-8"), text), encoding="utf-8")
    return BROKEN if any(one.said.startswith("FAILED") for one in told) else 0
