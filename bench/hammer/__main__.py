"""``python -m bench.hammer --mode ax``: two processes hammer one mode of their own broker; then all books are judged.

Bindings of 60 seconds are among the others: only longer runs see them expire. Exit 1: a promise was broken; 2: nothing
could be measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from bench.check import check_books, check_promises, read_platform
from bench.figures import histogram, percentiles
from bench.hammer.evidence import Evidence
from bench.hammer.judge import from_history, from_ledger, judge, refused, relations_at, unequal
from bench.hammer.kind import KINDS, Kind
from bench.hammer.load import Plan, Told
from bench.hammer.reach import ask, misrouted
from bench.history import check_history
from bench.machine import machine
from bench.mixed import kill_while
from bench.scenario import Scenario, Shape, prepare
from bench.stack import BenchError, Stack, running

_PROCESSES = 2
_QUARANTINE_S = 1
_SETTLE_S = 30.0
_READY_S = 30.0
#: A client repeats what was not answered for so long, or a little longer.
_LATE_S = 90.0
#: Nobody judges how full the pools are before they can be.
_FILLING = 0.2
#: Killed workers' calls are taken over soon, so that the run ends.
_HASTE = {"BROKER_LEASE_S": "6", "BROKER_RESCUE_INTERVAL_S": "0.5", "BROKER_PLATFORM_ABSENCE_S": "5"}


async def hammer(options: argparse.Namespace) -> dict[str, Any]:
    """Hammer and judge; ``violations`` is empty if every promise held."""
    kind = KINDS[_name(options)]
    if options.kill_every:
        for name, value in _HASTE.items():
            os.environ.setdefault(name, value)
    async with running(options.workers) as stack:
        shape = Shape(
            pools=1, numbers=kind.numbers, cap=500, quarantine_s=_QUARANTINE_S, mode=kind.mode, routing=kind.routing,
            extensions_per_x=kind.extensions_per_x,
        )  # fmt: skip
        scenario = await prepare(stack, shape)
        evidence = Evidence(stack, kind)
        with TemporaryDirectory(prefix="broker-hammer-") as folder:
            async with _loads(_plans(options, stack, scenario, Path(folder))) as processes:
                watch = asyncio.create_task(evidence.watch(options.seconds * _FILLING, options.seconds))
                load = asyncio.create_task(_until_done(processes, options.seconds))
                kills = await kill_while(load, stack.pid, options.kill_every or options.seconds * 10)
                occupancy = await watch
            told = [Told.read(Path(folder) / str(number)) for number in range(_PROCESSES)]
        violations = await _violations(stack, scenario, kind, evidence, told, kills=kills)
    answers = sum((Counter(one.answers) for one in told), Counter[str]())
    refusals = _together(told)
    return {
        "machine": machine(None), "mode": kind.mode, "routing": kind.routing if kind.mode == "x" else None,
        "seconds": options.seconds, "clients": options.clients, "workers": options.workers,
        "binds": answers["bind 201"], "changes": answers["change 200"], "releases": answers["release 200"],
        "refusals": {code: len(seconds) for code, seconds in sorted(refusals.items())},
        "refusal_ms": percentiles(histogram(second for seconds in refusals.values() for second in seconds)),
        "occupancy_percent": occupancy.told(), "kills": kills,
        "answers": dict(sorted(answers.items())),
        "violations": violations[:20], "violations_in_all": len(violations),
    }  # fmt: skip


def _name(options: argparse.Namespace) -> str:
    return f"x-{options.routing}" if options.mode == "x" else str(options.mode)


def _together(told: Iterable[Told]) -> dict[str, list[float]]:
    refusals: dict[str, list[float]] = {}
    for one in told:
        for code, seconds in one.refusals.items():
            refusals.setdefault(code, []).extend(seconds)
    return refusals


def _plans(options: argparse.Namespace, stack: Stack, scenario: Scenario, folder: Path) -> list[Plan]:
    each, left = divmod(options.clients, _PROCESSES)
    return [
        Plan(
            stack.api, scenario.api_key, _name(options), each + (number < left), options.seconds, number, _PROCESSES,
            str(folder / str(number)),
        )
        for number in range(_PROCESSES)
    ]  # fmt: skip


@asynccontextmanager
async def _loads(plans: Sequence[Plan]) -> AsyncIterator[list[Process]]:
    """Start the load processes, let them all begin at once, and end whatever is left of them."""
    processes: list[Process] = []
    try:
        for plan in plans:
            processes.append(await _start(plan))  # noqa: PERF401 - those that started are ended if one does not
        for process in processes:
            assert process.stdout is not None  # noqa: S101 - asked for with PIPE
            if not await asyncio.wait_for(process.stdout.readline(), _READY_S):
                raise BenchError("A load process did not start; its message is above.")
        for process in processes:
            _tell(process, b"go\n")
        yield processes
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def _start(plan: Plan) -> Process:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.hammer.load", stdin=PIPE, stdout=PIPE)
    _tell(process, orjson.dumps(plan) + b"\n")
    return process


def _tell(process: Process, line: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 - asked for with PIPE
    process.stdin.write(line)


async def _until_done(processes: Sequence[Process], seconds: float) -> None:
    try:
        codes = await asyncio.wait_for(asyncio.gather(*(one.wait() for one in processes)), seconds + _LATE_S)
    except TimeoutError:
        raise BenchError("The load did not end; the broker may be stuck.") from None
    if any(codes):
        raise BenchError("A load process failed; its message is above.")


async def _violations(
    stack: Stack, scenario: Scenario, kind: Kind, evidence: Evidence, told: Sequence[Told], *, kills: int
) -> list[str]:
    operations = [operation for one in told for operation in one.operations]
    app_key = await evidence.app_key()
    found = await check_books(stack.database, stack.vault(), stack.emulator_admin, settle_s=_SETTLE_S)
    found += await check_promises(stack.database, operations, settle_s=_SETTLE_S, expired=True)
    found += await evidence.wrong_books()
    if kind.pair:
        found += check_history(operations, quarantine_s=_QUARANTINE_S, cap=scenario.cap, sharing=True)
    rest_s = float(_QUARANTINE_S) if kind.rests else 0.0
    live, ledger = await read_platform(stack.emulator_admin)
    found += [f"platform: {one}" for one in judge(from_ledger(ledger, app_key), rest_s=rest_s, most=kind.most)]
    if kind.rests:
        # Where the platform picks, it gives an X away a moment before our books have let it go.
        history = from_history(await evidence.history())
        found += [f"history: {one}" for one in judge(history, rest_s=rest_s, most=kind.most)]
    if kind.rests and not kills:
        found += refused(ledger, app_key)
    if not kind.rests:
        found += unequal(await evidence.relations(), relations_at(live, app_key))
    if kind.mode == "x":
        lines = await evidence.reachable()
        found += misrouted(await ask(stack.api, scenario.api_key, lines, await evidence.numbers()))
    return found


def main() -> int:
    """Run; 1 = a promise was broken, 2 = nothing could be measured."""
    parser = argparse.ArgumentParser(
        prog="bench.hammer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mode", choices=sorted({kind.mode for kind in KINDS.values()}), default="axb")
    parser.add_argument("--routing", choices=("pair", "one"), default="pair", help="of mode x (default pair)")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long (default 30)")
    parser.add_argument("--clients", type=int, default=64, help="of both processes together (default 64)")
    parser.add_argument("--workers", type=int, default=2, help="of the broker (default 2)")
    parser.add_argument(
        "--kill-every", type=float, default=0.0, help="seconds between kills of workers (default never)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()
    try:
        told = asyncio.run(hammer(options))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(told)
    return 1 if told["violations_in_all"] else 0


def _print(told: dict[str, Any]) -> None:
    for one in told["violations"]:
        print(f"VIOLATION {one}")
    mode = told["mode"] + (f" ({told['routing']})" if told["routing"] else "")
    latency, full = told["refusal_ms"], told["occupancy_percent"]
    rows = {
        "mode": mode,
        "binds / changes / releases": f"{told['binds']} / {told['changes']} / {told['releases']}",
        "refusals": f"{sum(told['refusals'].values())} {told['refusals']}",
        "refusal p50 / p99": f"{latency.get('p50', 0):.1f} / {latency.get('p99', 0):.1f} ms",
        "pool full, least / median": f"{full.get('full_min', 0)} / {full.get('full_median', 0)} %",
        "kills": told["kills"],
        "violations": told["violations_in_all"],
    }
    for name, value in rows.items():
        print(f"{name:<28}{value}")


if __name__ == "__main__":
    sys.exit(main())
