"""What a window of load cost: CPU by role from ``/proc``, WAL and statements from PostgreSQL.

CPU is user + system time in steps of 10 ms (CLK_TCK), which is 0.1 % of a ten-second window. A process that ended
meanwhile is counted through its parent's children times, so PostgreSQL's short-lived workers are not lost.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg

from broker import store
from broker.store.statements import statements

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_FAMILIES = tuple(sorted(path.stem for path in (Path(store.__file__).parent / "sql").glob("*.sql")))
_LITERAL = re.compile(r"\$[0-9]+|'[^']*'|\b[0-9]+\b|\s+")
_COMMENT = re.compile(r"^--.*$", re.MULTILINE)

_STATEMENTS = """
SELECT queryid, query, calls, rows, total_exec_time, wal_bytes::bigint AS wal_bytes
FROM pg_stat_statements WHERE toplevel AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_ROWS = """
SELECT sum(n_tup_ins)::bigint AS inserted, sum(n_tup_upd)::bigint AS updated, sum(n_tup_hot_upd)::bigint AS in_place,
       sum(n_tup_del)::bigint AS deleted, sum(n_tup_ins) FILTER (WHERE relname = 'binding')::bigint AS bindings
FROM pg_stat_user_tables
"""
_WAL = """
SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint AS bytes,
       (SELECT wal_fpi FROM pg_stat_wal) AS images,
       (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()) AS commits
"""


@dataclass(frozen=True, slots=True)
class Parts:
    """Process ids by role; each stands for itself and all below it, except the parent."""

    parent: int
    workers: tuple[int, ...]
    load: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters at one moment."""

    cpu_s: Mapping[str, float]
    kernel_s: Mapping[str, float]
    busy_s: float
    steal_s: float
    wal_bytes: int
    wal_images: int
    commits: int
    rows: Mapping[str, int]
    statements: Mapping[int, Mapping[str, Any]]


async def snapshot(db: asyncpg.Connection[Any], parts: Parts) -> Snapshot:
    """Read everything."""
    wal = await db.fetchrow(_WAL)
    rows = await db.fetch(_STATEMENTS)
    busy_s, steal_s = _machine()
    cpu_s, kernel_s = cpu_by_role(parts)
    return Snapshot(
        cpu_s=cpu_s,
        kernel_s=kernel_s,
        busy_s=busy_s,
        steal_s=steal_s,
        wal_bytes=wal["bytes"] if wal else 0,
        wal_images=wal["images"] if wal else 0,
        commits=wal["commits"] if wal else 0,
        rows=dict(await db.fetchrow(_ROWS) or {}),
        statements={row["queryid"]: dict(row) for row in rows},
    )


def cost(before: Snapshot, after: Snapshot, confirmed: int) -> dict[str, Any]:
    """Return the figures per confirmed binding."""
    per = 1 / max(confirmed, 1)
    cpu = {role: after.cpu_s[role] - before.cpu_s[role] for role in after.cpu_s}
    kernel = {role: after.kernel_s[role] - before.kernel_s[role] for role in after.kernel_s}
    listed = _statements(before, after, per)
    # Servers tell of rows up to a second late, so these are counted by the bindings that were told of with them.
    counted = {what: after.rows[what] - before.rows[what] for what in after.rows}
    rows = {what: round(count / max(counted["bindings"], 1), 2) for what, count in counted.items()}
    return {
        "cpu_us": {role: round(seconds * per * 1e6, 1) for role, seconds in cpu.items()},
        "kernel_us": {role: round(seconds * per * 1e6, 1) for role, seconds in kernel.items()},
        "cpu_us_all": round(sum(cpu.values()) * per * 1e6, 1),
        "cpu_s": {role: round(seconds, 2) for role, seconds in cpu.items()},
        "others_cpu_s": round(max(after.busy_s - before.busy_s - sum(cpu.values()), 0.0), 2),
        "steal_s": round(after.steal_s - before.steal_s, 2),
        "wal_bytes": round((after.wal_bytes - before.wal_bytes) * per, 1),
        "wal_page_images": round((after.wal_images - before.wal_images) * per, 4),
        "rows_written": round(rows["inserted"] + rows["updated"] + rows["deleted"], 2),
        "rows": rows,
        "commits": round((after.commits - before.commits) * per, 4),
        "sql_flights": round(sum(one["calls"] for one in listed) * per, 4),
        "batch_rows": {one["name"]: one["rows_per_call"] for one in listed if one["rows"] >= confirmed > 0},
        "statements": listed,
    }


def _statements(before: Snapshot, after: Snapshot, per: float) -> list[dict[str, Any]]:
    listed = []
    for queryid, row in after.statements.items():
        name = _names().get(_squeezed(row["query"]))
        was = before.statements.get(queryid, {"calls": 0, "rows": 0, "total_exec_time": 0.0, "wal_bytes": 0})
        calls = row["calls"] - was["calls"]
        if name is None or calls <= 0:
            continue
        spent_ms = row["total_exec_time"] - was["total_exec_time"]
        listed.append(
            {
                "name": name,
                "calls": calls,
                "rows": row["rows"] - was["rows"],
                "rows_per_call": round((row["rows"] - was["rows"]) / calls, 1),
                "mean_ms": round(spent_ms / calls, 3),
                "exec_us": round(spent_ms * 1e3 * per, 1),
                "wal_bytes": round((row["wal_bytes"] - was["wal_bytes"]) * per, 1),
            }
        )
    return sorted(listed, key=lambda one: -float(one["exec_us"]))


@cache
def _names() -> dict[str, str]:
    """Return our statements by their text without literals, which pg_stat_statements replaces."""
    return {_squeezed(text): f"{family}.{name}" for family in _FAMILIES for name, text in statements(family).items()}


def _squeezed(text: str) -> str:
    return _LITERAL.sub("", _COMMENT.sub("", text))


def cpu_by_role(parts: Parts) -> tuple[dict[str, float], dict[str, float]]:
    """Return CPU seconds so far, in all and inside the kernel, of workers, parent, postgres, emulator and load."""
    table = {stat.pid: stat for stat in _processes()}
    roles = dict.fromkeys(("workers", "parent", "postgres", "emulator", "load"), 0.0)
    kernel = dict(roles)
    for stat in table.values():
        role = _role(stat.pid, table, parts)
        if role is not None:
            # The parent's children are roles of their own; the dead among them are its restarted workers.
            roles[role] += stat.own_s if role == "parent" else stat.own_s + stat.reaped_s
            kernel[role] += stat.kernel_s
    return roles, kernel


def _role(pid: int, table: Mapping[int, _Stat], parts: Parts) -> str | None:
    below = None
    while pid in table:
        if pid in parts.load:
            return "load"
        if pid in parts.workers:
            return "workers"
        if pid == parts.parent:
            if below is None:
                return "parent"
            return "postgres" if table[below].name == "postgres" else "emulator"
        below, pid = pid, table[pid].parent
    return None


@dataclass(frozen=True, slots=True)
class _Stat:
    pid: int
    name: str
    parent: int
    own_s: float
    reaped_s: float
    kernel_s: float


def _processes() -> Iterable[_Stat]:
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            text = Path("/proc", entry.name, "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        head, _, tail = text.rpartition(")")
        fields = tail.split()
        user, system, reaped_user, reaped_system = (int(field) * _TICK_S for field in fields[11:15])
        yield _Stat(
            pid=int(entry.name),
            name=head.partition("(")[2],
            parent=int(fields[1]),
            own_s=user + system,
            reaped_s=reaped_user + reaped_system,
            kernel_s=system,
        )


def _machine() -> tuple[float, float]:
    """Return the whole machine's busy and stolen seconds."""
    fields = [
        int(field) * _TICK_S for field in Path("/proc/stat").read_text(encoding="ascii").split("\n")[0].split()[1:]
    ]
    user, nice, system, _, _, irq, softirq, steal = fields[:8]
    return user + nice + system + irq + softirq, steal
