"""Bind an order: allocate, commit, hand the platform call over, wait for its outcome."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from broker.clock import boottime
from broker.crashpoints import crashpoint
from broker.errors import PlatformRefused, PlatformRejected, PoolExhausted, Problem, Unavailable
from broker.flows.allocate import Allocator
from broker.flows.calls import Dispatch, Failed, PlatformCall, Settled
from broker.flows.order import Allocated, BindOrder
from broker.store.calls import CallKey


@dataclass(frozen=True, slots=True)
class Accepted:
    """A committed binding. ``outcome`` is None while the platform has not confirmed within the time given."""

    pool_id: int
    binding_id: UUID
    created_at: datetime
    outcome: Settled | None


async def bind(
    order: BindOrder, allocator: Allocator, dispatch: Dispatch, *, lease_s: float, deadline: float, wait: bool
) -> Accepted:
    """Give the order an X and make the platform agree.

    ``deadline`` is on :func:`broker.clock.boottime`. From the moment the claim is committed nothing is lost: if this
    process dies, another one finishes the call.

    Raises:
        PoolExhausted, Unavailable: nothing was accepted.
    """
    if dispatch.backlog_s(order.app.id) == float("inf"):
        raise PlatformRefused(
            "The platform has refused this app's secret; nothing is sent until an operator corrects it.",
            code="platform_refused",
        )
    allocated = await allocator.allocate(order, within_s=max(deadline - boottime(), 0.05))
    crashpoint("after_commit")
    call = _call(order, allocated, lease_s=lease_s, deadline=deadline)
    # Holding the connection is useless when the lane's queue is longer than the request's time.
    wait = wait and not dispatch.leaving and dispatch.backlog_s(order.app.id) < deadline - boottime()
    if wait:
        call.done = asyncio.get_running_loop().create_future()
    dispatch.start(call)
    outcome = await settled(call.done, deadline=deadline)
    return Accepted(allocated.claim.pool_id, allocated.claim.binding_id, allocated.created_at, outcome)


async def settled(done: asyncio.Future[Settled | None] | None, *, deadline: float) -> Settled | None:
    """Wait for the outcome until ``deadline`` (boottime); None = not yet, or nobody is to wait any longer."""
    if done is None:
        return None
    # One timer beside the future: a third of what asyncio.wait costs, and every bind comes through here.
    timer = asyncio.get_running_loop().call_later(max(deadline - boottime(), 0.0), let_go, done)
    try:
        return await done
    finally:
        timer.cancel()


def let_go(done: asyncio.Future[Settled | None]) -> None:
    """Have whoever waits go on without an outcome."""
    if not done.done():
        done.set_result(None)


def problem_of(failed: Failed) -> Problem:
    """Return what an order system is told about a bind that failed."""
    platform = {key: value for key, value in (("platform_code", failed.code), ("platform_http", failed.http)) if value}
    match failed.reason:
        case "platform_rejected_request":
            return PlatformRejected(
                failed.detail or "The platform did not accept the numbers or options.", extra=platform
            )
        case "app_suspended":
            return Unavailable(
                "The platform has suspended this app.", code="app_suspended", retry_after_s=60, extra=platform
            )
        case "pool_exhausted":
            return PoolExhausted(
                "The platform refused the chosen X and no other may be given to this pair now.",
                extra={"reasons": {"refused_by_platform": 1}},
            )
        case reason:
            return PlatformRefused(
                failed.detail
                or "The platform refused the call because of how this app is set up; an operator must act.",
                extra={**platform, "reason": reason},
            )


def _call(order: BindOrder, allocated: Allocated, *, lease_s: float, deadline: float) -> PlatformCall:
    claim = allocated.claim
    return PlatformCall(
        key=CallKey(claim.pool_id, claim.line_id, 1, 1),
        op="bind",
        app_id=claim.app_id,
        x_id=claim.x_id,
        x=allocated.x,
        a=order.a,
        b=order.b,
        a_key=claim.a_key,
        b_key=claim.b_key,
        direction=claim.direction,
        ttl_s=claim.ttl_s,
        lease_until=allocated.asked_at + lease_s,
        urgency=deadline,
    )
