"""``python -m bench.crash``: processes of the broker killed at each place of a call's life, under load (P3).

``--freeze``: frozen past their leases and woken instead (P5). ``--takeover``: how soon the calls of a killed process
are settled at the default times (P4). Exit 1: a promise was broken; 2: nothing could be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable
from typing import Any

import orjson

from bench.crash.freeze import freeze_at_all
from bench.crash.kills import MODES, kill_at_all
from bench.crash.points import FROZEN, KILLED, POINTS
from bench.crash.takeover import take_over
from bench.machine import machine
from bench.stack import BenchError


async def _run(options: argparse.Namespace) -> dict[str, Any]:
    way = take_over if options.takeover else freeze_at_all if options.freeze else kill_at_all
    return {"machine": machine(None), **await way(options)}


def main() -> int:
    """Run; 1 = a promise was broken, 2 = nothing could be measured."""
    parser = argparse.ArgumentParser(
        prog="bench.crash", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--freeze", action="store_true", help="freeze one process at each point instead, and wake it")
    way.add_argument("--takeover", action="store_true", help="measure how soon calls are taken over")
    parser.add_argument("--kills", type=int, help="at each point (default 30; with --takeover in all, default 5)")
    parser.add_argument(
        "--points", help="which of them, separated by commas (default all; postgres kills the database)"
    )
    parser.add_argument("--modes", default="axb,axe", help=f"what is killed amid: {','.join(MODES)} (default axb,axe)")
    parser.add_argument("--workers", type=int, default=3, help="processes of the broker (default 3)")
    parser.add_argument("--clients", type=int, help="per mode (default 24; with --takeover 150)")
    parser.add_argument(
        "--full", type=float, default=0.0, help="share of binds that the platform refuses as an X that is full"
    )
    parser.add_argument("--default-times", action="store_true", help="with leases and waits as users have them")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    options.kills = options.kills or (5 if options.takeover else 30)
    options.clients = options.clients or (150 if options.takeover else 24)
    known, usual = (FROZEN, FROZEN) if options.freeze else (KILLED, POINTS)
    options.points = _chosen(parser, "points", options.points or ",".join(usual), known)
    options.modes = _chosen(parser, "modes", options.modes, MODES)
    try:
        told = asyncio.run(_run(options))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() if options.json else _told(told))
    return 1 if told["violations_in_all"] else 0


def _chosen(parser: argparse.ArgumentParser, name: str, words: str, known: Iterable[str]) -> list[str]:
    chosen = words.split(",")
    if unknown := set(chosen) - set(known):
        parser.error(f"--{name}: there is no {', '.join(sorted(unknown))}; choose of {', '.join(known)}")
    return chosen


def _told(told: dict[str, Any]) -> str:
    lines = [f"{name:<26}{value}" for name, value in told.items() if name not in {"machine", "points", "violations"}]
    lines += [f"{point['point']:<26}{point}" for point in told.get("points", ())]
    return "\n".join([*lines, *(f"VIOLATION {one}" for one in told["violations"])])


if __name__ == "__main__":
    sys.exit(main())
