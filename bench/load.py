"""One load process: ``python -m bench.load`` reads a plan, says ``ready``, and begins at the time it is then told.

Meanwhile it says how many binds were confirmed so far, a line each quarter of a second.

Everything happens in callbacks on uvloop: about 25 µs of CPU for a request with its answer, so that the load takes
little from the machine that it measures. What was seen is written after the end, one JSON array a line.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import deque
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import uvloop

from bench.client import Client
from bench.history import Operation, Outcome
from bench.plan import Ask, Op, Orders, Plan

_LOOK_S = 0.25
_RELEASE_LOOK_S = 0.02

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


@dataclass(slots=True)
class _Held:
    """A binding that the load holds; it ``ends`` by itself (monotonic; 0 = never), is to be released when ``due``."""

    binding: str
    a: str
    b: str
    ends: float
    due: float


class _Load:
    """What both loops share: connections, what was seen and is held, releases that come due, the end."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.orders = Orders(plan)
        self.samples: list[tuple[object, ...]] = []
        self.clients = [Client(self) for _ in range(plan.connections)]
        self.stopping = False
        self.confirmed = 0
        self._begun = 0
        self._held: deque[_Held] = deque()
        #: Changes under way: nobody else touches those bindings.
        self._changing: dict[str, _Held] = {}
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
            print(self.confirmed, flush=True)
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

    # -- what to send ----------------------------------------------------------------------------------------------

    def may_begin(self) -> bool:
        self._begun += 1
        return self._begun <= self.plan.max_requests and not self.stopping

    def next_ask(self) -> Ask:
        """Compose what the mix says comes next; of nothing held there is nothing to read, change or release."""
        op: Op = self.orders.next_op()
        if op == "batch":
            return self.orders.batch()
        if op == "bind" or not self._held:
            return self.orders.bind()
        held = self._held.popleft()
        if op == "release":
            return self.orders.release(held.binding)
        if op == "change":
            self._changing[held.binding] = held
            return self.orders.change(held.binding, held.a)
        self._held.append(held)
        return self.orders.read(held.binding)

    def released(self, client: Client) -> bool:
        """Begin the next release that is due on ``client``, if there is one."""
        held, plan = self._held, self.plan
        too_many = plan.keep is not None and len(held) > plan.keep
        if not held or not (too_many or (plan.release_after_s is not None and held[0].due <= now())):
            return False
        client.send(self.orders.release(held.popleft().binding))
        return True

    # -- what was seen ---------------------------------------------------------------------------------------------

    def answered(self, client: Client, ask: Ask, outcome: Outcome, status: int, body: bytes) -> None:
        """Note it, and take over what is held from now on."""
        at = (client.intended, client.invoked or 0.0, now())
        if ask.op == "bind":
            told = orjson.loads(body) if outcome == "ok" else {}
            self._bound(at, ask, 0, outcome, status, told)
        elif ask.op == "batch":
            items = orjson.loads(body)["items"] if outcome == "ok" else [{"status": status}] * len(ask.pairs)
            for place, item in enumerate(items):
                each: Outcome = (
                    "ok" if item["status"] == 201 else "refused" if 400 <= item["status"] < 500 else "unknown"
                )
                self._bound(at, ask, place, each, item["status"], item.get("binding", {}))
        elif ask.op == "change":
            self._changed(at, ask, outcome, status, body)
        else:
            self._sample(at, ask.op, outcome, ask.binding, status=status)

    def _bound(
        self, at: tuple[float, float, float], ask: Ask, place: int, outcome: Outcome, status: int, told: dict[str, Any]
    ) -> None:
        (a, b), ttl_s = ask.pairs[place], float(self.plan.ttl_s)
        binding, x = (told["id"], told["x"]) if outcome == "ok" else (None, None)
        self.confirmed += outcome == "ok"
        self._sample(at, "bind", outcome, binding, (a, b), x, ttl_s, ask.key, status, told.get("line"))
        if binding is not None and self._holds:
            _, invoked, done = at
            due = done + (self.plan.release_after_s or 0.0)
            self._held.append(_Held(binding, a, b, invoked + ttl_s if ttl_s else 0.0, due))

    @property
    def _holds(self) -> bool:
        return self.plan.release_after_s is not None or self.plan.keep is not None or bool(self.plan.mix)

    def _changed(self, at: tuple[float, float, float], ask: Ask, outcome: Outcome, status: int, body: bytes) -> None:
        held = self._changing.pop(ask.binding or "")
        told = orjson.loads(body) if outcome == "ok" else {}
        if outcome == "ok" and told["state"] == "active" and told["pending_change"] is None:
            _, held.b = ask.pairs[0]
            ttl_s = max(held.ends - at[1], 0.001) if held.ends else 0.0
            pair = held.a, held.b
            self._sample(at, "change", "ok", held.binding, pair, told["x"], ttl_s, None, status, told["line"])
        else:
            self._sample(at, "change", "refused" if outcome == "refused" else "unknown", held.binding, status=status)
        if outcome != "unknown":
            self._held.append(held)

    def _sample(
        self,
        at: tuple[float, float, float],
        op: str,
        outcome: Outcome,
        binding: str | None,
        pair: tuple[str, str] = ("", ""),
        x: str | None = None,
        ttl_s: float = 0.0,
        key: str | None = None,
        status: int = 0,
        line: str | None = None,
    ) -> None:
        intended, invoked, done = at
        a, b = pair
        self.samples.append((intended, op, outcome, invoked, done, binding, a, b, x, ttl_s, key, status, line))

    # -- the loop --------------------------------------------------------------------------------------------------

    def begin(self, start: float) -> None:
        raise NotImplementedError

    def idle(self, client: Client) -> None:
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

    def idle(self, client: Client) -> None:
        """Release what is due after each bind, so that the two keep step; else send what comes next."""
        if self.stopping or (client.last != "release" and self.released(client)):
            return
        if self.may_begin():
            client.send(self.next_ask())


class OpenLoop(_Load):
    """Requests start when they were meant to, whatever became of the ones before."""

    def __init__(self, plan: Plan) -> None:
        """Draw the arrivals."""
        super().__init__(plan)
        self._starts = self.orders.arrivals()
        self._next = 0
        self._start = 0.0
        #: In turn: the one that was answered last would send all load to the worker that refuses fastest.
        self._free: deque[Client] = deque()
        self._backlog: deque[float] = deque()

    def begin(self, start: float) -> None:
        """Set the clock of the arrivals."""
        self._start = start
        self._free = deque(self.clients)
        self._pump()
        if self.plan.release_after_s is not None or self.plan.keep is not None:
            self._pump_releases()

    def _pump(self) -> None:
        elapsed = now() - self._start
        while self._next < len(self._starts) and self._starts[self._next] <= elapsed:
            self._backlog.append(self._start + self._starts[self._next])
            self._next += 1
        while self._backlog and self._free:
            self._free.popleft().send(self.next_ask(), self._backlog.popleft())
        if self._next < len(self._starts) and not self.stopping:
            wait = self._starts[self._next] - (now() - self._start)
            asyncio.get_running_loop().call_later(max(wait, 0.0), self._pump)

    def _pump_releases(self) -> None:
        while self._free and self.released(self._free[0]):
            self._free.popleft()
        if not self.stopping:
            asyncio.get_running_loop().call_later(_RELEASE_LOOK_S, self._pump_releases)

    def idle(self, client: Client) -> None:
        """Send what waits for a connection."""
        if self._backlog:
            client.send(self.next_ask(), self._backlog.popleft())
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
