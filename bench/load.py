"""One load process: ``python -m bench.load`` reads a plan, says ``ready``, and begins at the time it is then told.

Everything happens in callbacks on uvloop: about 25 µs of CPU for a request with its answer, so that the load takes
little from the machine that it measures. What was seen is written after the end, one JSON array a line.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Literal

import orjson
import uvloop

from bench.connection import Connection
from bench.history import Operation, Outcome
from bench.plan import Orders, Plan

_LOOK_S = 0.25
_RELEASE_LOOK_S = 0.02
_RECONNECT_S = 0.1

now = time.monotonic


def write_samples(path: Path, samples: list[tuple[object, ...]]) -> None:
    """Write one line each: the intended start, then the fields of the operation in their order."""
    with path.open("wb") as file:
        for sample in samples:
            file.write(orjson.dumps(sample) + b"\n")


def read_samples(path: Path) -> Iterator[tuple[float, Operation]]:
    """Read what :func:`write_samples` wrote."""
    with path.open("rb") as file:
        for line in file:
            intended, *fields = orjson.loads(line)
            yield intended, Operation(*fields)


class _Client:
    """One connection and the request under way on it."""

    __slots__ = ("_a", "_b", "_binding", "_connection", "_key", "_load", "_op", "_request", "intended", "invoked")

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._connection: Connection | None = None
        self.invoked: float | None = None
        self.intended = 0.0
        self._request = b""
        self._a = self._b = ""
        self._op: Literal["bind", "release"] = "bind"
        self._binding: str | None = None
        self._key: str | None = None

    @property
    def bound_last(self) -> bool:
        return self._op == "bind"

    def bind(self, intended: float | None) -> None:
        self._op, self._binding = "bind", None
        self._a, self._b, self._key, request = self._load.orders.bind()
        self._begin(request, intended)

    def release(self, binding: str) -> None:
        self._op, self._binding, self._key = "release", binding, None
        self._a = self._b = ""
        self._begin(self._load.orders.release(binding), None)

    def _begin(self, request: bytes, intended: float | None) -> None:
        self.invoked = now()
        self.intended = self.invoked if intended is None else intended
        if self._connection is not None:
            self._connection.send(request)
            return
        self._request = request
        self._load.spawn(self._connect_and_send())

    async def connect(self) -> None:
        plan = self._load.plan
        loop = asyncio.get_running_loop()
        _, self._connection = await loop.create_connection(
            lambda: Connection(self._answered, self._lost), plan.host, plan.port
        )

    async def _connect_and_send(self) -> None:
        try:
            await self.connect()
        except OSError:
            await asyncio.sleep(_RECONNECT_S)
            self._over("refused", 0, b"")
            return
        if self._connection is not None:
            self._connection.send(self._request)

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def _lost(self, connection: Connection) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        if self.invoked is not None:
            self._over("unknown", 0, b"")

    def _answered(self, status: int, body: bytes) -> None:
        if not self._load.plan.keep_alive and self._connection is not None:
            self._connection.close()
            self._connection = None
        outcome: Outcome = "unknown"
        if status == (201 if self._op == "bind" else 200):
            outcome = "ok"
        elif 400 <= status < 500:
            outcome = "refused"
        self._over(outcome, status, body)

    def _over(self, outcome: Outcome, status: int, body: bytes) -> None:
        if self.invoked is None:
            return
        done, invoked, self.invoked = now(), self.invoked, None
        x = None
        if self._op == "bind" and outcome == "ok":
            told = orjson.loads(body)
            self._binding, x = told["id"], told["x"]
        ttl_s = float(self._load.plan.ttl_s) if self._op == "bind" else 0.0
        self._load.samples.append(
            (
                self.intended, self._op, outcome, invoked, done, self._binding, self._a, self._b, x, ttl_s, self._key,
                status,
            )
        )  # fmt: skip
        if x is not None and self._binding is not None:
            self._load.bound(self._binding, done)
        self._load.idle(self)


class _Load:
    """What both loops share: connections, what was seen, releases that come due, the end."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.orders = Orders(plan)
        self.samples: list[tuple[object, ...]] = []
        self.clients = [_Client(self) for _ in range(plan.connections)]
        self.stopping = False
        self._begun = 0
        self._due: deque[tuple[float, str]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        if self.plan.keep_alive:
            for first in range(0, len(self.clients), 100):
                await asyncio.gather(*(client.connect() for client in self.clients[first : first + 100]))

    async def run(self, start: float) -> None:
        await asyncio.sleep(start - now())
        self.begin(start)
        end = start + self.plan.seconds
        while now() < end:
            await asyncio.sleep(min(_LOOK_S, max(end - now(), 0.0)))
            self._hang_up_late(self.plan.request_timeout_s)
        self.stopping = True
        last = now() + self.plan.request_timeout_s
        while any(client.invoked is not None for client in self.clients) and now() < last:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        self._hang_up_late(0.0)
        self.end()

    def _hang_up_late(self, after_s: float) -> None:
        latest = now() - after_s
        for client in self.clients:
            if client.invoked is not None and client.invoked <= latest:
                client.hang_up()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def bound(self, binding: str, at: float) -> None:
        if self.plan.release_after_s is not None:
            self._due.append((at + self.plan.release_after_s, binding))

    def released(self, client: _Client) -> bool:
        """Begin the next release that is due on ``client``, if there is one."""
        if not self._due or self._due[0][0] > now():
            return False
        client.release(self._due.popleft()[1])
        return True

    def may_bind(self) -> bool:
        self._begun += 1
        return self._begun <= self.plan.max_requests and not self.stopping

    def begin(self, start: float) -> None:
        raise NotImplementedError

    def idle(self, client: _Client) -> None:
        raise NotImplementedError

    def end(self) -> None:
        """Account for what was never sent."""


class ClosedLoop(_Load):
    """Each connection sends its next request as soon as it has its answer."""

    def begin(self, start: float) -> None:
        """Send the first request of each connection."""
        del start
        for client in self.clients:
            self.idle(client)

    def idle(self, client: _Client) -> None:
        """Release what is due after each bind, so that the two keep step; else bind."""
        if self.stopping or (client.bound_last and self.released(client)):
            return
        if self.may_bind():
            client.bind(None)


class OpenLoop(_Load):
    """Requests start when they were meant to, whatever became of the ones before."""

    def __init__(self, plan: Plan) -> None:
        """Draw the arrivals."""
        super().__init__(plan)
        self._starts = self.orders.arrivals(plan)
        self._next = 0
        self._start = 0.0
        #: In turn: the one that was answered last would send all load to the worker that refuses fastest.
        self._free: deque[_Client] = deque()
        self._backlog: deque[float] = deque()

    def begin(self, start: float) -> None:
        """Set the clock of the arrivals."""
        self._start = start
        self._free = deque(self.clients)
        self._pump()
        if self.plan.release_after_s is not None:
            self._pump_releases()

    def _pump(self) -> None:
        elapsed = now() - self._start
        while self._next < len(self._starts) and self._starts[self._next] <= elapsed:
            self._backlog.append(self._start + self._starts[self._next])
            self._next += 1
        while self._backlog and self._free:
            self._free.popleft().bind(self._backlog.popleft())
        if self._next < len(self._starts) and not self.stopping:
            wait = self._starts[self._next] - (now() - self._start)
            asyncio.get_running_loop().call_later(max(wait, 0.0), self._pump)

    def _pump_releases(self) -> None:
        while self._free and self.released(self._free[0]):
            self._free.popleft()
        if not self.stopping:
            asyncio.get_running_loop().call_later(_RELEASE_LOOK_S, self._pump_releases)

    def idle(self, client: _Client) -> None:
        """Send what waits for a connection."""
        if self._backlog:
            client.bind(self._backlog.popleft())
        else:
            self._free.append(client)

    def end(self) -> None:
        """What found no connection counts with the time it has waited so far."""
        at = now()
        waited = [*self._backlog, *(self._start + start for start in self._starts[self._next :])]
        self.samples.extend((intended, "bind", "refused", at, at) for intended in waited)


async def _main() -> None:
    loop = asyncio.get_running_loop()
    plan = Plan.parse((await loop.run_in_executor(None, sys.stdin.readline)).encode())
    load = ClosedLoop(plan) if plan.kind == "closed" else OpenLoop(plan)
    await load.connect()
    print("ready", flush=True)
    start = await loop.run_in_executor(None, sys.stdin.readline)
    if start:
        await load.run(float(start))
        write_samples(Path(plan.out), load.samples)


if __name__ == "__main__":
    uvloop.run(_main())
