"""``/v1/bindings``: bind, show, release."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web

from broker.api import parse
from broker.api.context import Heard, Reply, Services
from broker.api.reply import pack
from broker.clock import boottime
from broker.domain.choice import Policy
from broker.domain.ids import parse_public_id, public_id
from broker.domain.phone import PhoneNumber
from broker.errors import FieldError, Invalid, NotFound, PoolExhausted, Unavailable
from broker.flows.bind import Accepted, bind, problem_of
from broker.flows.calls import Active, Failed, Released
from broker.flows.order import BindOrder
from broker.flows.release import release
from broker.store.bindings import Binding
from broker.store.registry import App, Pool, Registry

_LOOK_S = 0.05


async def create(_request: web.Request, services: Services, heard: Heard) -> Reply:
    """``POST /v1/bindings``."""
    if heard.made is not None:
        return await _made_before(services, heard, heard.made)
    asked = parse.bind_request(heard.body)
    order = _order(asked, services, heard)
    accepted = await bind(
        order,
        services.allocator,
        services.dispatch,
        lease_s=services.limits.lease_s,
        deadline=heard.deadline,
        wait=not heard.respond_async,
    )
    binding_id = public_id(accepted.pool_id, accepted.binding_id)
    heard.notes["binding"] = binding_id
    if isinstance(accepted.outcome, Failed):
        problem = problem_of(accepted.outcome)
        problem.extra["binding"] = binding_id
        raise problem
    return _created(binding_id, order, accepted, services.registry())


async def show(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``GET /v1/bindings/{id}``."""
    binding = await _read(request, services, heard)
    return Reply(200, pack(_shape(binding, services.registry())))


async def delete(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``DELETE /v1/bindings/{id}``."""
    binding = await _read(request, services, heard)
    row = (binding.pool_id, binding.id)

    async def read_again() -> Binding:
        return await services.show.submit(row) or binding

    binding = await release(
        binding,
        begin=services.begin_release.submit,
        read=read_again,
        dispatch=services.dispatch,
        lease_s=services.limits.lease_s,
        deadline=heard.deadline,
        wait=not heard.respond_async,
    )
    over = binding.state in {"released", "failed"}
    return Reply(200 if over else 202, pack(_shape(binding, services.registry())))


async def _read(request: web.Request, services: Services, heard: Heard) -> Binding:
    row = parse_public_id(request.match_info["id"])
    binding = await services.show.submit(row) if row is not None else None
    # Another app's binding looks exactly like none.
    if binding is None or binding.app_id != heard.key.app.id:
        raise NotFound("There is no such binding.", code="binding_not_found")
    heard.notes["binding"] = request.match_info["id"]
    return binding


async def _made_before(services: Services, heard: Heard, row: tuple[int, UUID]) -> Reply:
    """A repeat whose first try made a binding and died before it could answer."""
    binding = await services.show.submit(row)
    while (
        binding is not None and binding.state == "pending" and not heard.respond_async and boottime() < heard.deadline
    ):
        await asyncio.sleep(_LOOK_S)
        binding = await services.show.submit(row)
    if binding is None:
        raise Unavailable("The binding of an earlier try cannot be read.", code="unavailable")
    binding_id = public_id(*row)
    heard.notes["binding"] = binding_id
    if binding.state == "failed":
        problem = problem_of(Failed(binding.reason or "platform_refused"))
        problem.extra["binding"] = binding_id
        raise problem
    status = 202 if binding.state == "pending" else 201
    return Reply(status, pack(_shape(binding, services.registry())), location=f"/v1/bindings/{binding_id}")


def _order(found: parse.Asked, services: Services, heard: Heard) -> BindOrder:
    asked, app = found.request, heard.key.app
    if app.suspended is not None:
        raise Unavailable("This app is suspended.", code="app_suspended", retry_after_s=60)
    registry = services.registry()
    errors = list(found.errors)
    parties: dict[str, PhoneNumber | None] = {"/a": asked.a, "/b": asked.b}  # None: it is among the errors
    if parties["/a"] is not None and parties["/a"] == parties["/b"]:
        errors.append(FieldError("/b", "must differ from a"))
    errors.extend(
        FieldError(pointer, "is one of our X numbers; a party must be a real phone")
        for pointer, party in parties.items()
        if party is not None and party.reveal() in registry.our_numbers
    )
    pools = _pools(asked, app, registry, errors)
    if errors:
        raise Invalid("Some fields are wrong; see errors.", errors=tuple(errors))
    if not pools:
        raise PoolExhausted("No pool of this app is open.", extra={"reasons": {"not_open": 0}, "pools": []})
    return BindOrder(
        app=app,
        caller_id=heard.key.caller_id,
        a=asked.a,
        b=asked.b,
        a_key=services.vault.party_key(asked.a.reveal()),
        b_key=services.vault.party_key(asked.b.reveal()),
        pools=pools,
        ttl_s=app.default_ttl_s if asked.ttl_s is None else asked.ttl_s,
        direction=asked.direction,
        policy=app.policy if asked.policy is None else Policy(asked.policy),
        order_id=asked.order_id,
        user_data=asked.user_data,
        metadata=orjson.dumps(asked.metadata).decode() if asked.metadata is not None else None,
        key_hash=heard.key_hash,
        key_token=heard.key_token,
    )


def _pools(asked: parse.BindRequest, app: App, registry: Registry, errors: list[FieldError]) -> tuple[Pool, ...]:
    """Return the pools to try, in order; add what is wrong with the request's choice to ``errors``."""
    named = [name for name in ("pool", "area_code", "areas") if getattr(asked, name) is not None]
    if len(named) > 1:
        errors.extend(FieldError(f"/{name}", "give at most one of pool, area_code, areas") for name in named)
        return ()
    ours = registry.app_pools.get(app.id, ())
    if asked.pool is not None:
        found = tuple(pool for pool in ours if pool.name == asked.pool)
        if not found:
            errors.append(FieldError("/pool", "is not a pool of this app"))
        return found
    areas = [asked.area_code] if asked.area_code is not None else asked.areas
    if areas is None:
        return tuple(pool for pool in ours if pool.open)
    chosen: list[Pool] = []
    for place, area in enumerate(areas):
        there = [pool for pool in ours if pool.area_code == area]
        if not there:
            pointer = "/area_code" if asked.area_code is not None else f"/areas/{place}"
            errors.append(FieldError(pointer, "no pool of this app has this area code"))
        chosen.extend(pool for pool in there if pool not in chosen)
    return tuple(chosen)


def _created(binding_id: str, order: BindOrder, accepted: Accepted, registry: Registry) -> Reply:
    pool = _pool_of(registry, accepted.pool_id)
    active = accepted.outcome if isinstance(accepted.outcome, Active) else None
    released = accepted.outcome if isinstance(accepted.outcome, Released) else None
    state = "active" if active else "released" if released else "pending"
    body = _fields(
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
    return Reply(202 if state == "pending" else 201, pack(body), location=f"/v1/bindings/{binding_id}")


def _pool_of(registry: Registry, pool_id: int) -> Pool:
    pool = registry.pools.get(pool_id)
    if pool is None:
        # Made a moment ago, and bound to through a process that has taken the newer configuration in already.
        raise Unavailable("The configuration is being reloaded.", code="unavailable", retry_after_s=1)
    return pool


def _shape(binding: Binding, registry: Registry) -> dict[str, Any]:
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
