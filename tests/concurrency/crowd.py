"""64 clients that bind and release couriers and customers over HTTP, and write down what they saw."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import aiohttp

from bench.history import Operation
from tests.contract.service import Service

CLIENTS = 64
CUSTOMERS = 5_000


@dataclass(slots=True)
class Crowd:
    """What all clients did. ``keep`` is how many bindings each holds before it releases its oldest."""

    service: Service
    seconds: float
    keep: int
    couriers: int = 200
    seed: int = 1
    operations: list[Operation] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Let everybody work for the time given."""
        end = time.monotonic() + self.seconds
        # A connection of its own for each client: the kernel spreads them over the workers.
        async with aiohttp.ClientSession(
            self.service.api,
            headers={"Authorization": f"Bearer {self.service.key}"},
            connector=aiohttp.TCPConnector(limit=CLIENTS),
            timeout=aiohttp.ClientTimeout(total=20),
        ) as http:
            chances = [random.Random(self.seed * 1000 + n) for n in range(CLIENTS)]  # noqa: S311 - load, not secrets
            await asyncio.gather(*(self._client(http, chance, end) for chance in chances))

    async def _client(self, http: aiohttp.ClientSession, chance: random.Random, end: float) -> None:
        mine: deque[str] = deque()
        while time.monotonic() < end:
            if len(mine) >= self.keep:
                await self._release(http, mine.popleft())
            bound = await self._bind(http, chance)
            if bound is not None:
                mine.append(bound)
            elif mine:
                await self._release(http, mine.popleft())

    async def _bind(self, http: aiohttp.ClientSession, chance: random.Random) -> str | None:
        a = f"+8613800{chance.randrange(self.couriers):06d}"
        b = f"+8613900{chance.randrange(CUSTOMERS):06d}"
        invoked = time.monotonic()
        try:
            async with http.post("/v1/bindings", json={"a": a, "b": b, "ttl_s": 3600, "share": False}) as answer:
                told = await answer.json(content_type=None)
                status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            told, status = {}, 0
        done = time.monotonic()
        self.answers[f"bind {status} {told.get('code', '')}".strip()] += 1
        outcome = {201: "ok", 409: "refused"}.get(status, "unknown")
        self.operations.append(
            Operation("bind", outcome, invoked, done, told.get("id"), a, b, told.get("x"), 3600, status=status)  # type: ignore[arg-type]
        )
        return told["id"] if status in {201, 202} else None

    async def _release(self, http: aiohttp.ClientSession, binding: str) -> None:
        invoked = time.monotonic()
        try:
            async with http.delete(f"/v1/bindings/{binding}") as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            status = 0
        self.answers[f"release {status}"] += 1
        self.operations.append(
            Operation(
                "release", "ok" if status == 200 else "unknown", invoked, time.monotonic(), binding, status=status
            )
        )
