"""``python -m bench.inbound``: limits of requests and of live bindings over several processes on one database.

A caller, or an app, asks for ten times of what it may. What the processes let through must fit into burst + rate x T
for any time T, but for one slice, and use nearly all of it; of bindings never more may be live than allowed.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp
import asyncpg
import orjson
import uvloop

from bench.connection import Connection
from bench.machine import load_average, machine
from bench.plan import Orders, Plan
from bench.scenario import Scenario, Shape, prepare
from bench.stack import BenchError, Stack, address, running
from bench.windows import excess
from broker.domain.quota import SLICE_S, Quota

LEAST_USE = 0.95
_LINES = 128
_TICK_S = 0.004
_PROBES = 24
_KNOWN_S = 30.0
_LOOK_S = 0.02
#: A changed limit is in effect everywhere after this.
_EFFECT_S = 2.0
_LIVE = "SELECT count(*) FROM binding WHERE state IN ('pending', 'active', 'releasing')"


@dataclass(frozen=True, slots=True)
class Requests:
    """A limit of requests a second of a ``caller`` or an ``app``."""

    whose: str
    rate: float
    instances: int
    seconds: float
    times: float = 10.0


@dataclass(slots=True)
class Passed:
    """What became of the requests: when each that was let through was sent and answered."""

    statuses: Counter[int] = field(default_factory=Counter)
    sent: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def over(self, quota: Quota) -> float:
        """Return by how many the fullest window of answers is over burst + rate x T; negative: by how many under."""
        return excess(self.answered, rate=quota.rate, burst=quota.burst)

    def surely_over(self, quota: Quota) -> float:
        """Return the same of requests that were sent and answered inside a window: no delay can make this too large."""
        inside = sorted(zip(self.answered, self.sent, strict=True))
        worst = float("-inf")
        for begin in self.sent:
            ends = [answered for answered, sent in inside if sent >= begin]
            room = (many - quota.rate * (end - begin) for many, end in enumerate(ends, 1))
            worst = max(worst, max(room, default=worst))
        return worst - quota.burst

    def use(self, quota: Quota) -> float:
        """Return the part of the quota that was let through."""
        return len(self.answered) / (quota.burst + quota.rate * self.seconds)


def quota_of(case: Requests) -> Quota:
    """Return the quota of the case."""
    return Quota(case.whose, 0, case.rate)


async def requests(stack: Stack, scenario: Scenario, case: Requests) -> Passed:
    """Ask for too much for a while."""
    await _limit(stack, scenario, case)
    host, port = address(stack.api, mine=False)
    request = (
        f"GET /v1/bindings/bnd_none HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {scenario.api_key}\r\n\r\n"
    ).encode()
    passed = Passed()
    loop = asyncio.get_running_loop()
    free: list[_Line] = []
    for _ in range(_LINES):
        line = _Line(passed, free)
        _, line.connection = await loop.create_connection(line.protocol, host, port)
        free.append(line)
    lines = list(free)
    began = time.monotonic()
    due = 0.0
    while (elapsed := time.monotonic() - began) < case.seconds:
        # What finds no connection is not asked: there is no use in a queue of what will be refused.
        wanted = elapsed * case.rate * case.times
        while due < wanted:
            due += 1
            if free:
                free.pop().ask(request)
        await asyncio.sleep(_TICK_S)
    passed.seconds = time.monotonic() - began
    while len(free) < len(lines) and time.monotonic() - began < case.seconds + _KNOWN_S:  # noqa: ASYNC110 - once a run
        await asyncio.sleep(_TICK_S)
    for line in lines:
        line.hang_up()
    return passed


class _Line:
    """One connection with at most one request under way."""

    __slots__ = ("_free", "_passed", "_sent", "connection")

    def __init__(self, passed: Passed, free: list[_Line]) -> None:
        self._passed = passed
        self._free = free
        self._sent = 0.0
        self.connection: Connection | None = None

    def protocol(self) -> Connection:
        return Connection(self._answered, lambda _connection: None)

    def ask(self, request: bytes) -> None:
        self._sent = time.monotonic()
        if self.connection is not None:
            self.connection.send(request)

    def hang_up(self) -> None:
        if self.connection is not None:
            self.connection.close()

    def _answered(self, status: int, _body: bytes) -> None:
        self._passed.statuses[status] += 1
        if status == 404:
            self._passed.sent.append(self._sent)
            self._passed.answered.append(time.monotonic())
        self._free.append(self)


async def _limit(stack: Stack, scenario: Scenario, case: Requests) -> None:
    """Set the limit, wait until every process knows it, and then for a whole burst."""
    rates = {"caller": None, "app": None} | {case.whose: case.rate}
    await _execute(stack, "UPDATE app SET requests_per_s = $1 WHERE name = 'bench'", rates["app"])
    await _execute(stack, "UPDATE caller SET requests_per_s = $1 WHERE name = 'bench'", rates["caller"])
    await _known(stack, scenario, lambda headers: f'"{case.whose}";q=' in headers.get("RateLimit-Policy", ""))
    quota = quota_of(case)
    await asyncio.sleep(quota.burst / quota.rate + 2 * SLICE_S)


async def _execute(stack: Stack, query: str, *arguments: object) -> None:
    db = await asyncpg.connect(stack.database)
    try:
        await db.execute(query, *arguments)
    finally:
        await db.close()


async def _known(stack: Stack, scenario: Scenario, so: Callable[[Any], bool]) -> None:
    """Ask over fresh connections, which the kernel spreads over the processes, until all answers are ``so``."""
    give_up = time.monotonic() + _KNOWN_S
    headers = {"Authorization": f"Bearer {scenario.api_key}", "Connection": "close"}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10), headers=headers) as http:
        while time.monotonic() < give_up:
            answers = [await http.get(f"{stack.api}/v1/bindings/bnd_none") for _ in range(_PROBES)]
            if all(so(answer.headers) for answer in answers):
                return
            await asyncio.sleep(0.2)
    raise BenchError("The processes did not take the limit in.")


@dataclass(slots=True)
class Lives:
    """``most``: the most that were live at once, as the books said and as the answers say for certain."""

    most: dict[str, int] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    mean: float = 0.0


async def lives(stack: Stack, scenario: Scenario, *, most: int, clients: int, seconds: float) -> Lives:
    """Bind and release from many clients, of which few may have a binding at a time."""
    await _execute(stack, "UPDATE caller SET requests_per_s = NULL WHERE name = 'bench'")
    await _execute(stack, "UPDATE app SET requests_per_s = NULL, max_live_bindings = $1 WHERE name = 'bench'", most)
    await _known(stack, scenario, lambda headers: "RateLimit-Policy" not in headers)
    await asyncio.sleep(_EFFECT_S)
    host, port = address(stack.api, mine=False)
    plan = Plan(
        host=host, port=port, api_key=scenario.api_key, kind="closed", connections=clients, seconds=seconds, seed=most,
        out="", pools=scenario.pools,
    )  # fmt: skip
    orders, found = Orders(plan), Lives()
    spans: list[tuple[float, float]] = []
    until = time.monotonic() + seconds
    looks: list[int] = []
    looking = asyncio.create_task(_look(stack, until, looks))
    await asyncio.gather(*(_client(orders, host, port, until, found, spans) for _ in range(clients)))
    await looking
    found.most = {"books": max(looks), "answers": most_at_once(spans)}
    found.mean = round(sum(looks) / len(looks), 1)
    return found


async def _look(stack: Stack, until: float, looks: list[int]) -> None:
    db = await asyncpg.connect(stack.database)
    try:
        while time.monotonic() < until:
            looks.append(await db.fetchval(_LIVE))
            await asyncio.sleep(_LOOK_S)
    finally:
        await db.close()


async def _client(
    orders: Orders, host: str, port: int, until: float, found: Lives, spans: list[tuple[float, float]]
) -> None:
    """Bind, hold for a moment, release; a span is from the bind's answer to when its release was sent."""
    loop = asyncio.get_running_loop()
    answers: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue(1)
    _, connection = await loop.create_connection(
        lambda: Connection(lambda status, body: answers.put_nowait((status, body)), lambda _connection: None),
        host, port,
    )  # fmt: skip
    while time.monotonic() < until:
        connection.send(orders.bind().request)
        status, body = await asyncio.wait_for(answers.get(), _KNOWN_S)
        found.statuses[status] += 1
        if status != 201:
            await asyncio.sleep(random.uniform(0.005, 0.02))
            continue
        since = time.monotonic()
        await asyncio.sleep(random.uniform(0.02, 0.1))
        spans.append((since, time.monotonic()))
        connection.send(orders.release(orjson.loads(body)["id"]).request)
        status, _ = await asyncio.wait_for(answers.get(), _KNOWN_S)
        found.statuses[status] += 1
    connection.close()


def most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    """Return how many spans overlap at most."""
    edges = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    now = most = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


def main() -> int:
    """Measure; 1 = a limit was exceeded, or not used."""
    parser = argparse.ArgumentParser(
        prog="bench.inbound", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[50.0, 500.0], help="requests a second (50 500)")
    parser.add_argument("--instances", type=int, nargs="+", default=[1, 2, 4], help="processes (1 2 4)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each case (default 5)")
    parser.add_argument("--live", type=int, default=20, help="bindings that may be live (default 20)")
    parser.add_argument("--clients", type=int, default=64, help="that bind and release (default 64)")
    parser.add_argument("--json", action="store_true", help="print everything as one line of JSON")
    options = parser.parse_args()
    try:
        result = uvloop.run(_measure(options))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        sys.stdout.buffer.write(orjson.dumps(result) + b"\n")
    return 0 if result["held"] else 1


async def _measure(options: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {"machine": machine(None), "requests": [], "live": [], "held": True}
    for instances in options.instances:
        async with running(instances) as stack:
            scenario = await prepare(stack, Shape(pools=2, numbers=100))
            for rate in options.rates:
                for whose in ("caller", "app"):
                    case = Requests(whose, rate, instances, options.seconds)
                    passed, quota = await requests(stack, scenario, case), quota_of(case)
                    one = {
                        **asdict(case), "offered": sum(passed.statuses.values()), "passed": len(passed.answered),
                        "over": round(passed.over(quota), 1), "surely_over": round(passed.surely_over(quota), 1),
                        "slice": rate * SLICE_S,
                        "use": round(passed.use(quota), 4), "statuses": _named(passed.statuses),
                    }  # fmt: skip
                    result["requests"].append(one)
                    result["held"] &= one["over"] <= one["slice"] and one["use"] >= LEAST_USE
                    _tell(options, one)
            found = await lives(
                stack, scenario, most=options.live, clients=options.clients, seconds=options.seconds
            )  # fmt: skip
            one = {"instances": instances, "allowed": options.live, **asdict(found)}
            one["statuses"] = _named(found.statuses)
            result["live"].append(one)
            result["held"] &= max(found.most.values()) <= options.live
            _tell(options, one)
    result["load_average"] = load_average()
    return result


def _named(statuses: Counter[int]) -> dict[str, int]:
    return {str(status): count for status, count in sorted(statuses.items())}


def _tell(options: argparse.Namespace, one: dict[str, Any]) -> None:
    if not options.json:
        print(*(f"{name} {value}" for name, value in one.items()), sep=", ", flush=True)


if __name__ == "__main__":
    sys.exit(main())
