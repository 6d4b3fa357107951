"""Bind an order: allocate, commit, hand the platform call over, wait for its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from broker.alarms import alarm_at
from broker.clock import boottime
from broker.crashpoints import crashpoint
from broker.domain.ids import local_subscription
from broker.errors import Conflict, PlatformRefused, PlatformRejected, PoolExhausted, Problem, Unavailable
from broker.flows.allocators import Claims
from broker.flows.calls import Active, Dispatch, Failed, PlatformCall, Settled
from broker.flows.inwork import aside
from broker.flows.order import Allocated, BindOrder
from broker.store.calls import CallKey
from broker.store.registry import App

#: Platform calls that one process holds, at most.
MOST_CALLS = 30_000


@dataclass(frozen=True, slots=True)
class Accepted:
    """A committed binding. ``outcome`` is None while the platform has not confirmed within the time given.

    ``shared``: it has joined a line. ``explanation`` tells why this X, if the order asked.
    """

    pool_id: int
    binding_id: UUID
    created_at: datetime
    outcome: Settled | None
    line_id: UUID
    shared: bool = False
    explanation: Mapping[str, Any] | None = None
    extension: int | None = None


async def bind(
    order: BindOrder, allocator: Claims, dispatch: Dispatch, *, lease_s: float, deadline: float, wait: bool
) -> Accepted:
    """Give the order an X and make the platform agree.

    ``deadline`` is on :func:`broker.clock.boottime`. From the moment the claim is committed nothing is lost: if this
    process dies, another one finishes the call.

    Raises:
        PoolExhausted, Unavailable: nothing was accepted.
    """
    check_lane(order.app, dispatch)
    allocated = await allocator.allocate(order, within_s=max(deadline - boottime(), 0.05))
    call = _hand_over(order, allocated, dispatch, lease_s=lease_s, deadline=deadline, wait=wait)
    return _accepted(allocated, await settled(call.done if call is not None else None, deadline=deadline))


async def bind_many(
    orders: Sequence[BindOrder],
    allocator: Claims,
    dispatch: Dispatch,
    *,
    lease_s: float,
    deadline: float,
    wait: bool,
) -> list[Accepted | BaseException]:
    """Bind every order as :func:`bind` does, all at once: for each what was accepted, or why nothing was.

    Orders are queued in one turn of the loop, so they share the allocator's batches, and none has a task of its own.
    An order's call begins with its own commit: one that waits for a contended party holds nobody up.
    """
    if not orders:
        return []
    calls: list[PlatformCall | None] = [None] * len(orders)
    results: list[Allocated | BaseException | None] = [None] * len(orders)
    claimed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = len(orders)

    def tell(place: int, result: Allocated | BaseException) -> bool:
        nonlocal left
        if claimed.done():
            return False
        results[place] = result
        if isinstance(result, Allocated):
            try:
                calls[place] = _hand_over(
                    orders[place], result, dispatch, lease_s=lease_s, deadline=deadline, wait=wait
                )
            except Exception as error:  # noqa: BLE001 - its call is rescued; the allocator's other items go on
                results[place] = error
        left -= 1
        if not left:
            claimed.set_result(None)
        return True

    for place, order in enumerate(orders):
        try:
            check_lane(order.app, dispatch)
            within_s = max(deadline - boottime(), 0.05)
            allocator.enqueue(order, partial(tell, place), within_s=within_s, gone=claimed.done)
        except Problem as problem:
            tell(place, problem)
    await claimed
    outcomes = await _all_settled([call.done if call is not None else None for call in calls], deadline=deadline)
    return [
        _accepted(result, outcome) if isinstance(result, Allocated) else result or Problem()
        for result, outcome in zip(results, outcomes, strict=True)
    ]


def check_lane(app: App, dispatch: Dispatch) -> None:
    """Refuse what would end with a platform call that cannot be sent.

    Raises:
        Unavailable, PlatformRefused: too many calls wait, the app is suspended, or nothing may be sent for it.
    """
    if app.suspended is not None:
        raise Unavailable("This app is suspended.", code="app_suspended", retry_after_s=60)
    if dispatch.running >= MOST_CALLS:
        raise Unavailable("too many platform calls are waiting", code="overloaded", retry_after_s=5)
    if dispatch.backlog_s(app.id) == float("inf"):
        raise PlatformRefused(
            "The platform has refused this app's secret; nothing is sent until an operator corrects it.",
            code="platform_refused",
        )


def check_gate(app: App) -> None:
    """Refuse to give out an X from books that come from a backup and have not been compared with the platform.

    Raises:
        Unavailable: the audit has not come to its end.
    """
    if app.gated:
        raise Unavailable("The books are being compared with the platform first.", code="audit_first", retry_after_s=10)


def _hand_over(
    order: BindOrder, allocated: Allocated, dispatch: Dispatch, *, lease_s: float, deadline: float, wait: bool
) -> PlatformCall | None:
    """Begin the platform call of a committed claim; somebody waits for its outcome if ``done`` is set.

    None: the line was there already, and whoever made it sends its bind; or there is nothing to send.
    """
    if allocated.joined is not None or allocated.at_once:
        return None
    crashpoint("after_commit")
    call = _call(order, allocated, lease_s=lease_s, deadline=deadline)
    # Holding the connection is useless when the lane's queue is longer than the request's time.
    if wait and not dispatch.leaving and dispatch.backlog_s(order.app.id, order.caller_id) < deadline - boottime():
        call.done = asyncio.get_running_loop().create_future()
    dispatch.start(call)
    return call


def _accepted(allocated: Allocated, outcome: Settled | None) -> Accepted:
    joined = allocated.joined
    if joined is not None and joined.state == "active":
        # The line is confirmed: the binding's time begins now.
        outcome = Active(allocated.x, joined.subscription_id or "", joined.created_at)
    elif allocated.at_once:
        outcome = Active(allocated.x, local_subscription(allocated.line_id), allocated.created_at)
    return Accepted(
        allocated.pool.id, allocated.binding_id, allocated.created_at, outcome, allocated.line_id, joined is not None,
        allocated.explanation, allocated.extension,
    )  # fmt: skip


async def _all_settled(
    waiting: Sequence[asyncio.Future[Settled | None] | None], *, deadline: float
) -> list[Settled | None]:
    """Wait for all outcomes with one timer."""
    wanted = [done for done in waiting if done is not None]
    if not wanted:
        return [None] * len(waiting)

    def let_all_go() -> None:
        for done in wanted:
            let_go(done)

    timer = asyncio.get_running_loop().call_later(max(deadline - boottime(), 0.0), let_all_go)
    try:
        with aside():
            await asyncio.gather(*wanted)
    finally:
        timer.cancel()
    return [done.result() if done is not None else None for done in waiting]


async def settled(done: asyncio.Future[Settled | None] | None, *, deadline: float) -> Settled | None:
    """Wait for the outcome until ``deadline`` (boottime); None = not yet, or nobody is to wait any longer."""
    if done is None:
        return None
    # An alarm beside the future: a tenth of what asyncio.wait costs, and every bind comes through here.
    until = asyncio.get_running_loop().time() + max(deadline - boottime(), 0.0)
    alarm = alarm_at(until, partial(let_go, done))
    try:
        with aside():
            return await done
    finally:
        alarm.cancel()


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
        case "party_limit":
            return Conflict("A has as many X numbers as it may have.", code="party_limit", extra=platform)
        case "outcome_unknown":
            return PlatformRefused(
                "The platform did not say what became of the bind, and nothing of it was found.",
                code="outcome_unknown",
                extra=platform,
            )
        case "withdrawn":
            return Conflict("The binding was withdrawn before the platform had confirmed it.", code="withdrawn")
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
    return PlatformCall(
        key=CallKey(allocated.pool.id, allocated.line_id, 1, 1),
        op="bind",
        app_id=order.app.id,
        caller_id=order.caller_id,
        x_id=allocated.x_id,
        x=allocated.x,
        extension=allocated.extension,
        a=order.a,
        b=order.b,
        a_key=order.a_key,
        b_key=order.b_key,
        direction=order.direction,
        ttl_s=order.line_ttl_s,
        options=order.options,
        callback=order.callback,
        lease_until=allocated.asked_at + lease_s,
        urgency=deadline,
    )
