"""What a binding costs to allocate: client transactions against batches, with the database near and a little away.

``python -m bench.allocation [--seconds 2] [--json]`` starts a PostgreSQL of its own on a real disk (fsync and
synchronous_commit on) and measures in turn, for one pool and for 300, at 0, 0.5 and 1 ms of added round trip:

* ``transaction``: a client transaction per binding: lock the parties, read, choose, claim, commit; 16 connections
* ``call``: per binding one statement that reads and one ``reserve()``; 16 connections
* ``batch N x M``: the same two statements for N bindings, M batches in flight

All go through the broker's own statements and choose(); then ``reserve()`` is taken apart by batch size.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import orjson
import uvloop

from broker.domain.choice import PartyView, Policy, Prefix, choose
from broker.domain.ids import new_id
from broker.embedded import Embedded, Server
from broker.store.allocation import Claim, LockMode, histories, reserve
from broker.store.database import Database
from broker.store.migrate import migrate

_SHAPES = {"1 pool": (1, 2000), "300 pools": (300, 20)}
_COURIERS = 20_000
_CAP = 500
_LEASE_S = 8.0
_TICKS = os.sysconf("SC_CLK_TCK")
_LOCK = """
SELECT pg_advisory_xact_lock(s.key) FROM (
  SELECT DISTINCT party_lock($1, k) AS key FROM unnest($2::bigint[]) AS k ORDER BY 1 OFFSET 0) AS s
"""
_EMPTY = "TRUNCATE line, binding, slot, platform_call"
_POOLS = """
INSERT INTO pool (app_id, name, area_code) SELECT 1, $1 || '-' || g, '0755' FROM generate_series(1, $2::integer) AS g
RETURNING id
"""
_NUMBERS = """
INSERT INTO x_number (pool_id, x_id, number) SELECT p, x, '+86' || (10000000000 + p::bigint * 100000 + x)
FROM unnest($1::integer[]) AS p, generate_series(0, $2::integer - 1) AS x
"""
_INSIDE = """
SELECT sum(total_exec_time) FILTER (WHERE query LIKE '%FROM reserve(%') AS whole,
       sum(total_exec_time) FILTER (WHERE query LIKE '%pg_try_advisory_xact_lock%' AND NOT toplevel) AS locks,
       sum(total_exec_time) FILTER (WHERE query LIKE '%judged AS MATERIALIZED%' AND NOT toplevel) AS judge,
       sum(total_exec_time) FILTER (WHERE query LIKE '%new_line AS (%' AND NOT toplevel) AS write
FROM pg_stat_statements
"""

Way = Callable[["Bench", float], Awaitable["Tally"]]


@dataclass(slots=True)
class Tally:
    """What a measurement counted; a batch is one for the ways without batches."""

    won: int = 0
    lost: int = 0
    batches_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell of the table."""

    shape: str
    added_ms: float
    round_trip_ms: float
    way: str
    bindings_per_s: float
    p99_ms: float
    lost_share: float
    wal_bytes: float
    postgres_cpu_us: float
    client_cpu_us: float


class Bench:
    """A pool or many, and the process's memory of them."""

    def __init__(self, db: Database, pools: Sequence[int], numbers: int) -> None:
        """``db`` may lead through the delaying proxy."""
        self.db = db
        self.pools = pools
        self.numbers = numbers
        self.dice = random.Random(1)
        self.prefixes = {pool: Prefix() for pool in pools}
        self.heat = {pool: [0] * numbers for pool in pools}
        self.everything = (1 << numbers) - 1

    def ask(self, held: set[tuple[int, int]]) -> tuple[int, int, int]:
        """A pool and a pair whose parties nobody else of this process is claiming for."""
        while True:
            pool = self.dice.choice(self.pools)
            a, b = self.dice.randrange(_COURIERS), self.dice.getrandbits(62) + _COURIERS
            if (pool, a) not in held:
                held.update(((pool, a), (pool, b)))
                return pool, a, b

    def claim(self, ask: tuple[int, int, int], views: dict[tuple[int, int], PartyView]) -> Claim | None:
        """Choose as the broker does."""
        pool, a_key, b_key = ask
        a, b = views[pool, a_key], views[pool, b_key]
        now = time.monotonic()
        choice = choose(
            Policy.PACK,
            usable=self.everything & ~a.barred(b_key) & ~b.barred(a_key) & ~self._full(pool),
            prefix=self.prefixes[pool].length(now),
            a=a,
            b=b,
            b_key=b_key,
            heat=self.heat[pool],
        )
        if choice is None:
            return None
        self.prefixes[pool].note(choice.first_fit, now)
        a.live |= 1 << choice.x
        b.live |= 1 << choice.x
        self.heat[pool][choice.x] += 1
        return Claim(
            pool_id=pool, x_id=choice.x, cap=_CAP, app_id=1, caller_id=1, line_id=new_id(), binding_id=new_id(),
            a_key=a_key, b_key=b_key, a_sealed=b"a" * 43, b_sealed=b"b" * 43, direction="both", options=None,
            joinable=True, line_ttl_s=86_400, ttl_s=86_400, chosen=choice.why, order_id="order-000000000001",
            user_data=None, metadata=None, key_hash=None, key_token=None, lines_seen=0, seen_by_a=True,
        )  # fmt: skip

    def _full(self, pool: int) -> int:
        """X numbers that must be nearly full by now: nothing is released here, so counting is enough."""
        mask = 0
        for x, lines in enumerate(self.heat[pool]):
            if lines < _CAP - 20:
                break
            mask |= 1 << x
        return mask

    async def two_statements(
        self, db: Database, asks: list[tuple[int, int, int]], mode: LockMode, tally: Tally
    ) -> None:
        """Read, choose, reserve."""
        views = await histories(db, [(pool, party) for pool, a, b in asks for party in (a, b)])
        claims = [claim for ask in asks if (claim := self.claim(ask, views)) is not None]
        results = await reserve(db, claims, mode=mode, lease_s=_LEASE_S)
        won = sum(result.outcome == "won" for result in results)
        tally.won += won
        tally.lost += len(asks) - won


def batches(size: int, in_flight: int) -> Way:
    """``in_flight`` lanes, each with one batch of ``size`` after the other."""

    async def way(bench: Bench, seconds: float) -> Tally:
        tally, held, end = Tally(), set[tuple[int, int]](), time.perf_counter() + seconds

        async def lane() -> None:
            while (began := time.perf_counter()) < end:
                asks = [bench.ask(held) for _ in range(size)]
                await bench.two_statements(bench.db, asks, LockMode.TRY, tally)
                held.difference_update((pool, party) for pool, a, b in asks for party in (a, b))
                tally.batches_s.append(time.perf_counter() - began)

        await asyncio.gather(*(lane() for _ in range(in_flight)))
        return tally

    return way


class _Inside(Database):
    """The broker's statements on a connection that is inside a transaction."""

    def __init__(self, connection: asyncpg.pool.PoolConnectionProxy[asyncpg.Record]) -> None:
        self._connection = connection

    async def fetch(self, statement: str, *args: object, timeout_s: float | None = None) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await self._connection.fetch(statement, *args, timeout=timeout_s)
        return rows


def transactions(connections: int) -> Way:
    """One client transaction per binding: locks are held while the client chooses."""

    async def way(bench: Bench, seconds: float) -> Tally:
        tally, held, end = Tally(), set[tuple[int, int]](), time.perf_counter() + seconds
        pool_ = bench.db._pool  # noqa: SLF001 - the broker itself has no transactions to offer
        assert pool_ is not None  # noqa: S101 - opened by the caller

        async def lane() -> None:
            async with pool_.acquire() as connection:
                inside = _Inside(connection)
                while (began := time.perf_counter()) < end:
                    pool, a, b = ask = bench.ask(held)
                    async with connection.transaction():
                        await connection.execute(_LOCK, pool, [a, b])
                        await bench.two_statements(inside, [ask], LockMode.OFF, tally)
                    held.difference_update(((pool, a), (pool, b)))
                    tally.batches_s.append(time.perf_counter() - began)

        await asyncio.gather(*(lane() for _ in range(connections)))
        return tally

    return way


WAYS: dict[str, Way] = {
    "transaction": transactions(16),
    "call": batches(1, 16),
    "batch 50 x 2": batches(50, 2),
    "batch 50 x 4": batches(50, 4),
    "batch 200 x 2": batches(200, 2),
    "batch 200 x 4": batches(200, 4),
}


@contextmanager
def delayed(server: Server, added_ms: float) -> Iterator[str]:
    """The server's address, with the round trip made longer."""
    if not added_ms:
        yield server.dsn
        return
    command = [sys.executable, "-m", "bench.delay_proxy", "127.0.0.1", str(server.port), str(added_ms)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None  # noqa: S101 - narrows for mypy
        port = int(proxy.stdout.readline())
        address = urlsplit(server.dsn)
        yield address._replace(netloc=address.netloc.rpartition(":")[0] + f":{port}").geturl()
        proxy.communicate()


def cpu_s(postmaster: int) -> float:
    """CPU seconds of a server and its children, living and ended."""
    spent = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(folder.name) == postmaster:
            spent += sum(map(int, words[11:15]))  # its own, and that of children that ended
        elif int(words[1]) == postmaster:
            spent += sum(map(int, words[11:13]))
    return spent / _TICKS


async def furnish(admin: asyncpg.Connection, pools: int, numbers: int) -> list[int]:
    """Make the pools of a shape; they stay for the run."""
    made = await admin.fetch(_POOLS, f"of-{pools}", pools)
    ids = [row["id"] for row in made]
    await admin.execute(_NUMBERS, ids, numbers)
    return ids


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[Database]:
    """A pool of 16 connections that are all there already."""
    db = Database(dsn, connections=16, timeout_s=30)
    await db.open()
    await asyncio.gather(*(db.fetch("SELECT pg_sleep(0.05)") for _ in range(16)))
    yield db
    await db.close()


async def round_trip_ms(db: Database) -> float:
    """Median of a hundred empty statements."""
    times = []
    for _ in range(100):
        began = time.perf_counter()
        await db.fetch("SELECT 1")
        times.append(time.perf_counter() - began)
    return sorted(times)[50] * 1000


async def cell(
    server: Server, admin: asyncpg.Connection, bench: Bench, way: Way, seconds: float
) -> tuple[Tally, list[float]]:
    """Measure one way; returns seconds, WAL bytes, PostgreSQL's and this process's CPU seconds beside the counts."""
    await admin.execute(_EMPTY)
    await way(bench, 0.3)  # plans and caches
    await admin.execute("CHECKPOINT")
    wal = await admin.fetchval("SELECT pg_current_wal_lsn()")
    began, spent, own = time.perf_counter(), cpu_s(server.pid), time.process_time()
    tally = await way(bench, seconds)
    passed, spent, own = time.perf_counter() - began, cpu_s(server.pid) - spent, time.process_time() - own
    written = await admin.fetchval("SELECT (pg_current_wal_lsn() - $1::pg_lsn)::float8", wal)
    return tally, [passed, written, spent, own]


async def compare(
    server: Server, dsn: str, added_ms: float, seconds: float, shapes: dict[str, list[int]]
) -> list[Figure]:
    """Measure every way and shape in turn at one round trip."""
    figures = []
    admin = await asyncpg.connect(server.socket_dsn)
    async with opened(dsn) as db:
        real_ms = await round_trip_ms(db)
        for shape, pools in shapes.items():
            for name, way in WAYS.items():
                bench = Bench(db, pools, _SHAPES[shape][1])
                tally, (passed, written, spent, own) = await cell(server, admin, bench, way, seconds)
                slowest = sorted(tally.batches_s)[int(len(tally.batches_s) * 0.99)]
                per = 1 / max(tally.won, 1)
                figure = Figure(
                    shape=shape,
                    added_ms=added_ms,
                    round_trip_ms=real_ms,
                    way=name,
                    bindings_per_s=tally.won / passed,
                    p99_ms=slowest * 1000,
                    lost_share=tally.lost / max(tally.won + tally.lost, 1),
                    wal_bytes=written * per,
                    postgres_cpu_us=spent * per * 1e6,
                    client_cpu_us=own * per * 1e6,
                )
                figures.append(figure)
                print(line(figure), file=sys.stderr)
    await admin.close()
    return figures


def line(f: Figure) -> str:
    """A figure as a line of the table."""
    return (
        f"{f.shape:>10} +{f.added_ms:<4}ms ({f.round_trip_ms:5.2f})  {f.way:14} {f.bindings_per_s:8,.0f}/s  "
        f"p99 {f.p99_ms:7.1f} ms  lost {f.lost_share:5.1%}  WAL {f.wal_bytes:6,.0f} B  "
        f"PostgreSQL {f.postgres_cpu_us:6.0f} us  client {f.client_cpu_us:5.0f} us"
    )


async def take_apart(server: Server, pools: list[int], numbers: int) -> list[dict[str, float]]:
    """Microseconds per item inside PostgreSQL: the whole of reserve(), and its three statements."""
    admin = await asyncpg.connect(server.socket_dsn)
    await admin.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    await admin.execute("ALTER DATABASE broker SET pg_stat_statements.track = 'all'")
    found = []
    db = Database(server.socket_dsn, connections=1, timeout_s=30)
    await db.open()
    for size in (1, 10, 50, 200):
        await admin.execute(_EMPTY)
        bench, tally = Bench(db, pools, numbers), Tally()
        for rounds in (10, max(30, min(400, 8000 // size))):
            await admin.execute("SELECT pg_stat_statements_reset()")
            tally = Tally()
            for _ in range(rounds):
                held: set[tuple[int, int]] = set()
                await bench.two_statements(db, [bench.ask(held) for _ in range(size)], LockMode.TRY, tally)
        row = await admin.fetchrow(_INSIDE)
        assert row is not None  # noqa: S101 - an aggregate
        found.append({"batch": size, **{name: float(value or 0) * 1000 / tally.won for name, value in row.items()}})
    await admin.execute("ALTER DATABASE broker RESET pg_stat_statements.track")
    await db.close()
    await admin.close()
    return found


async def prepare(server: Server) -> dict[str, list[int]]:
    """Migrate and furnish; returns the pools of each shape."""
    await migrate(server.socket_dsn)
    admin = await asyncpg.connect(server.socket_dsn)
    await admin.execute(
        "INSERT INTO app (name, mode, app_key, secret_sealed, base_url) VALUES ('bench', 'axb', 'k', 's', 'http://h')"
    )
    await admin.execute("INSERT INTO caller (app_id, name) VALUES (1, 'bench')")
    shapes = {shape: await furnish(admin, *size) for shape, size in _SHAPES.items()}
    await admin.close()
    return shapes


def main() -> None:
    """Start a server, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each cell of the table")
    parser.add_argument("--state-root", type=Path, default=Path("/var/tmp"), help="a real disk")  # noqa: S108
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=options.state_root, prefix="bench-") as folder:
        Path(folder).chmod(0o755)
        with Embedded(Path(folder)) as server:
            shapes = uvloop.run(prepare(server))
            for added_ms in (0.0, 0.5, 1.0):
                with delayed(server, added_ms) as dsn:
                    figures += uvloop.run(compare(server, dsn, added_ms, options.seconds, shapes))
            inside = {
                shape: uvloop.run(take_apart(server, pools, _SHAPES[shape][1])) for shape, pools in shapes.items()
            }
            version = server.version
    if options.json:
        report = {"postgresql": version, "figures": [asdict(figure) for figure in figures], "reserve_us": inside}
        print(orjson.dumps(report, option=orjson.OPT_INDENT_2).decode())
        return
    print(f"PostgreSQL {version}, fsync and synchronous_commit on, {os.cpu_count()} cores shared with this client")
    for figure in figures:
        print(line(figure))
    print("reserve(), microseconds per item inside PostgreSQL")
    for shape, rows in inside.items():
        for row in rows:
            print(
                f"{shape:>10} batch {row['batch']:4.0f}: all {row['whole']:6.1f} = locks {row['locks']:5.1f} + judging "
                f"and seats {row['judge']:5.1f} + writing {row['write']:5.1f} + starting the plans"
            )


if __name__ == "__main__":
    main()
