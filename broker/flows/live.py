"""Live bindings of callers and apps: an order of who is limited is counted before it is given an X.

The claim on the limit is committed first and names the binding that is to come, so bindings are never more than claims,
whoever dies in between. Claims are dropped when their binding is seen to have ended: whenever the limit seems reached,
and now and then. Who has no limit passes by.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

from broker.domain.ids import new_id
from broker.errors import Problem, RateLimited
from broker.flows.allocate import Tell
from broker.flows.allocators import Claims
from broker.flows.batching import Batcher
from broker.flows.order import Allocated, BindOrder
from broker.store.database import DatabaseAway
from broker.store.inbound import LiveClaim, LiveLimit
from broker.store.registry import Registry


class Counted:
    """Claims for orders whose limits allow it."""

    def __init__(
        self,
        inner: Claims,
        registry: Callable[[], Registry],
        claim: Batcher[LiveClaim, LiveLimit | None],
        drop: Batcher[LiveClaim, None],
    ) -> None:
        """``claim`` and ``drop`` ask the database; ``registry()`` returns the newest configuration."""
        self._inner = inner
        self._registry = registry
        self._claim = claim
        self._drop = drop
        self._tasks: set[asyncio.Task[None]] = set()

    async def allocate(self, order: BindOrder, *, within_s: float) -> Allocated:
        """As the inner allocator does.

        Raises:
            RateLimited: the caller or its app has as many live bindings as it may have.
        """
        limits = self._limits(order)
        if not limits:
            return await self._inner.allocate(order, within_s=within_s)
        order, claim = _counted(order, limits)
        _check(await self._claim.submit(claim))
        try:
            return await self._inner.allocate(order, within_s=within_s)
        except DatabaseAway:
            raise  # it may have been committed: the claim is looked after
        except Problem:
            with contextlib.suppress(Problem):  # else it is dropped later, when no binding is found
                await self._drop.submit(claim)
            raise

    def enqueue(self, order: BindOrder, tell: Tell, *, within_s: float, gone: Callable[[], bool]) -> None:
        """As the inner allocator does."""
        limits = self._limits(order)
        if not limits:
            self._inner.enqueue(order, tell, within_s=within_s, gone=gone)
            return
        order, claim = _counted(order, limits)
        until = asyncio.get_running_loop().time() + within_s
        task = asyncio.create_task(self._serve(order, claim, tell, until, gone), name="counted")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def refusals(self, pool_id: int) -> dict[str, int]:
        """Return how often nothing was found in a pool, by the main reason."""
        return self._inner.refusals(pool_id)

    async def _serve(
        self, order: BindOrder, claim: LiveClaim, tell: Tell, until: float, gone: Callable[[], bool]
    ) -> None:
        def hear(result: Allocated | BaseException) -> bool:
            if isinstance(result, Problem) and not isinstance(result, DatabaseAway):
                self._take_back(claim, lambda: tell(result))
                return True
            return tell(result)

        try:
            _check(await self._claim.submit(claim))
        except Exception as error:  # noqa: BLE001 - whatever it is, who asked must hear of it
            tell(error)
            return
        try:
            within_s = max(until - asyncio.get_running_loop().time(), 0.0)
            self._inner.enqueue(order, hear, within_s=within_s, gone=gone)
        except Problem as problem:
            hear(problem)

    def _take_back(self, claim: LiveClaim, then: Callable[[], object]) -> None:
        def over(done: asyncio.Future[None]) -> None:
            done.cancelled() or done.exception()  # what fails here is dropped later, when no binding is found
            then()

        try:
            self._drop.enqueue(claim).add_done_callback(over)
        except Problem:
            then()

    def _limits(self, order: BindOrder) -> tuple[LiveLimit, ...]:
        whole, own = order.app.max_live_bindings, self._registry().most_live.get(order.caller_id)
        if whole is None and own is None:
            return ()
        limits = [LiveLimit("app", order.app.id, whole)] if whole is not None else []
        return (*limits, LiveLimit("caller", order.caller_id, own)) if own is not None else tuple(limits)


def _counted(order: BindOrder, limits: tuple[LiveLimit, ...]) -> tuple[BindOrder, LiveClaim]:
    binding_id = order.binding_id or new_id()
    claim = LiveClaim(binding_id, tuple(pool.id for pool in order.pools), limits)
    return replace(order, binding_id=binding_id), claim


def _check(refusing: LiveLimit | None) -> None:
    if refusing is not None:
        who = "This caller" if refusing.whose == "caller" else "This app"
        raise RateLimited(
            f"{who} has as many live bindings as it may have.", code="live_limit", retry_after_s=5,
            extra={"limit": refusing.most},
        )  # fmt: skip
