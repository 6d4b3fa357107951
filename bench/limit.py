"""``python -m bench.limit``: is the outbound limit exact, is all of it used, and what does it cost?

Instances are processes of their own with the real sender, lanes and limiter, against a real emulator and PostgreSQL.
With 4 instances one is killed half-way and the wall clock of another is an hour ahead (where libfaketime is there).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import orjson

from bench.limit_sender import ENTRY
from bench.machine import machine
from bench.stack import BenchError, Stack, running
from bench.windows import excess
from broker.store.statements import statements

_FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1")
HAS_FAKETIME = _FAKETIME.exists()
_X, _A, _B = "+8617099000001", "+8613999000001", "+8613999000002"
_LATE_S = 0.05
_START_S = 1.0
#: What a run can use at least: of fewer slots, the one that a killed instance takes along would be a whole percent.
_LEAST_CALLS = 400
_MOST_ADDED_S = 0.005


@dataclass(frozen=True, slots=True)
class Case:
    """One run: ``kind`` is backlog, steady or alone; ``rate`` None = the app has no limit."""

    kind: str
    rate: float | None
    burst: int
    instances: int
    seconds: float
    offer: float = 0.0
    faults: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """What became of a run; times in seconds, on one monotonic clock and by the emulator."""

    begin: float
    sockets: list[float]
    delays: list[float]
    emulator: list[float]
    results: list[dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 1 = a window was over the limit, too little of it was used, or it made calls wait."""
    parser = argparse.ArgumentParser(
        prog="bench.limit", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[20.0, 200.0, 2000.0], help="calls a second")
    parser.add_argument("--instances", type=int, nargs="+", default=[1, 2, 4], help="processes (default 1 2 4)")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a run (default 10), more at low rates")
    parser.add_argument("--waiting", type=int, default=96, help="calls that wait in each instance (default 96)")
    parser.add_argument("--state-root", type=Path, help="where the database goes (default /var/tmp)")
    try:
        return asyncio.run(_measure(parser.parse_args(arguments)))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2


async def _measure(options: argparse.Namespace) -> int:
    print(orjson.dumps(machine(None)).decode())
    if not HAS_FAKETIME:
        print("libfaketime is not installed: no instance has a wrong clock")
    good = True
    async with running(1, options.state_root) as stack:
        for rate in options.rates:
            for count in options.instances:
                burst = _burst(rate)
                seconds = max(options.seconds, _START_S + _LEAST_CALLS / rate)
                case = Case("backlog", rate, burst, count, seconds, faults=count >= 4)
                good &= _report(case, await run(stack, case, waiting=options.waiting))
        for rate in options.rates:
            good &= await _added_latency(stack, rate, options.seconds)
        for count in options.instances:
            _report_alone(await run(stack, Case("alone", 100_000.0, 1, count, options.seconds / 2)))
    return 0 if good else 1


def _report(case: Case, seen: Seen) -> bool:
    """Print the figures of a backlog and tell whether they are as promised."""
    rate = case.rate or 0.0
    at_sockets = excess(seen.sockets, rate=rate, burst=case.burst)
    at_emulator = excess(seen.emulator, rate=rate, burst=case.burst, slack_s=_LATE_S)
    # While there is a backlog: not the first moments, in which each instance tries its secret, nor the end.
    begin, end = seen.begin + _START_S, seen.begin + case.seconds
    used = sum(begin <= at <= end for at in seen.sockets) / (rate * (end - begin))
    print(
        f"rate {rate:g}/s, burst {case.burst}, {case.instances} instances{', faults' if case.faults else ''}:"
        f" {len(seen.sockets)} calls, {used:.2%} of the budget;"
        f" worst window {at_sockets:+.2f} calls at the sockets, {at_emulator:+.2f} at the emulator"
        f" ({len(seen.emulator)} calls); load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return at_sockets <= 0 and at_emulator <= 0 and used >= 0.99


def _burst(rate: float) -> int:
    return max(5, round(rate / 10))


async def _added_latency(stack: Stack, rate: float, seconds: float) -> bool:
    """Half the limit, without and with one, in turn and twice: from when a call is wanted to when it leaves."""
    delays: dict[bool, list[float]] = {False: [], True: []}
    for limited in (False, True, False, True):
        case = Case("steady", rate if limited else None, _burst(rate), 1, seconds, offer=rate / 2)
        delays[limited] += (await run(stack, case)).delays
    without, limited_to = (sorted(delays[limited])[int(len(delays[limited]) * 0.99)] for limited in (False, True))
    added = limited_to - without
    print(
        f"half of {rate:g}/s: p99 to the socket {limited_to * 1000:.2f} ms, without a limit {without * 1000:.2f} ms:"
        f" {added * 1000:+.2f} ms (wanted: {_MOST_ADDED_S * 1000:g}); load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return added <= _MOST_ADDED_S


def _report_alone(seen: Seen) -> None:
    decisions = sum(result["decisions"] for result in seen.results)
    cpu, server = (sum(result[of] for result in seen.results) for of in ("cpu_s", "server_cpu_s"))
    seconds = max(result["seconds"] for result in seen.results)
    print(
        f"limiter alone, {len(seen.results)} instances: {decisions / seconds:,.0f} decisions/s,"
        f" CPU {cpu / decisions * 1e6:.0f} µs in the service and {server / decisions * 1e6:.0f} µs in"
        " PostgreSQL each",
        flush=True,
    )


async def run(stack: Stack, case: Case, *, waiting: int = 96) -> Seen:
    """Run one case on an app of its own.

    Raises:
        BenchError: an instance ended by itself.
    """
    name = f"limit-{time.monotonic_ns():x}"
    await _make_app(stack, name, case)
    after = await _ledger_end(stack)
    with tempfile.TemporaryDirectory(prefix="broker-limit-") as folder:
        logs = [Path(folder) / str(place) for place in range(case.instances)]
        instances = [await _start(stack, case, name, log, place, waiting) for place, log in enumerate(logs)]
        try:
            begin = time.monotonic() + 0.5
            for instance in instances:
                assert instance.stdin is not None  # noqa: S101 - asked for with PIPE
                instance.stdin.write(f"{begin}\n".encode())
            if case.faults:
                await asyncio.sleep(begin + case.seconds / 2 - time.monotonic())
                instances.pop().kill()
            answers = await asyncio.wait_for(asyncio.gather(*map(_answer, instances)), case.seconds + 60)
        finally:
            for instance in instances:
                if instance.returncode is None:
                    instance.kill()
                    await instance.wait()
        entries = sorted((left, wanted) for log in logs for wanted, left in ENTRY.iter_unpack(log.read_bytes()) if left)
    received = sorted([at async for at in _received(stack, after, name)])
    return Seen(
        begin,
        [left / 1e9 for left, _ in entries],
        # Not those of the first moments, as with the budget: nothing is connected or prepared yet.
        [(left - wanted) / 1e9 for left, wanted in entries if wanted / 1e9 >= begin + _START_S],
        received,
        answers,
    )


async def _start(stack: Stack, case: Case, name: str, log: Path, place: int, waiting: int) -> Process:
    places = int((case.rate or case.offer) * case.seconds * 2) + 10_000
    plan = {
        "kind": case.kind, "app": name, "log": str(log), "places": places,
        "seconds": case.seconds, "waiting": waiting, "offer": case.offer, "width": 64, "x": _X, "a": _A,
    }  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")} | {
        "BROKER_DATABASE_URL": stack.database,
        "BROKER_DATA_KEYS": stack.who.data_keys,
        "BROKER_INDEX_KEY": stack.who.index_key,
    }
    if case.faults and place == 0 and HAS_FAKETIME:
        environment |= {
            "LD_PRELOAD": str(_FAKETIME), "FAKETIME": "+1h",
            "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bench.limit_sender",
        orjson.dumps(plan).decode(),
        stdin=PIPE,
        stdout=PIPE,
        env=environment,
    )
    assert process.stdout is not None  # noqa: S101 - asked for with PIPE
    if await asyncio.wait_for(process.stdout.readline(), 60) != b"ready\n":
        raise BenchError("An instance did not start; its message is above.")
    return process


async def _answer(process: Process) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101 - asked for with PIPE
    said = await process.stdout.read()
    if await process.wait() != 0:
        raise BenchError("An instance broke; its message is above.")
    answer: dict[str, Any] = orjson.loads(said.splitlines()[-1])
    return answer


async def _make_app(stack: Stack, name: str, case: Case) -> None:
    db = await asyncpg.connect(stack.database)
    try:
        sealed = stack.vault().seal("app", "secret", 0, name, "secret")
        await db.fetchval(
            statements("config")["add_app"], name, "axb", name, sealed, stack.emulator, case.rate, case.burst, 60, 500
        )
    finally:
        await db.close()
    app = f"{stack.emulator_admin}/emulator/apps/{name}"
    async with aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(total=30)) as http:
        await http.put(app, json={"secret": "secret", "mode": "axb", "rate": 0, "burst": None})


async def _ledger_end(stack: Stack) -> int:
    async with (
        aiohttp.ClientSession(raise_for_status=True) as http,
        http.get(f"{stack.emulator_admin}/emulator/health") as answer,
    ):
        return int((await answer.json())["ledger"])


async def _received(stack: Stack, after: int, app_key: str) -> Any:
    """Yield when each request of the app arrived, by the emulator's own log."""
    cursor: int | None = after
    async with aiohttp.ClientSession(raise_for_status=True, timeout=aiohttp.ClientTimeout(total=60)) as http:
        while cursor is not None:
            async with http.get(f"{stack.emulator_admin}/emulator/ledger?limit=10000&after={cursor}") as answer:
                page = orjson.loads(await answer.read())
            for row in page["items"]:
                if row["app_key"] == app_key and row["received_at"] is not None:
                    yield datetime.fromisoformat(row["received_at"]).timestamp()
            cursor = page["next"]


if __name__ == "__main__":
    sys.exit(main())
