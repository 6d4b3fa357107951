"""Any platform with its calls counted: how many, how they ended, how long they took."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable

from broker.metrics import Metrics
from broker.platform.protocol import Answer, AxbBind, AxbModify, AxbPlatform, Permit


class Measured:
    """Implements ``AxbPlatform`` by another one. ``in_flight`` counts by operation and may be shared by many."""

    def __init__(self, platform: AxbPlatform, metrics: Metrics, in_flight: Counter[str]) -> None:
        self._platform = platform
        self._metrics = metrics
        self._in_flight = in_flight

    async def bind(self, request: AxbBind, *, permit: Permit, timeout_s: float) -> Answer:
        """Create a binding."""
        return await self._measure("bind", self._platform.bind(request, permit=permit, timeout_s=timeout_s))

    async def modify(self, request: AxbModify, *, permit: Permit, timeout_s: float) -> Answer:
        """Change a binding."""
        return await self._measure("modify", self._platform.modify(request, permit=permit, timeout_s=timeout_s))

    async def unbind(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """End a binding."""
        return await self._measure("unbind", self._platform.unbind(subscription_id, permit=permit, timeout_s=timeout_s))

    async def query(
        self, *, x: str, a: str = "", b: str = "", page: int = 1, permit: Permit, timeout_s: float
    ) -> Answer:
        """List bindings on an X."""
        asked = self._platform.query(x=x, a=a, b=b, page=page, permit=permit, timeout_s=timeout_s)
        return await self._measure("query", asked)

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """List one binding."""
        return await self._measure("query", self._platform.lookup(subscription_id, permit=permit, timeout_s=timeout_s))

    def set_clock_offset(self, seconds: float) -> None:
        """Sign with another clock."""
        self._platform.set_clock_offset(seconds)

    async def close(self) -> None:
        """Close connections."""
        await self._platform.close()

    async def _measure(self, op: str, call: Awaitable[Answer]) -> Answer:
        began = time.perf_counter()
        self._in_flight[op] += 1
        outcome = "cancelled"
        try:
            answer = await call
            outcome = answer.verdict.value
        finally:
            self._in_flight[op] -= 1
            self._metrics.platform.note((op, outcome), (op,), time.perf_counter() - began)
        return answer
