"""One load process: ``python -m bench.hammer.load`` reads a plan, says ``ready``, and begins at the next line.

Each client binds, holds, changes and releases one order at a time, and comes back a moment after a refusal: whatever
becomes free is wanted by all of them. What is held at the end stays, so that the books have something to agree about.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop

from bench.hammer.kind import KINDS, SHORT_S, Orders
from bench.history import Operation, Outcome

#: How long an order is held, and how long after a refusal its client comes back.
_HOLD_S, _PAUSE_S = (0.1, 0.9), (0.1, 0.3)
_TRIES = 80
_FAILING = 500
#: Somebody is at it: asked again, there is another answer.
_BUSY = frozenset({"idempotency_in_progress", "change_in_progress"})
#: Nothing may be given now.
_REFUSALS = frozenset({"pool_exhausted", "extension_taken", "party_limit"})

now = time.monotonic


@dataclass(frozen=True, slots=True)
class Plan:
    """Load of one process."""

    api: str
    key: str
    kind: str
    clients: int
    seconds: float
    process: int
    processes: int
    out: str


@dataclass(frozen=True, slots=True)
class Told:
    """What a process has seen: answers by what was asked, seconds of each refusal by its code, and all operations."""

    answers: dict[str, int]
    refusals: dict[str, list[float]]
    operations: list[Operation]

    @classmethod
    def read(cls, path: Path) -> Told:
        """Read what :meth:`write` wrote."""
        kept = orjson.loads(path.read_bytes())
        return cls(kept["answers"], kept["refusals"], [Operation(**one) for one in kept["operations"]])

    def write(self, path: Path) -> None:
        """Write it down."""
        path.write_bytes(orjson.dumps(asdict(self)))


class Load:
    """The clients of one process."""

    def __init__(self, plan: Plan) -> None:
        """Nothing is asked yet; the seconds of the plan begin now."""
        self.plan = plan
        self.orders = Orders(KINDS[plan.kind], plan.process, plan.processes)
        self.told = Told({}, {}, [])
        self._answers: Counter[str] = Counter()
        self._keys = 0
        self._end = now() + plan.seconds

    def stop(self) -> None:
        """Begin no more orders."""
        self._end = now()

    async def run(self) -> None:
        """Let all clients work until the end."""
        plan = self.plan
        headers = {"Authorization": f"Bearer {plan.key}", "Content-Type": "application/json"}
        async with aiohttp.ClientSession(
            headers=headers, connector=aiohttp.TCPConnector(limit=plan.clients), timeout=aiohttp.ClientTimeout(total=15)
        ) as http:
            await asyncio.gather(*(self._client(http) for _ in range(plan.clients)))
        self.told.answers.update(self._answers)

    async def _client(self, http: aiohttp.ClientSession) -> None:
        chance = self.orders.chance
        await asyncio.sleep(chance.uniform(0, _PAUSE_S[1]))
        while now() < self._end:
            made = await self._bind(http)
            if made is None:
                await asyncio.sleep(chance.uniform(*_PAUSE_S))
                continue
            body, told = made
            await asyncio.sleep(chance.uniform(*_HOLD_S))
            # Where clocks are moved on, an order may expire at the platform well before it does in our books.
            steady = not self.orders.ahead_s or body["ttl_s"] != SHORT_S
            if chance.random() < 0.25 and self.orders.kind.changes_a and steady:
                await self._change(http, body, told)
            await self._beside(http, told)
            if now() < self._end and body["ttl_s"] != SHORT_S:
                await self._release(http, told["id"])

    async def _bind(self, http: aiohttp.ClientSession) -> tuple[dict[str, Any], dict[str, Any]] | None:
        body, invoked = self.orders.order(), now()
        status, told = await self._until_told(http, "bind", "POST", "/v1/bindings", body)
        outcome: Outcome = "ok" if status == 201 else "refused" if 400 <= status < _FAILING else "unknown"
        binding = told.get("id") if status in {201, 202} else None
        self.told.operations.append(
            Operation("bind", outcome, invoked, now(), binding, body["a"], body.get("b", ""), told.get("x"),
                      body["ttl_s"], None, status, told.get("line"))
        )  # fmt: skip
        if binding is None:
            return None
        self.orders.seen(body, told)
        return body, told

    async def _change(self, http: aiohttp.ClientSession, body: dict[str, Any], told: dict[str, Any]) -> None:
        change, invoked = self.orders.change(), now()
        status, now_is = await self._until_told(http, "change", "PATCH", f"/v1/bindings/{told['id']}", change)
        after = {"a": body["a"], "b": body.get("b", ""), **change}
        outcome: Outcome = "ok" if status == 200 else "refused" if 400 <= status < _FAILING else "unknown"
        self.told.operations.append(
            Operation("change", outcome, invoked, now(), told["id"], after["a"], after["b"], now_is.get("x"),
                      body["ttl_s"], None, status, now_is.get("line"))
        )  # fmt: skip

    async def _beside(self, http: aiohttp.ClientSession, told: dict[str, Any]) -> None:
        """What else a line of the mode may have; it ends with the line."""
        mode = self.orders.kind.mode
        if self.orders.chance.random() > 0.3:
            return
        if mode == "axyb":
            body = {"b": self.orders.fresh(), "ttl_s": 600}
            await self._until_told(http, "peer", "POST", f"/v1/bindings/{told['id']}/peers", body)
        elif mode == "ax" or (mode == "x" and not self.orders.kind.pair):
            body = {"callee": self.orders.fresh(), "ttl_s": 60}
            await self._until_told(http, "callee", "PUT", f"/v1/bindings/{told['id']}/callee", body)

    async def _release(self, http: aiohttp.ClientSession, binding: str) -> None:
        invoked = now()
        status, _ = await self._until_told(http, "release", "DELETE", f"/v1/bindings/{binding}", None)
        outcome: Outcome = "ok" if status == 200 else "unknown"
        self.told.operations.append(Operation("release", outcome, invoked, now(), binding, status=status))

    async def _until_told(
        self, http: aiohttp.ClientSession, what: str, method: str, path: str, body: object
    ) -> tuple[int, dict[str, Any]]:
        """Ask, and repeat under the same key until there is an answer that says what was done."""
        self._keys += 1
        headers = {} if method == "PUT" else {"Idempotency-Key": f"hammer-{self.plan.process}-{self._keys}"}
        status, told = 0, dict[str, Any]()
        for attempt in range(_TRIES):
            began = now()
            status, told = await self._ask(http, method, path, body, headers)
            code = told.get("code", "")
            self._answers[f"{what} {status} {code}".strip()] += 1
            if code in _REFUSALS and attempt == 0:
                self.told.refusals.setdefault(code, []).append(now() - began)
            if 200 <= status < _FAILING and code not in _BUSY:
                break
            await asyncio.sleep(0.25)
        return status, told

    async def _ask(
        self, http: aiohttp.ClientSession, method: str, path: str, body: object, headers: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        data = None if body is None else orjson.dumps(body)
        try:
            async with http.request(method, self.plan.api + path, data=data, headers=headers) as answer:
                return answer.status, orjson.loads(await answer.read())
        except (aiohttp.ClientError, TimeoutError, orjson.JSONDecodeError) as error:
            return 0, {"code": type(error).__name__}


async def _main() -> None:
    loop = asyncio.get_running_loop()
    plan = Plan(**orjson.loads(await loop.run_in_executor(None, sys.stdin.readline)))
    print("ready", flush=True)
    if await loop.run_in_executor(None, sys.stdin.readline):
        load = Load(plan)
        await load.run()
        load.told.write(Path(plan.out))


if __name__ == "__main__":
    uvloop.run(_main())
