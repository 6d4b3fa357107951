"""``python -m bench.lunch``: the lunch hour of `broker demo` on a broker of its own, every call judged.

Exit 1: a wrong person was reached, or the books of broker and platform differ afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from asyncio.subprocess import PIPE
from typing import Any

import orjson

from bench.check import check_books
from bench.machine import machine
from bench.stack import BenchError, Stack, running

_SETTLE_S = 60.0
_BEYOND_S = 300.0


def main() -> int:
    """Play and judge."""
    parser = argparse.ArgumentParser(prog="bench.lunch", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--couriers", type=int, default=200)
    parser.add_argument("--minutes", type=int, default=60, help="of the city's time (default 60)")
    parser.add_argument("--seconds", type=int, default=40, help="that they take (default 40)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="it is JSON anyway")
    options = parser.parse_args()
    try:
        result = asyncio.run(_measure(options))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    print(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode())
    return 1 if result["violations"] else 0


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    async with running(options.workers) as stack:
        hour = await _play(stack, options)
        violations = await check_books(stack.database, stack.vault(), stack.emulator_admin, settle_s=_SETTLE_S)
    wrong = hour["calls"]["wrong_person"]
    if wrong:
        violations.insert(0, f"{wrong} calls reached a wrong person")
    return {"violations": violations, "machine": machine(None), "hour": hour}


async def _play(stack: Stack, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "broker", "demo", "--state-dir", str(stack.folder), "--json"]
    for name in ("couriers", "minutes", "seconds", "seed"):
        command += [f"--{name}", str(getattr(options, name))]
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE)
    try:
        out, _ = await asyncio.wait_for(process.communicate(), options.seconds + _BEYOND_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise BenchError("The hour did not end.") from None
    if not out:
        raise BenchError("The hour could not be played; the message is above.")
    told: dict[str, Any] = orjson.loads(out)
    return told


if __name__ == "__main__":
    sys.exit(main())
