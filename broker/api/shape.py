"""Bindings as order systems see them, and what became of a bind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson

from broker.api.context import Heard, Services
from broker.clock import boottime
from broker.domain.ids import parse_public_id, public_id
from broker.domain.options import DEFAULT, CallOptions
from broker.domain.party import Kind, kind_of
from broker.domain.phone import PhoneNumber
from broker.domain.shadow import predicted
from broker.errors import Problem, Unavailable
from broker.flows.bind import Accepted, problem_of
from broker.flows.calls import Active, Failed, Released
from broker.flows.order import BindOrder
from broker.store.bindings import Binding
from broker.store.registry import Pool, Registry

_LOOK_S = 0.05
_NO_OPTIONS: Final[dict[str, Any]] = dict.fromkeys(
    ("recording", "max_call_minutes", "last_minute_tone", "sms", "tones", "display", "peer_ttl_s")
)
_DIALS: Final = {"both": frozenset("ab"), "a_to_b": frozenset("a"), "b_to_a": frozenset("b")}


@dataclass(frozen=True, slots=True)
class Bound:
    """A bind that was accepted: 201 once it is confirmed (or ended), 202 before."""

    status: int
    binding_id: str
    body: dict[str, Any]
    etag: str


def bound(order: BindOrder, accepted: Accepted, registry: Registry) -> Bound:
    """Return what is told of a bind.

    Raises:
        Problem: it failed; ``extra`` names the binding.
    """
    binding_id = public_id(accepted.pool_id, accepted.binding_id)
    if isinstance(accepted.outcome, Failed):
        raise _failed(accepted.outcome, binding_id)
    body = _created(binding_id, order, accepted, registry)
    return Bound(202 if body["state"] == "pending" else 201, binding_id, body, f'"1.{body["state"]}"')


async def told(order: BindOrder, accepted: Accepted, services: Services, heard: Heard) -> Bound:
    """Return what is told of a bind; one that shares a line waits for whoever binds that.

    Raises:
        Problem: it failed.
    """
    if not accepted.shared or accepted.outcome is not None or heard.respond_async:
        return bound(order, accepted, services.registry())
    made = await bound_before(services, heard, (accepted.pool_id, accepted.binding_id))
    if order.explain:
        made.body["explanation"] = accepted.explanation
    return made


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
    if binding.state == "failed" or is_withdrawn(binding):
        raise _failed(Failed(binding.reason or "platform_refused"), binding_id)
    body = shape(binding, services.registry())
    return Bound(202 if binding.state == "pending" else 201, binding_id, body, etag(binding))


def is_withdrawn(binding: Binding) -> bool:
    """Tell of a binding that was ended before it was confirmed because its client had gone, or is being ended so."""
    return binding.state in {"releasing", "released"} and binding.reason == "withdrawn"


async def check_kept(services: Services, location: str | None) -> None:
    """See that the binding of a kept 202 has not been withdrawn since.

    Raises:
        Conflict: it has.
    """
    row = parse_public_id((location or "").rpartition("/")[2])
    binding = await services.show.submit(row) if row is not None else None
    if binding is not None and is_withdrawn(binding):
        raise _failed(Failed("withdrawn"), public_id(binding.pool_id, binding.id))


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
        extension=accepted.extension if active else None,
        a=order.a,
        b=order.b,
        direction=order.direction,
        order_id=order.order_id,
        user_data=order.user_data,
        metadata=order.metadata,
        ttl_s=order.ttl_s,
        created_at=accepted.created_at,
        expires_at=active.confirmed_at + timedelta(seconds=order.ttl_s) if active and order.ttl_s else None,
        ended_at=released.at if released else None,
        subscription_id=active.subscription_id if active else None,
        line_id=accepted.line_id,
        shared=accepted.shared,
        options=order.options,
        callback=order.callback,
    ) | ({"explanation": accepted.explanation} if order.explain else {})


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
        extension=None if pending else binding.extension,
        a=binding.a,
        b=binding.b,
        direction=binding.direction,
        order_id=binding.order_id,
        user_data=binding.user_data,
        metadata=binding.metadata,
        ttl_s=binding.ttl_s,
        created_at=binding.created_at,
        expires_at=binding.expires_at,
        ended_at=binding.ended_at,
        subscription_id=binding.subscription_id,
        line_id=binding.line_id,
        shared=binding.shared,
        options=binding.options,
        callback=binding.callback,
        callee=_callee(binding),
        gap_ms=binding.gap_ms,
        pending_change=_pending(binding),
        change_failed=binding.change_failed,
    )


def etag(binding: Binding) -> str:
    """Return the entity tag: another one after every change of the binding, by whomever, and of its state."""
    return f'"{binding.version}.{binding.state}"'


def _pending(binding: Binding) -> dict[str, Any] | None:
    """Return what a change under way wants; a renewal, which changes nothing that anybody sees, is none."""
    change = binding.pending
    if change is None:
        return {"rebind": True} if binding.moving else None
    wanted: dict[str, Any] = {}
    for role, party in (("a", change.a), ("b", change.b)):
        if party is not None:
            wanted[role] = str(party)
    if change.callback is not None or change.no_callback:
        wanted["callback"] = str(change.callback) if change.callback is not None else None
    if change.callee is not None:
        wanted["callee"] = str(change.callee.number)
    if change.direction is not None:
        wanted["direction"] = change.direction
    if change.options is not None:
        now, then = _options(binding.options), _options(change.options)
        wanted.update({name: value for name, value in then.items() if value != now[name]})
    return wanted or None


def _options(options: CallOptions) -> dict[str, Any]:
    tones = options.caller_tone is not None or options.callee_tone is not None
    return {
        "recording": {"enabled": True, "hint_tone": options.hint_tone} if options.recording else None,
        "max_call_minutes": options.max_call_minutes,
        "last_minute_tone": options.last_minute_tone,
        "sms": options.sms,
        "tones": {"caller": options.caller_tone, "callee": options.callee_tone} if tones else None,
        "display": options.display,
        "peer_ttl_s": options.peer_ttl_s,
    }


def _callback(number: PhoneNumber | None, options: CallOptions) -> dict[str, Any] | None:
    if number is None and options.callback_tone is None and options.callback_ttl_s is None:
        return None
    masked = str(number) if number is not None else None
    return {"number": masked, "tone": options.callback_tone, "ttl_s": options.callback_ttl_s}


def _callee(binding: Binding) -> dict[str, Any] | None:
    if binding.callee is None:
        return None
    return {
        "callee": str(binding.callee),
        "expires_at": binding.callee_until,
        "user_data": binding.callee_user_data,
    }


def _warnings(a: PhoneNumber, b: PhoneNumber | None, direction: str) -> list[dict[str, str]]:
    """Return what is allowed and will not do: a landline that is to dial X (contract 11)."""
    return [
        {"code": "landline_cannot_dial", "pointer": f"/{role}", "detail": "a landline can be called, but cannot dial X"}
        for role, party in (("a", a), ("b", b))
        if party is not None and role in _DIALS[direction] and kind_of(party) is Kind.LANDLINE
    ]


def _fields(
    *,
    binding_id: str,
    pool: Pool,
    state: str,
    reason: str | None,
    x: str | None,
    extension: int | None,
    a: PhoneNumber,
    b: PhoneNumber | None,
    direction: str,
    order_id: str | None,
    user_data: str | None,
    metadata: str | None,
    ttl_s: int,
    created_at: datetime,
    expires_at: datetime | None,
    ended_at: datetime | None,
    subscription_id: str | None,
    line_id: UUID,
    shared: bool,
    options: CallOptions,
    callback: PhoneNumber | None,
    callee: dict[str, Any] | None = None,
    gap_ms: int | None = None,
    pending_change: dict[str, Any] | None = None,
    change_failed: str | None = None,
) -> dict[str, Any]:
    # Before there is an id, it is what the app makes now.
    shadow = predicted(subscription_id) or (not subscription_id and pool.app.shadow)
    return {
        "id": binding_id,
        "mode": pool.app.mode,
        "state": state,
        "reason": reason,
        "x": x,
        "extension": f"{extension:0{pool.app.extension_digits}}" if extension else None,
        "y": None,
        "a": str(a),
        "b": str(b) if b is not None else None,
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
        "platform_binding_id": None if shadow else subscription_id,
        "shadow": shadow,
        "line": line_id.hex,
        "shared": shared,
        **(_NO_OPTIONS if options == DEFAULT else _options(options)),
        "callback": _callback(callback, options),
        "callee": callee,
        "gap_ms": gap_ms,
        "warnings": _warnings(a, b, direction),
        "pending_change": pending_change,
        "change_failed": change_failed,
    }
