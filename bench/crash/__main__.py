"""``python -m bench.crash``: processes of the broker killed at each place of a call's life, under load (P3).

``--freeze``: frozen past their leases and woken instead (P5). ``--takeover``: how soon the calls of a killed process
are settled at the default times (P4). Exit 1: a promise was broken; 2: nothing could be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import Any

import orjson

from bench.crash.kills import MODES, kill_at_all
from bench.crash.points import POINTS
from bench.machine import machine
from bench.stack import BenchError


async def _run(options: argparse.Namespace) -> dict[str, Any]:
    return {"machine": machine(None), **await kill_at_all(options)}


def main() -> int:
    """Run; 1 = a promise was broken, 2 = nothing could be measured."""
    parser = argparse.ArgumentParser(
        prog="bench.crash", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30, help="at each point (default 30)")
    parser.add_argument("--points", default=",".join(POINTS), help="which of them (default all)")
    parser.add_argument("--modes", default="axb,axe", help=f"of {','.join(MODES)} (default axb,axe)")
    parser.add_argument("--workers", type=int, default=3, help="processes of the broker (default 3)")
    parser.add_argument("--clients", type=int, default=24, help="per mode (default 24)")
    parser.add_argument("--default-times", action="store_true", help="with leases and waits as users have them")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    for name, known in (("points", POINTS), ("modes", MODES)):
        chosen = getattr(options, name).split(",")
        if unknown := [one for one in chosen if one not in known]:
            parser.error(f"--{name}: there is no {', '.join(unknown)}; choose of {', '.join(known)}")
        setattr(options, name, chosen)
    try:
        told = asyncio.run(_run(options))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode() if options.json else _told(told))
    return 1 if told["violations_in_all"] else 0


def _told(told: dict[str, Any]) -> str:
    lines = [f"{name:<26}{value}" for name, value in told.items() if name not in {"machine", "points", "violations"}]
    lines += [f"{point['point']:<26}{point}" for point in told.get("points", ())]
    return "\n".join([*lines, *(f"VIOLATION {one}" for one in told["violations"])])


if __name__ == "__main__":
    sys.exit(main())
