"""``python -m bench.up``: how long `./scripts/up` takes until the service is ready, once everything is installed.

Each run starts it on a fresh folder (cold: a database is made) and, after it has ended, on the same one (warm). The
time goes from the start of the process to the first 200 of /readyz; the modules are compiled before, as the
installation leaves them. Exit code 1 if a start did not end as it should.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from compileall import compile_dir
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench.commands import BROKEN, print_told, with_progress
from bench.machine import machine
from bench.options import whole
from bench.ports import free_ports
from bench.stack import DISK, BenchError, environment, home_on_disk, stopped
from bench.window import Progress

_SCRIPT: Final = Path(__file__).parents[1] / "scripts/up"
_TARGETS_S: Final = {"cold": 5.0, "warm": 1.5}
_LIMIT_S: Final = 120.0
_LOOK_S: Final = 0.01


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 1 = something did not end as it should, 2 = nothing could be measured."""
    parser = argparse.ArgumentParser(
        prog="bench.up", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--runs", type=whole(1, 50), default=5, help="cold starts, each with a warm one after it (default 5)")
    add("--workers", type=whole(1, 64), default=2, help="worker processes (default 2)")
    add("--state-root", type=Path, help="where the state folders go: a disk, not memory (default /var/tmp)")
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
    """Start and end it again and again."""
    compile_dir(_SCRIPT.parents[1] / "broker", quiet=2)
    took: dict[str, list[float]] = {kind: [] for kind in _TARGETS_S}
    violations = []
    for run in range(options.runs):
        with home_on_disk(options.state_root) as home:
            for part, kind in enumerate(_TARGETS_S):
                progress(f"{kind} start {run + 1} of {options.runs}", (run + part / len(_TARGETS_S)) / options.runs)
                seconds, code = await _start(home, options.workers)
                took[kind].append(seconds)
                if code:
                    violations.append(f"{kind} start {run + 1} ended with {code}")
    return {
        **{f"{kind}_s": spread(of) for kind, of in took.items()},
        "targets_s": _TARGETS_S, "violations": violations, "machine": machine(options.state_root or DISK),
    }  # fmt: skip


async def _start(home: Path, workers: int) -> tuple[float, int]:
    """Start it, wait until it is ready, end it; return seconds until it was ready, and its exit code."""
    port = free_ports(3)[0]
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        str(_SCRIPT), "--port", str(port), "--state-dir", str(home), "--workers", str(workers),
        stdout=DEVNULL, env=environment(),
    )  # fmt: skip
    try:
        await _ready(process, f"http://127.0.0.1:{port}/readyz", began + _LIMIT_S)
        seconds = time.monotonic() - began
    finally:
        code = await stopped(process)
    return seconds, code


async def _ready(process: Process, url: str, deadline: float) -> None:
    """Ask until the answer is 200.

    Raises:
        BenchError: it ended, or it takes too long.
    """
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=1)) as http:
        while process.returncode is None and time.monotonic() < deadline:
            try:
                async with http.get(url) as answer:
                    if answer.status == 200:
                        return
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(_LOOK_S)
    raise BenchError("The broker did not start; its message is above.")


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Return the median, the least and the most of some times, and all of them."""
    found = [round(one, 3) for one in seconds]
    return {"median": round(statistics.median(found), 3), "least": min(found), "most": max(found), "runs": found}


def words(told: Mapping[str, Any]) -> str:
    """Return it as lines, violations first."""
    lines = [f"VIOLATION: {one}" for one in told["violations"]]
    for kind, target in told["targets_s"].items():
        of = told[f"{kind}_s"]
        lines.append(
            f"{kind}: ready after {of['median']:.2f} s ({of['least']:.2f} to {of['most']:.2f}), target {target:g} s"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
