"""Bindings as order systems see them, and what became of a bind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from broker.api.context import Heard, Services
from broker.clock import boottime
from broker.domain.ids import public_id
from broker.errors import Problem, Unavailable
from broker.flows.bind import Accepted, problem_of
from broker.flows.calls import Active, Failed, Released
from broker.flows.order import BindOrder
from broker.store.bindings import Binding
from broker.store.registry import Pool, Registry

_LOOK_S = 0.05


@dataclass(frozen=True, slots=True)
class Bound:
    """A bind that was accepted: 201 once it is confirmed (or ended), 202 before."""

    status: int
    binding_id: str
    body: dict[str, Any]


def bound(order: BindOrder, accepted: Accepted, registry: Registry) -> Bound:
    """Return what is told of a bind.

    Raises:
        Problem: it failed; ``extra`` names the binding.
    """
    binding_id = public_id(accepted.pool_id, accepted.binding_id)
    if isinstance(accepted.outcome, Failed):
        raise _failed(accepted.outcome, binding_id)
    body = _created(binding_id, order, accepted, registry)
    return Bound(202 if body["state"] == "pending" else 201, binding_id, body)


async def bound_before(services: Services, heard: Heard, row: tuple[int, UUID]) -> Bound:
    """Return what is told of a bind whose first try made a binding and died before it could answer.

    Raises:
        Problem: it failed, or cannot be read.
    """
    binding = await services.show.submit(row)
    while (
        binding is not None and binding.state == "pending" and not heard.respond_async and boottime() < heard.deadline
    ):
        await asyncio.sleep(_LOOK_S)
        binding = await services.show.submit(row)
    if binding is None:
        raise Unavailable("The binding of an earlier try cannot be read.", code="unavailable")
    binding_id = public_id(*row)
    if binding.state == "failed":
        raise _failed(Failed(binding.reason or "platform_refused"), binding_id)
    return Bound(202 if binding.state == "pending" else 201, binding_id, shape(binding, services.registry()))


def _failed(outcome: Failed, binding_id: str) -> Problem:
    problem = problem_of(outcome)
    problem.extra["binding"] = binding_id
    return problem


def _created(binding_id: str, order: BindOrder, accepted: Accepted, registry: Registry) -> dict[str, Any]:
    pool = _pool_of(registry, accepted.pool_id)
    active = accepted.outcome if isinstance(accepted.outcome, Active) else None
    released = accepted.outcome if isinstance(accepted.outcome, Released) else None
    state = "active" if active else "released" if released else "pending"
    return _fields(
        binding_id=binding_id,
        pool=pool,
        state=state,
        reason="released" if released else None,
        x=active.x if active else None,
        a=str(order.a),
        b=str(order.b),
        direction=order.direction,
        order_id=order.order_id,
        user_data=order.user_data,
        metadata=order.metadata,
        ttl_s=order.ttl_s,
        created_at=accepted.created_at,
        expires_at=active.expires_at if active else None,
        ended_at=released.at if released else None,
        subscription_id=active.subscription_id if active else None,
    )


def _pool_of(registry: Registry, pool_id: int) -> Pool:
    pool = registry.pools.get(pool_id)
    if pool is None:
        # Made a moment ago, and bound to through a process that has taken the newer configuration in already.
        raise Unavailable("The configuration is being reloaded.", code="unavailable", retry_after_s=1)
    return pool


def shape(binding: Binding, registry: Registry) -> dict[str, Any]:
    """Return a binding's members, phones masked."""
    pending = binding.state == "pending"
    return _fields(
        binding_id=public_id(binding.pool_id, binding.id),
        pool=_pool_of(registry, binding.pool_id),
        state=binding.state,
        reason=binding.reason,
        x=None if pending else binding.x,
        a=str(binding.a),
        b=str(binding.b),
        direction=binding.direction,
        order_id=binding.order_id,
        user_data=binding.user_data,
        metadata=binding.metadata,
        ttl_s=binding.ttl_s,
        created_at=binding.created_at,
        expires_at=binding.expires_at,
        ended_at=binding.ended_at,
        subscription_id=binding.subscription_id,
    )


def _fields(
    *,
    binding_id: str,
    pool: Pool,
    state: str,
    reason: str | None,
    x: str | None,
    a: str,
    b: str,
    direction: str,
    order_id: str | None,
    user_data: str | None,
    metadata: str | None,
    ttl_s: int,
    created_at: datetime,
    expires_at: datetime | None,
    ended_at: datetime | None,
    subscription_id: str | None,
) -> dict[str, Any]:
    return {
        "id": binding_id,
        "mode": pool.app.mode,
        "state": state,
        "reason": reason,
        "x": x,
        "extension": None,
        "y": None,
        "a": a,
        "b": b,
        "direction": direction,
        "pool": pool.name,
        "area_code": pool.area_code,
        "order_id": order_id,
        "user_data": user_data,
        "metadata": orjson.Fragment(metadata) if metadata is not None else None,
        "ttl_s": ttl_s,
        "expires_at": expires_at,
        "created_at": created_at,
        "ended_at": ended_at,
        "platform_binding_id": subscription_id,
    }
