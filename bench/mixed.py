"""Sharing, PATCH, hand-over, releases and batches at once while calls are placed and workers die (issue 3's promise).

``python -m bench.mixed [--calls 100000] [--seconds 600] [--kill-every 5]`` starts a broker with everything it needs
here, kills a worker again and again, and judges every call, every answer and, once it is quiet, all books.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from bench.check import check_books, check_promises
from bench.history import Operation, Outcome, check_history
from bench.machine import machine
from bench.possible import Possibilities, Possibility
from bench.scenario import Shape, prepare
from bench.stack import BenchError, running
from broker.domain.phone import mask

_LIVE = frozenset({"pending", "active", "releasing"})
_KEEP = 8
_TRIES = 60
_FAILING = 500
#: What a killed worker had asked of the database may still be done there so long after its client was cut off.
_STILL_S = 5.0

now = time.monotonic


@dataclass(slots=True, eq=False)
class _Order:
    """One order's binding, as far as its client knows."""

    a: str
    b: str
    ttl_s: int
    binding: str | None = None
    maybe: list[Possibility] = field(default_factory=list)
    #: What certainly holds while nothing is under way; another object after everything that may change it.
    sure: Possibility | None = None
    #: Until when what is sure is so at least.
    lives_until: float = 0.0
    #: Until when a request that nobody answered may yet take effect: a look before that proves nothing.
    doubtful_until: float = 0.0
    over: bool = False

    def doubt(self, status: int) -> None:
        """Take in how a request of it was answered."""
        if not 200 <= status < _FAILING:
            self.doubtful_until = now() + _STILL_S


@dataclass(slots=True, eq=False)
class _Group:
    """A few couriers and customers whom nobody else may ever meet."""

    couriers: tuple[str, ...]
    customers: tuple[str, ...]
    orders: list[_Order] = field(default_factory=list)
    #: Begun and ended ones: odd while one is under way, which is then ``handing``: from, to, whether on another X.
    hand_overs: int = 0
    handing: tuple[str, str, bool] | None = None

    def live(self) -> list[_Order]:
        return [order for order in self.orders if order.binding is not None and not order.over]

    def other(self, order: _Order, role: str, chance: random.Random) -> str:
        among = self.couriers if role == "a" else self.customers
        return chance.choice([phone for phone in among if phone not in {order.a, order.b}])


@dataclass(slots=True)
class Mixed:
    """The load; ``wrong`` says in words who reached whom and should not have, or could not and should have."""

    api: str
    key: str
    emulator_admin: str
    calls: int
    seconds: float
    groups: int = 24
    placers: int = 8
    seed: int = 1
    operations: list[Operation] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    placed: int = 0
    reached: int = 0
    _possible: Possibilities = field(default_factory=Possibilities)
    _made: int = 0
    _end: float = 0.0

    async def run(self) -> None:
        """Work until so many calls were placed, at most so long."""
        self._end = now() + self.seconds
        chance = random.Random(self.seed)
        groups = [_group(number) for number in range(self.groups)]
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
            connector=aiohttp.TCPConnector(limit=3 * self.groups), timeout=aiohttp.ClientTimeout(total=30),
        ) as http, aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=self.placers)) as console:  # fmt: skip
            chances = iter(lambda: random.Random(chance.random()), None)
            await asyncio.gather(
                *(self._binder(http, group, next(chances)) for group in groups),
                *(self._changer(http, group, next(chances)) for group in groups),
                *(self._placer(console, groups, next(chances)) for _ in range(self.placers)),
            )

    def stop(self) -> None:
        """Begin nothing more."""
        self._end = now()

    @property
    def _working(self) -> bool:
        return now() < self._end and self.placed < self.calls

    # -- requests --------------------------------------------------------------------------------------------------

    async def _ask(
        self, http: aiohttp.ClientSession, what: str, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        try:
            async with http.request(
                method, self.api + path, data=orjson.dumps(body) if body is not None else None, headers=headers
            ) as answer:
                told = orjson.loads(await answer.read())
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
            told, status = {"code": type(error).__name__}, 0
        self.answers[f"{what} {status} {told.get('code', '')}".strip()] += 1
        return status, told

    async def _until_told(
        self, http: aiohttp.ClientSession, what: str, path: str, body: object, key: str
    ) -> tuple[int, dict[str, Any]]:
        """Repeat a request under its key until it has an answer that says what was done."""
        status, told = 0, dict[str, Any]()
        for _ in range(_TRIES):
            status, told = await self._ask(http, what, "POST", path, body, **{"Idempotency-Key": key})
            if 200 <= status < _FAILING and told.get("code") not in {"idempotency_in_progress", "rate_limited"}:
                break
            await asyncio.sleep(0.25)
        return status, told

    # -- binding ---------------------------------------------------------------------------------------------------

    async def _binder(self, http: aiohttp.ClientSession, group: _Group, chance: random.Random) -> None:
        while self._working:
            if len(group.live()) >= _KEEP:
                await asyncio.sleep(0.02)
            elif chance.random() < 0.15:
                await self._bind(http, group, [self._order(group, chance) for _ in range(3)], chance)
            else:
                await self._bind(http, group, [self._order(group, chance)], chance)

    def _order(self, group: _Group, chance: random.Random) -> _Order:
        a, b = chance.choice(group.couriers), chance.choice(group.customers)
        order = _Order(*((b, a) if chance.random() < 0.2 else (a, b)), chance.choice((60, 600, 3600)))
        order.maybe.append(self._possible.add(None, order.a, order.b, now()))
        group.orders.append(order)
        if group.handing is not None:
            # It may join a line that is about to be handed over.
            old, new, rebind = group.handing
            self._may_follow(order, old, new, rebind=rebind)
        return order

    async def _bind(
        self, http: aiohttp.ClientSession, group: _Group, orders: Sequence[_Order], chance: random.Random
    ) -> None:
        self._made += 1
        key, invoked, seen = f"mixed-{self.seed}-{self._made}", now(), group.hand_overs
        items = [
            {"a": one.a, "b": one.b, "ttl_s": one.ttl_s, "order_id": f"{key}-{place}"}
            for place, one in enumerate(orders)
        ]
        if chance.random() < 0.1:
            items[0]["share"] = False
        if len(orders) > 1:
            _, told = await self._until_told(http, "batch", "/v1/bindings:batch", {"items": items}, key)
            answers = told.get("items", [{"status": 0}] * len(orders))
            found = [(one["status"], one.get("binding", {})) for one in answers]
        else:
            found = [await self._until_told(http, "bind", "/v1/bindings", items[0], key)]
        for order, (status, binding) in zip(orders, found, strict=True):
            # Handed over meanwhile, by its pair's line: who holds what is told by the next look.
            certain = status == 201 and seen == group.hand_overs and not seen % 2
            outcome: Outcome = "ok" if certain else "refused" if 400 <= status < _FAILING else "unknown"
            order.binding = binding.get("id") if status in {201, 202} else None
            self.operations.append(
                Operation("bind", outcome, invoked, now(), order.binding, order.a, order.b,
                          binding.get("x"), order.ttl_s, f"{key}-{order.a}{order.b}", status, binding.get("line"))
            )  # fmt: skip
            if outcome == "refused":
                order.over = True
                for one in order.maybe:
                    one.close(now())

    # -- changing and ending ---------------------------------------------------------------------------------------

    async def _changer(self, http: aiohttp.ClientSession, group: _Group, chance: random.Random) -> None:
        while self._working:
            live = group.live()
            if not live:
                await asyncio.sleep(0.02)
                continue
            order, dice = chance.choice(live), chance.random()
            if dice < 0.35:
                await self._replace(http, group, order, chance)
            elif dice < 0.55:
                await self._patch(http, order, _own_patch(chance), chance)
            elif dice < 0.62:
                await self._hand_over(http, group, chance)
            elif dice < 0.92:
                await self._release(http, chance.sample(live, min(len(live), chance.choice((1, 1, 1, 3)))))
            for one in chance.sample(live, min(3, len(live))):
                await self._look(http, group, one)
            group.orders[:] = [one for one in group.orders if not one.over]

    async def _replace(self, http: aiohttp.ClientSession, group: _Group, order: _Order, chance: random.Random) -> None:
        role = chance.choice("ab")
        new = group.other(order, role, chance)
        rebind = chance.random() < 0.3
        patch: dict[str, object] = {role: new, **({"on_conflict": "rebind"} if rebind else {})}
        for a, b in _pairs(order):
            self._may_become(order, *((new, b) if role == "a" else (a, new)), rebind=rebind)
        await self._patch(http, order, patch, chance)

    def _may_become(self, order: _Order, a: str, b: str, *, rebind: bool) -> None:
        known = {(one.x, one.a, one.b) for one in order.maybe if one.open}
        for one in order.maybe:
            one.lingers = one.lingers or (rebind and one.open)
        for x in {None} if rebind else {x for x, _, _ in known}:
            if (x, a, b) not in known:
                order.maybe.append(self._possible.add(x, a, b, now()))

    async def _patch(
        self, http: aiohttp.ClientSession, order: _Order, patch: dict[str, object], chance: random.Random
    ) -> None:
        order.sure, invoked = None, now()
        prefer = {"Prefer": "respond-async"} if chance.random() < 0.3 else {}
        status, told = await self._ask(http, "patch", "PATCH", f"/v1/bindings/{order.binding}", patch, **prefer)
        if told.get("code"):
            self.answers[f"patch {sorted(patch)} {told['code']}"] += 1
        order.doubt(status)
        outcome: Outcome = "refused" if 400 <= status < _FAILING else "unknown"
        self.operations.append(Operation("change", outcome, invoked, now(), order.binding, status=status))

    async def _hand_over(self, http: aiohttp.ClientSession, group: _Group, chance: random.Random) -> None:
        old, new = chance.sample(group.couriers, 2)
        group.hand_overs += 1
        invoked, rebind = now(), chance.random() < 0.3
        group.handing = old, new, rebind
        for order in group.orders:
            if order.over:
                continue
            order.sure = None
            self._may_follow(order, old, new, rebind=rebind)
            self.operations.append(Operation("change", "unknown", invoked, invoked, order.binding))
        body = {"from": old, "to": new, "on_conflict": "rebind" if rebind else "refuse"}
        status, _ = await self._ask(http, "hand-over", "POST", "/v1/bindings:hand-over", body)
        group.hand_overs += 1
        group.handing = None
        for order in group.orders:
            order.doubt(status)

    def _may_follow(self, order: _Order, old: str, new: str, *, rebind: bool) -> None:
        for a, b in _pairs(order):
            if old in {a, b}:
                self._may_become(order, new if a == old else a, new if b == old else b, rebind=rebind)

    async def _release(self, http: aiohttp.ClientSession, orders: Sequence[_Order]) -> None:
        invoked = now()
        for order in orders:
            order.sure = None
        if len(orders) > 1:
            ids = [order.binding for order in orders]
            _, told = await self._ask(http, "batch-release", "POST", "/v1/bindings:batch-release", {"ids": ids})
            statuses = [one["status"] for one in told.get("items", [{"status": 0}] * len(orders))]
        else:
            statuses = [(await self._ask(http, "release", "DELETE", f"/v1/bindings/{orders[0].binding}"))[0]]
        for order, status in zip(orders, statuses, strict=True):
            done = status == 200
            order.doubt(status)
            self.operations.append(
                Operation("release", "ok" if done else "unknown", invoked, now(), order.binding, status=status)
            )
            if done:
                self._is_over(order)

    def _is_over(self, order: _Order) -> None:
        order.over, order.sure = True, None
        for one in order.maybe:
            one.close(now())

    async def _look(self, http: aiohttp.ClientSession, group: _Group, order: _Order) -> None:
        """Take in what a binding is now: nothing else of it is possible any more, unless somebody changes it."""
        if order.over or order.sure is not None:
            return
        seen, invoked = group.hand_overs, now()
        status, told = await self._ask(http, "look", "GET", f"/v1/bindings/{order.binding}")
        if status != 200 or seen != group.hand_overs or invoked < order.doubtful_until:
            return
        if told["state"] not in _LIVE:
            self._is_over(order)
            self.operations.append(Operation("release", "ok", invoked, now(), order.binding, status=200))
        elif told["state"] == "active" and told["pending_change"] is None:
            self._is_so(order, told, invoked)

    def _is_so(self, order: _Order, told: dict[str, Any], invoked: float) -> None:
        masked = (told["a"], told["b"])
        fits = [one for one in order.maybe if (mask(one.a), mask(one.b)) == masked and one.x in {None, told["x"]}]
        if not fits:
            self.wrong.append(f"binding {order.binding} is shown with parties that nobody asked for")
            return
        certain = fits[-1]
        order.a, order.b = certain.a, certain.b
        for one in order.maybe:
            one.close(now())
        order.sure = self._possible.add(told["x"], order.a, order.b, invoked)
        order.lives_until = now() + _left(told)
        order.maybe = [*(one for one in order.maybe if one.open and one.lingers), order.sure]
        self.operations.append(
            Operation("change", "ok", invoked, now(), order.binding, order.a, order.b, told["x"],
                      max(_left(told), 0.001), status=200, line=told["line"])
        )  # fmt: skip

    # -- calling ---------------------------------------------------------------------------------------------------

    async def _placer(self, console: aiohttp.ClientSession, groups: Sequence[_Group], chance: random.Random) -> None:
        while self._working:
            live = [order for order in chance.choice(groups).orders if any(one.x for one in order.maybe)]
            if not live:
                await asyncio.sleep(0.005)
                continue
            order = chance.choice(live)
            on = chance.choice([one for one in order.maybe if one.x])
            caller = chance.choice((on.a, on.b))
            sure, since = order.sure, now()
            async with console.post(
                f"{self.emulator_admin}/emulator/calls", json={"from": caller, "to": on.x}
            ) as answer:
                told = await answer.json()
            self.placed += 1
            self._judge(order, on, caller, told, sure if sure is on else None, since)

    def _judge(
        self, order: _Order, on: Possibility, caller: str, told: dict[str, Any], sure: Possibility | None, since: float
    ) -> None:
        reached = told["connected_to"]
        where = f"{mask(caller)} on X {mask(on.x or '')}"
        if reached is not None:
            self.reached += 1
            if not self._possible.explain(on.x or "", caller, reached, since, now()):
                self.wrong.append(f"wrong person: {where} reached {mask(reached)} (binding {order.binding})")
        elif sure is not None and order.sure is sure and now() < order.lives_until:
            self.wrong.append(f"call lost: {where} reached nobody, {order.binding} is active ({told['state_code']})")


def _group(number: int) -> _Group:
    # Masked phones show four digits: those of a group differ in them.
    first = f"+86138{number:04d}"
    return _Group(tuple(f"{first}{1000 + n}" for n in range(3)), tuple(f"{first}{2000 + n}" for n in range(5)))


def _pairs(order: _Order) -> set[tuple[str, str]]:
    """Return whom the order may be of at this moment."""
    return {(one.a, one.b) for one in order.maybe if one.open}


def _own_patch(chance: random.Random) -> dict[str, object]:
    patches: tuple[dict[str, object], ...] = (
        {"ttl_s": chance.choice((60, 900, 7200))},
        {"recording": {"enabled": chance.random() < 0.5}},
        {"max_call_minutes": chance.choice((0, 30, 60))},
        {"sms": chance.random() < 0.5},
        {"user_data": "words"},
    )
    return chance.choice(patches)


def _left(told: dict[str, Any]) -> float:
    """Return for how long a binding certainly lives on, less a second for the clocks."""
    if told["expires_at"] is None:
        return float(10**9)
    return datetime.fromisoformat(told["expires_at"]).timestamp() - time.time() - 1.0


def kill_a_worker(parent: int) -> int:
    """Kill one worker of the broker whose first process is ``parent``; return how many were killed."""
    for pid in _children(parent):
        with suppress(FileNotFoundError):
            if b"broker.worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)
                return 1
    return 0


def _children(parent: int) -> Iterator[int]:
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split():
        yield int(pid)


async def kill_while(load: asyncio.Task[None], parent: int, every_s: float) -> int:
    """Kill a worker again and again until the load is done; return how often."""
    killed = 0
    while not load.done():
        await asyncio.wait([load], timeout=every_s)
        if not load.done():
            killed += kill_a_worker(parent)
    await load
    return killed


async def _measure(options: argparse.Namespace) -> int:
    began = time.monotonic()
    os.environ.setdefault("BROKER_LEASE_S", "6")
    os.environ.setdefault("BROKER_RESCUE_INTERVAL_S", "0.5")
    os.environ.setdefault("BROKER_PLATFORM_ABSENCE_S", "5")
    async with running(options.workers) as stack:
        shape = Shape(pools=1, numbers=options.numbers, cap=40, quarantine_s=options.quarantine)
        scenario = await prepare(stack, shape)
        load = Mixed(
            stack.api, scenario.api_key, stack.emulator_admin, options.calls, options.seconds, options.groups,
            seed=options.seed,
        )  # fmt: skip
        killed = await kill_while(asyncio.create_task(load.run()), stack.pid, options.kill_every)
        seconds = time.monotonic() - began
        violations = [
            *load.wrong,
            *check_history(load.operations, quarantine_s=scenario.quarantine_s, cap=scenario.cap, sharing=True),
            *await check_promises(stack.database, load.operations, settle_s=_QUIET_S, expired=True),
            *await check_books(stack.database, stack.vault(), stack.emulator_admin, settle_s=_QUIET_S),
        ]
    told = {
        "machine": machine(None), "seconds": round(seconds, 1), "killed": killed, "calls": load.placed,
        "reached": load.reached, "operations": len(load.operations), "answers": dict(sorted(load.answers.items())),
        "violations": violations[:20], "violations_in_all": len(violations),
    }  # fmt: skip
    print(orjson.dumps(told, option=orjson.OPT_INDENT_2).decode())
    return 1 if violations else 0


#: Calls of killed workers are taken over, and an unknown modify is settled only when none can come late.
_QUIET_S = 60.0


def main() -> int:
    """Run; 1 = a promise was broken, 2 = nothing could be measured."""
    parser = argparse.ArgumentParser(
        prog="bench.mixed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=100_000, help="calls to place (default 100000)")
    parser.add_argument("--seconds", type=float, default=600.0, help="at most so long (default 600)")
    parser.add_argument("--kill-every", type=float, default=5.0, help="seconds between kills (default 5)")
    parser.add_argument("--groups", type=int, default=24, help="groups of 3 couriers and 5 customers (default 24)")
    parser.add_argument("--numbers", type=int, default=30, help="X numbers (default 30)")
    parser.add_argument("--quarantine", type=int, default=1, help="seconds (default 1)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    try:
        return asyncio.run(_measure(parser.parse_args()))
    except BenchError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
