"""Pushes as load: signed as the platform signs, sent at their time or one after the other, and what they cost."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import orjson

from bench.connection import Connection
from bench.stack import Stack
from broker.platform.huawei.sign import aksk_digest

_ANSWER_S = 30.0
_LSN = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
#: From a push to its effects, of those that came within a time.
_LAG = """
SELECT count(*) AS pushes, (percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (
         ORDER BY extract(epoch FROM settled_at - received_at)::double precision)) AS lag_s
FROM inbox WHERE received_at >= $1 AND received_at < $2 AND settled_at IS NOT NULL
"""


@dataclass(slots=True)
class Signature:
    """An app's pushes over HTTP; its nonces never repeat."""

    edge: str
    app: str
    key: str
    secret: str
    used: int = 0

    def request(self, kind: str, told: object, created_at: datetime | None = None) -> bytes:
        """Return a push of this kind, signed now or at another time."""
        body = orjson.dumps(told)
        self.used += 1
        nonce = f"{self.used:032d}"
        created = (created_at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
        digest = aksk_digest(self.secret, nonce, created)
        head = (
            f"POST /n/{self.app}/{kind} HTTP/1.1\r\nHost: {urlsplit(self.edge).netloc}\r\n"
            "Content-Type: application/json;charset=UTF-8\r\n"
            f'Authorization: AKSK realm="SDP",profile="UsernameToken",type="Appkey"\r\n'
            f'X-AKSK: UsernameToken Username="{self.key}",PasswordDigest="{digest}",Nonce="{nonce}",'
            f'Created="{created}"\r\nContent-Length: {len(body)}\r\n\r\n'
        )
        return head.encode() + body


@dataclass(slots=True)
class Sender:
    """Sends ``next_one()`` on connections that are free: a request, and what a right answer to it has in its body."""

    next_one: Callable[[], tuple[bytes, bytes]]
    took: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    _free: deque[Connection] = field(default_factory=deque)
    _due: deque[float] = field(default_factory=deque)
    _under_way: dict[int, tuple[float, bytes]] = field(default_factory=dict)
    _until: float = 0.0

    async def connect(self, url: str, many: int) -> None:
        """Open so many connections."""
        address = urlsplit(url)
        for _ in range(many):
            made: list[Connection] = []
            _, connection = await asyncio.get_running_loop().create_connection(
                partial(Connection, partial(self._answered, made), self._lost),
                address.hostname or "",
                address.port or 80,
            )
            made.append(connection)
            self._free.append(connection)

    async def at_rate(self, rate: float, seconds: float) -> None:
        """Open loop: each is due at its time, whatever became of those before; its latency counts from then."""
        began = time.perf_counter()
        number = 0
        while (now := time.perf_counter() - began) < seconds:
            while number < now * rate:
                self._due.append(began + number / rate)
                number += 1
            self._send()
            await asyncio.sleep(0.001)
        await self._answers_of_all()

    async def flat_out(self, seconds: float) -> None:
        """Closed loop: every connection sends the next one when the last is answered."""
        self._until = time.perf_counter() + seconds
        for _ in range(len(self._free)):
            self._begin(self._free.popleft(), time.perf_counter())
        await asyncio.sleep(seconds)
        await self._answers_of_all()

    def close(self) -> None:
        """Hang up."""
        for connection in self._free:
            connection.close()

    async def _answers_of_all(self) -> None:
        deadline = time.perf_counter() + _ANSWER_S
        while (self._due or self._under_way) and time.perf_counter() < deadline:
            self._send()
            await asyncio.sleep(0.001)

    def _send(self) -> None:
        while self._due and self._free:
            self._begin(self._free.popleft(), self._due.popleft())

    def _begin(self, connection: Connection, due: float) -> None:
        request, wanted = self.next_one()
        self._under_way[id(connection)] = due, wanted
        connection.send(request)

    def _answered(self, made: list[Connection], status: int, body: bytes) -> None:
        now, connection = time.perf_counter(), made[0]
        due, wanted = self._under_way.pop(id(connection))
        self.took.append(now - due)
        self.answers[str(status) if wanted in body else f"{status}, but wrong"] += 1
        if now < self._until:
            self._begin(connection, now)
            return
        self._free.append(connection)
        self._send()

    def _lost(self, connection: Connection) -> None:
        if self._under_way.pop(id(connection), None) is not None:
            self.answers["lost"] += 1


@dataclass(frozen=True, slots=True)
class Spent:
    """What had been spent at a moment: seconds of processor time by part, and bytes of WAL."""

    at: datetime
    cpu_s: dict[str, float]
    wal: int

    @classmethod
    async def now(cls, stack: Stack, db: asyncpg.Connection[Any]) -> Spent:
        """Look."""
        return cls(await db.fetchval("SELECT clock_timestamp()"), _cpu_s(stack), await db.fetchval(_LSN))

    def a_push(self, before: Spent, pushes: int) -> dict[str, Any]:
        """Return the cost of one since ``before``."""
        cpu = {f"{name}_us": round(1e6 * (spent - before.cpu_s[name]) / pushes) for name, spent in self.cpu_s.items()}
        return {**cpu, "wal_bytes": round((self.wal - before.wal) / pushes)}


async def lag_ms(db: asyncpg.Connection[Any], since: datetime, until: datetime) -> dict[str, float]:
    """Return milliseconds from pushes of a time to the commit of their effects, events among them."""
    row = await db.fetchrow(_LAG, since, until)
    if row is None or not row["pushes"]:
        return {}
    return {name: round(1e3 * s, 1) for name, s in zip(("p50", "p99", "max"), row["lag_s"], strict=True)}


def _cpu_s(stack: Stack) -> dict[str, float]:
    """Return processor time so far: what a loaded machine cannot falsify."""
    tick = os.sysconf("SC_CLK_TCK")
    found = {"load": time.process_time(), "workers": 0.0, "database": 0.0}
    postmaster = int(orjson.loads((stack.folder / "server.json").read_bytes())["pid"])
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            fields = stat.read_text(encoding="ascii").rpartition(")")[2].split()
            # Of children that have ended, too: backends come and go.
            seconds = sum(map(int, fields[11:15])) / tick
            if int(stat.parent.name) in stack.workers:
                found["workers"] += seconds
            elif int(fields[1]) == postmaster or int(stat.parent.name) == postmaster:
                found["database"] += seconds
    return found
