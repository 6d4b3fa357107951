"""Any platform with its calls counted: how many, how they ended, how long they took."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable

from broker.metrics import Metrics
from broker.platform.protocol import Answer, BindLine, BindPeer, ModifyLine, Permit, Platform


class Measured:
    """Implements ``Platform`` by another one. ``in_flight`` counts by operation and may be shared by many."""

    def __init__(self, platform: Platform, metrics: Metrics, in_flight: Counter[str]) -> None:
        self._platform = platform
        self._metrics = metrics
        self._in_flight = in_flight

    async def bind(self, request: BindLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Create a binding."""
        return await self._measure("bind", self._platform.bind(request, permit=permit, timeout_s=timeout_s))

    async def modify(self, request: ModifyLine, *, permit: Permit, timeout_s: float) -> Answer:
        """Change a binding."""
        return await self._measure("modify", self._platform.modify(request, permit=permit, timeout_s=timeout_s))

    async def unbind(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """End a binding."""
        return await self._measure("unbind", self._platform.unbind(subscription_id, permit=permit, timeout_s=timeout_s))

    async def query(
        self,
        *,
        x: str,
        a: str = "",
        b: str = "",
        extension: str = "",
        page: int = 1,
        permit: Permit,
        timeout_s: float,
    ) -> Answer:
        """List bindings on an X."""
        asked = self._platform.query(x=x, a=a, b=b, extension=extension, page=page, permit=permit, timeout_s=timeout_s)
        return await self._measure("query", asked)

    async def lookup(self, subscription_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """List one binding."""
        return await self._measure("query", self._platform.lookup(subscription_id, permit=permit, timeout_s=timeout_s))

    async def set_callee(
        self, subscription_id: str, *, callee: str, ttl_s: int, token: str, permit: Permit, timeout_s: float
    ) -> Answer:
        """Set a temporary callee."""
        asked = self._platform.set_callee(
            subscription_id, callee=callee, ttl_s=ttl_s, token=token, permit=permit, timeout_s=timeout_s
        )
        return await self._measure("callee", asked)

    async def bind_peer(self, request: BindPeer, *, permit: Permit, timeout_s: float) -> Answer:
        """Give a B a Y."""
        return await self._measure("bind_peer", self._platform.bind_peer(request, permit=permit, timeout_s=timeout_s))

    async def unbind_peer(self, subscription_id: str, *, y: str, permit: Permit, timeout_s: float) -> Answer:
        """Take a Y away."""
        asked = self._platform.unbind_peer(subscription_id, y=y, permit=permit, timeout_s=timeout_s)
        return await self._measure("unbind_peer", asked)

    async def stop_call(self, session_id: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Hang a call up."""
        return await self._measure("stop", self._platform.stop_call(session_id, permit=permit, timeout_s=timeout_s))

    async def recording(self, file_name: str, domain: str, *, permit: Permit, timeout_s: float) -> Answer:
        """Ask for a recording's address."""
        asked = self._platform.recording(file_name, domain, permit=permit, timeout_s=timeout_s)
        return await self._measure("recording", asked)

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
