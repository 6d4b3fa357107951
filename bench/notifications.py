"""``python -m bench.notifications``: pushes at a steady rate, from socket to 200, and whether each had its effects.

Open loop: a push is due at its time whatever became of those before it, and its latency counts from then. Calls of
bound orders, five events and a record each, signed as the platform signs. Afterwards everything must be projected: as
many calls and records as were pushed, none unreadable or stuck. Exit code 1 if something is lost, or p99 is over 50 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import orjson
import uvloop

from bench.connection import Connection
from bench.figures import histogram, percentiles
from bench.machine import load_average, machine
from bench.stack import Stack, running
from broker.platform.huawei.sign import aksk_digest

_MOST_RATE, _MOST_S = 20_000, 600.0
_ORDERS = 50
_WANTED_P99_MS = 50.0
_DRAIN_S = 120.0
_STEPS = ("callin", "callout", "alerting", "answer", "disconnect")
_WARM_S = 2.0


@dataclass(slots=True)
class _Pushes:
    """What the platform sends, one after the other: calls in turn over the orders, their steps interleaved."""

    host: str
    app: str
    key: str
    secret: str
    orders: list[dict[str, Any]]
    run: str
    sent: int = 0
    sessions: set[str] = field(default_factory=set)
    width: int = 100

    def next(self) -> bytes:
        """Return a request."""
        block, place = divmod(self.sent, self.width * 6)
        step, number = divmod(place, self.width)
        self.sent += 1
        order = self.orders[number % len(self.orders)]
        session = f"{self.run}_{block}_{number}"
        self.sessions.add(session)
        at = datetime.now(UTC)
        if step < len(_STEPS):
            called = order["x"] if step == 0 else order["b"]
            told: dict[str, Any] = {
                "sessionId": session, "timestamp": at.strftime("%Y-%m-%d %H:%M:%S"), "caller": order["a"],
                "called": called, "userData": order["mark"], "stateCode": 0,
            }  # fmt: skip
            return self._request("events", {"eventType": _STEPS[step], "statusInfo": told})
        fee = {
            "direction": 1, "icid": session, "sessionId": session, "bindNum": order["x"], "callerNum": order["a"],
            "callInTime": (at - timedelta(seconds=1)).strftime("%Y-%m-%d %H:%M:%S"),
            "callEndTime": at.strftime("%Y-%m-%d %H:%M:%S"), "userData": order["mark"],
        }  # fmt: skip
        return self._request("cdr", {"eventType": "fee", "feeLst": [fee]})

    def _request(self, kind: str, told: object) -> bytes:
        body = orjson.dumps(told)
        nonce = f"{self.sent:032d}"
        created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        digest = aksk_digest(self.secret, nonce, created)
        head = (
            f"POST /n/{self.app}/{kind} HTTP/1.1\r\nHost: {self.host}\r\n"
            "Content-Type: application/json;charset=UTF-8\r\n"
            f'Authorization: AKSK realm="SDP",profile="UsernameToken",type="Appkey"\r\n'
            f'X-AKSK: UsernameToken Username="{self.key}",PasswordDigest="{digest}",Nonce="{nonce}",'
            f'Created="{created}"\r\nContent-Length: {len(body)}\r\n\r\n'
        )
        return head.encode() + body


class _Load:
    """Sends what is due on connections that are free."""

    def __init__(self, pushes: _Pushes) -> None:
        self._pushes = pushes
        self._free: deque[Connection] = deque()
        self._due: deque[float] = deque()
        self._under_way: dict[int, float] = {}
        self.took: list[float] = []
        self.answers: Counter[str] = Counter()

    async def connect(self, host: str, port: int, many: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(many):
            made: list[Connection] = []

            def answered(status: int, _body: bytes, made: list[Connection] = made) -> None:
                self._answered(made[0], str(status))

            def lost(connection: Connection) -> None:
                if self._under_way.pop(id(connection), None) is not None:
                    self.answers["lost"] += 1

            _, connection = await loop.create_connection(partial(Connection, answered, lost), host, port)
            made.append(connection)
            self._free.append(connection)

    async def run(self, rate: float, seconds: float) -> None:
        """Send at this rate, and wait for the last answers."""
        began = time.perf_counter()
        number = 0
        while (now := time.perf_counter() - began) < seconds:
            while number < now * rate:
                self._due.append(began + number / rate)
                number += 1
            self._send()
            await asyncio.sleep(0.001)
        deadline = time.perf_counter() + 30
        while (self._due or self._under_way) and time.perf_counter() < deadline:
            self._send()
            await asyncio.sleep(0.001)

    def _send(self) -> None:
        while self._due and self._free:
            connection = self._free.popleft()
            self._under_way[id(connection)] = self._due.popleft()
            connection.send(self._pushes.next())

    def _answered(self, connection: Connection, status: str) -> None:
        self.took.append(time.perf_counter() - self._under_way.pop(id(connection)))
        self.answers[status] += 1
        self._free.append(connection)
        if self._due:
            self._send()


async def _orders(stack: Stack, key: str) -> list[dict[str, Any]]:
    made = []
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}) as http:
        for number in range(_ORDERS):
            parties = {"a": f"+86139{number:08d}", "b": f"+86138{number:08d}"}
            async with http.post(f"{stack.api}/v1/bindings", json={**parties, "ttl_s": 3600}) as answer:
                bound = await answer.json()
            made.append({**parties, "x": bound["x"], "mark": bound["line"].replace("-", "") + ".1"})
    return made


async def _counts(db: asyncpg.Connection[Any]) -> dict[str, int]:
    row = await db.fetchrow(
        "SELECT (SELECT count(*) FROM call) AS calls, (SELECT count(*) FROM cdr) AS cdrs,"
        " (SELECT count(*) FROM inbox) AS kept, (SELECT count(*) FROM inbox WHERE state <> 'done') AS left,"
        " (SELECT coalesce(sum(jsonb_array_length(timeline)), 0) FROM call) AS steps,"
        " (SELECT count(*) FROM call WHERE bindings = '{}') AS unattributed"
    )
    return dict(row) if row else {}


def _cpu_s(stack: Stack) -> dict[str, float]:
    """Return seconds of processor time so far: what a loaded machine cannot falsify."""
    tick = os.sysconf("SC_CLK_TCK")
    found = {"load": time.process_time(), "workers": 0.0, "database": 0.0}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            command = (stat.parent / "cmdline").read_bytes()
            fields = stat.read_text(encoding="ascii").rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        seconds = (int(fields[11]) + int(fields[12])) / tick
        if int(stat.parent.name) in stack.workers:
            found["workers"] += seconds
        elif command.startswith(b"postgres: ") and int(fields[1]) == _postmaster(stack):
            found["database"] += seconds
    return found


def _postmaster(stack: Stack) -> int:
    return int(orjson.loads((stack.folder / "server.json").read_bytes())["pid"])


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    async with running(options.workers, options.state_root) as stack:
        app = stack.who.apps["axb"]
        host = urlsplit(stack.edge)
        orders = await _orders(stack, app.api_key)
        pushes = _Pushes(host.netloc, "demo-axb", app.app_key, app.app_secret, orders, f"{time.time_ns():x}")
        load = _Load(pushes)
        await load.connect(host.hostname or "127.0.0.1", host.port or 80, options.connections)
        await load.run(min(options.rate, 500), _WARM_S)
        load.took.clear()
        before, cpu = load_average(), _cpu_s(stack)
        await load.run(options.rate, options.seconds)
        ended = time.perf_counter()
        db = await asyncpg.connect(stack.database)
        counts = await _counts(db)
        while counts["left"] and time.perf_counter() - ended < _DRAIN_S:
            await asyncio.sleep(0.1)
            counts = await _counts(db)
        drained_s = time.perf_counter() - ended
        spent = {name: seconds - cpu[name] for name, seconds in _cpu_s(stack).items()}
        await db.close()
        steps = sum(1 for place in range(pushes.sent) if place % (pushes.width * 6) < pushes.width * 5)
        return {
            "machine": machine(stack.folder),
            "load_before": before[0],
            "rate": options.rate,
            "pushes": len(load.took),
            "answers": dict(load.answers),
            "latency_ms": percentiles(histogram(load.took)),
            "cpu_us_a_push": {name: round(1e6 * seconds / len(load.took)) for name, seconds in spent.items()},
            "projected_s_after_the_last": round(drained_s, 2),
            "books": counts,
            "right": counts["left"] == 0
            and counts["kept"] == pushes.sent
            and counts["steps"] == steps
            and counts["cdrs"] == pushes.sent - steps
            and counts["calls"] == len(pushes.sessions)
            and counts["unattributed"] == 0,
        }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=2000.0, help=f"pushes a second, at most {_MOST_RATE:,}")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--state-root", type=Path, default=Path("/var/tmp"), help="a real disk")  # noqa: S108
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if (
        not 1 <= options.rate <= _MOST_RATE
        or not 1 <= options.seconds <= _MOST_S
        or not 1 <= options.connections <= 500
    ):
        parser.error("that is more than this bench is for")
    found = uvloop.run(_measure(options))
    if options.json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        ms = found["latency_ms"]
        print(f"{found['machine']['cores']} cores shared with everything, load {found['load_before']} before")
        print(f"{found['pushes']:,} pushes at {found['rate']:,.0f}/s: p50 {ms['p50']:.1f} ms  p99 {ms['p99']:.1f} ms  "
              f"max {ms['max']:.1f} ms; answers {found['answers']}")  # fmt: skip
        print(f"processor time a push, with its effects: {found['cpu_us_a_push']} µs")
        print(f"all projected {found['projected_s_after_the_last']} s after the last; books {found['books']}, "
              f"{'right' if found['right'] else 'WRONG'}")  # fmt: skip
    sys.exit(0 if found["right"] and found["latency_ms"]["p99"] <= _WANTED_P99_MS else 1)


if __name__ == "__main__":
    main()
