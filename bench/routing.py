"""How long the look-up behind a call of mode X takes, with few live bindings and with very many.

``python -m bench.routing [--live 1000000] [--few 10000] [--seconds 20] [--json]`` starts a PostgreSQL of its own on a
real disk, loads two databases with live pairs (every line with two sealed numbers, two slots, a binding), and asks both
in turn, one call after the other, from this process: random callers, one in ten a stranger. Every answer is checked. An
empty statement in between shows what the machine itself takes at that time.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.figures import histogram, percentiles
from bench.live_pairs import CAP, NUMBERS, POOLS, LivePairs
from bench.machine import machine
from broker.embedded import Embedded
from broker.flows.route import Connect, Router
from broker.store import registry
from broker.store.crypto import DataKey, Vault
from broker.store.database import Database
from broker.store.migrate import migrate

_MOST = 2_000_000
_STRANGERS = 0.1
#: What the way to the database and back takes: the machine's part in the rest.
_FLOOR = "empty statement"
_VAULT = Vault((DataKey(1, bytes(32)),), bytes(32))


@dataclass(frozen=True, slots=True)
class Books:
    """A loaded database."""

    db: Database
    router: Router
    pairs: LivePairs

    async def call(self, dice: random.Random) -> float:
        """Route one call and return its seconds.

        Raises:
            RuntimeError: somebody else was reached than who should have been.
        """
        n = dice.randrange(self.pairs.live)
        stranger = dice.random() < _STRANGERS
        caller, callee = dice.sample(self.pairs.ends(n), 2)
        if stranger:
            caller = self.pairs.stranger(n)
        began = time.perf_counter()
        answer = await self.router.route(self.pairs.x(n), caller)
        took = time.perf_counter() - began
        right = (
            not isinstance(answer, Connect)
            if stranger
            else (isinstance(answer, Connect) and answer.callee.reveal() == callee)
        )
        if not right:
            raise RuntimeError("a call reached somebody else")
        return took


async def _load(dsn: str, live: int, progress: Progress) -> LivePairs:
    """Migrate and fill a database."""
    await migrate(dsn)
    admin = await asyncpg.connect(dsn)
    secret = _VAULT.seal("app", "secret", 0, "bench", "secret")
    await admin.execute(
        "INSERT INTO app (name, mode, app_key, secret_sealed, base_url) VALUES ('bench', 'x', 'k', $1, 'http://h')",
        secret,
    )
    await admin.execute("INSERT INTO caller (app_id, name) VALUES (1, 'bench')")
    pairs = LivePairs(1, 1, _VAULT, live)
    await pairs.load(admin, progress)
    await admin.close()
    return pairs


async def _open(dsn: str, pairs: LivePairs) -> Books:
    db = Database(dsn, connections=2, timeout_s=30)
    await db.open()
    books = await registry.load(db, _VAULT)
    return Books(db, Router(db, _VAULT, lambda: books), pairs)


async def _measure(loaded: list[tuple[str, LivePairs]], seconds: float) -> dict[str, Any]:
    """Ask the databases in turn for so long and return the latencies of each."""
    books = [await _open(dsn, pairs) for dsn, pairs in loaded]
    dice = random.Random(1)
    for one in books:
        for _ in range(2000):
            await one.call(dice)
    took: dict[int, list[float]] = {one.pairs.live: [] for one in books}
    floor: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for one in books:
            took[one.pairs.live].append(await one.call(dice))
        began = time.perf_counter()
        await books[0].db.fetch("SELECT 1")
        floor.append(time.perf_counter() - began)
    for one in books:
        await one.db.close()
    named = {**{str(live): times for live, times in took.items()}, _FLOOR: floor}
    return {name: {"calls": len(times), **percentiles(histogram(times))} for name, times in named.items()}


async def _run(dsns: dict[int, str], seconds: float) -> dict[str, Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        loaded = [(dsn, await _load(dsn, live, progress)) for live, dsn in dsns.items()]
    return await _measure(loaded, seconds)


async def _databases(dsn: str, lives: list[int]) -> dict[int, str]:
    admin = await asyncpg.connect(dsn)
    for live in lives:
        await admin.execute(f"CREATE DATABASE live_{live}")
    await admin.close()
    return {live: urlsplit(dsn)._replace(path=f"/live_{live}").geturl() for live in lives}


def main() -> None:
    """Load, measure, print; exit 1 if the promise is not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", type=int, default=1_000_000, help=f"live bindings, at most {_MOST:,}")
    parser.add_argument("--few", type=int, default=10_000, help="to compare with")
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring both in turn")
    parser.add_argument("--state-root", type=Path, default=Path("/var/tmp"), help="a real disk")  # noqa: S108
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not 1 <= options.few < options.live <= min(_MOST, POOLS * NUMBERS * CAP):
        parser.error(f"--few and --live must be from 1 to {_MOST:,}, the few being fewer")
    where = machine(options.state_root)
    with tempfile.TemporaryDirectory(dir=options.state_root, prefix="bench-") as folder:
        Path(folder).chmod(0o755)
        with Embedded(Path(folder)) as server:
            dsns = uvloop.run(_databases(server.socket_dsn, [options.few, options.live]))
            found = uvloop.run(_run(dsns, options.seconds))
            version = server.version
    few, many = found[str(options.few)], found[str(options.live)]
    ratio = {name: round(many[name] / few[name], 3) for name in ("p50", "p99")}
    report = {
        "machine": where,
        "postgresql": version,
        "latency_ms": found,
        "ratio": ratio,
    }
    kept = many["p99"] < 5 and ratio["p50"] <= 1.3
    if options.json:
        print(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
    else:
        print(f"PostgreSQL {version}, {where['cores']} cores shared with this client, load {where['load_average'][0]}")
        for name, ms in found.items():
            what = f"{int(name):,} live" if name.isdigit() else name
            print(f"{what:>15}: p50 {ms['p50']:.3f} ms  p99 {ms['p99']:.3f} ms  ({ms['calls']:,} calls)")
        print(f"ratio: p50 {ratio['p50']:.2f}, p99 {ratio['p99']:.2f}")
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
