"""``/v1/bindings:batch``, ``/v1/bindings:batch-release`` and ``/v1/orders/{order_id}:release``: many at once.

Each item takes the path of a single request and has its own outcome; a bad one fails nobody else.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace
from typing import Any
from uuid import UUID

import structlog
from aiohttp import web

from broker.api import parse
from broker.api.bindings import OVER, end, seen
from broker.api.context import Heard, Reply, Services
from broker.api.limited import charged
from broker.api.ordering import order_of
from broker.api.reply import pack, problem_body
from broker.api.shape import Bound, bound_before, shape, told
from broker.domain.ids import parse_public_id
from broker.errors import Conflict, FieldError, Invalid, NotFound, Problem
from broker.flows.bind import bind_many
from broker.flows.order import BindOrder
from broker.store.bindings import Binding
from broker.store.idempotency import KeyAsk, KeyState

log = structlog.get_logger()

#: Bindings that one request releases by order at most.
_MOST_RELEASED = 2000

Outcome = Bound | BaseException


async def create(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``POST /v1/bindings:batch``."""
    items = parse.body_as(parse.BatchRequest, heard.body).items
    heard.work.holds(len(items))
    await charged(request, services, heard.key, len(items) - 1)
    asks = _item_keys(len(items), services, heard)
    states = await asyncio.gather(*(services.begin_key.enqueue(ask) for ask in asks))
    outcomes = await _made_before(states, services, heard)
    orders: dict[int, BindOrder] = {}
    for place, item in enumerate(items):
        if place in outcomes:
            continue
        try:
            order = order_of(parse.bind_item(item), services, heard.key)
        except Exception as error:  # noqa: BLE001 - it is the item's outcome
            outcomes[place] = error
        else:
            orders[place] = _keyed(order, asks[place], states[place]) if asks else order
    results = await bind_many(
        list(orders.values()),
        services.allocator,
        services.dispatch,
        lease_s=services.limits.lease_s,
        deadline=heard.deadline,
        wait=not heard.respond_async,
    )
    for (place, order), result in zip(orders.items(), results, strict=True):
        try:
            outcomes[place] = (
                result if isinstance(result, BaseException) else await told(order, result, services, heard)
            )
        except Problem as problem:
            outcomes[place] = problem
    again = [place for place, outcome in outcomes.items() if _worth_repeating(outcome)]
    if asks and again:
        await _forget([(asks[place], states[place].token) for place in again], services)
    heard.notes.update(items=len(items), accepted=sum(isinstance(outcome, Bound) for outcome in outcomes.values()))
    for outcome in outcomes.values():
        if isinstance(outcome, Problem):
            services.refused(heard.key.app, outcome.status, outcome.code)
    answered = [_bound_item(outcomes[place], heard) for place in range(len(items))]
    return Reply(200, pack({"items": answered}), keep=not again)


async def batch_release(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``POST /v1/bindings:batch-release``."""
    asked = parse.body_as(parse.BatchReleaseRequest, heard.body)
    items = len(asked.ids or asked.order_ids or [])
    heard.work.holds(items)
    await charged(request, services, heard.key, items - 1)
    if asked.ids is not None:
        found = await _by_id(asked.ids, services, heard)
    else:
        found = await _by_order(asked.order_ids or [], services, heard)
    outcomes = await _released(found, services, heard, grace_s=asked.grace_s)
    heard.notes.update(items=len(outcomes), released=sum(isinstance(outcome, Binding) for outcome in outcomes))
    again = any(_worth_repeating(outcome) for outcome in outcomes)
    told = [_released_item(outcome, services, heard) for outcome in outcomes]
    return Reply(200, pack({"items": told}), keep=not again)


async def release_order(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``POST /v1/orders/{order_id}:release``: 200 once nobody is behind any X of the order, else 202."""
    order_id = parse.checked(parse.ListRequest, {"order_id": request.match_info["order_id"]}).order_id or ""
    grace_s = parse.release_query(request).grace_s
    rows = await services.live_of_orders(heard.key.app.id, [order_id], _MOST_RELEASED)
    bindings = await _shown([(pool_id, row_id) for _, pool_id, row_id in rows], services)
    known = [seen(binding, heard) for binding in bindings if binding is not None]
    outcomes = await _released(known, services, heard, grace_s=grace_s)
    failed = next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None)
    if failed is not None:
        raise failed  # a repeat finds what is left
    ended = [outcome for outcome in outcomes if isinstance(outcome, Binding)]
    over = len(rows) < _MOST_RELEASED and all(binding.state in OVER for binding in ended)
    heard.notes["released"] = len(ended)
    items = [shape(binding, services.registry()) for binding in ended]
    return Reply(200 if over else 202, pack({"items": items}))


# -- the items of a batch of binds -------------------------------------------------------------------------------------


def _item_keys(count: int, services: Services, heard: Heard) -> list[KeyAsk]:
    """Return a record for each item, derived from the batch's: a repeat after a crash finds what each item made.

    The batch's own record lets one request work at a time, so an item's may be taken over at once.
    """
    ask = heard.key_ask
    if ask is None:
        return []
    hashed = services.vault.request_hash
    return [
        replace(ask, key_hash=hashed(b"item", ask.key_hash, b"%d" % place)[:16], busy_s=0.0) for place in range(count)
    ]


def _keyed(order: BindOrder, ask: KeyAsk, state: KeyState) -> BindOrder:
    return replace(order, key_hash=ask.key_hash, key_token=state.token)


async def _made_before(states: Sequence[KeyState], services: Services, heard: Heard) -> dict[int, Outcome]:
    """Return, by place, the outcomes of items that an earlier try of the batch has made already."""
    outcomes: dict[int, Outcome] = {}
    made: dict[int, tuple[int, UUID]] = {}
    for place, state in enumerate(states):
        if state.token is None:
            outcomes[place] = Conflict("This item is being carried out.", code="idempotency_in_progress")
        elif state.made is not None:
            made[place] = state.made
    found = await asyncio.gather(*(bound_before(services, heard, row) for row in made.values()), return_exceptions=True)
    outcomes.update(zip(made, found, strict=True))
    return outcomes


def _worth_repeating(outcome: object) -> bool:
    """Tell whether the same item may fare better next time: then the batch's answer is not kept for repeats."""
    if not isinstance(outcome, BaseException):
        return False
    if not isinstance(outcome, Problem):
        return True
    return outcome.status in {429, *range(500, 600)} or outcome.code == "idempotency_in_progress"


async def _forget(items: Sequence[tuple[KeyAsk, int | None]], services: Services) -> None:
    """Free the records of items that are to be tried again."""
    waiting = [services.forget_key.enqueue((ask, token)) for ask, token in items if token is not None]
    await asyncio.gather(*waiting, return_exceptions=True)


# -- releasing ---------------------------------------------------------------------------------------------------------


async def _by_id(ids: Sequence[Any], services: Services, heard: Heard) -> list[Binding | NotFound]:
    rows = [parse_public_id(one) if isinstance(one, str) else None for one in ids]
    shown = iter(await _shown([row for row in rows if row is not None], services))
    found: list[Binding | NotFound] = []
    for row in rows:
        try:
            found.append(seen(next(shown) if row is not None else None, heard))
        except NotFound as missing:
            found.append(missing)
    return found


async def _by_order(order_ids: Sequence[str], services: Services, heard: Heard) -> list[Binding | NotFound]:
    """Return the live bindings of each order in turn; an order without any has one NotFound in its place."""
    rows = await services.live_of_orders(heard.key.app.id, order_ids, _MOST_RELEASED)
    if len(rows) >= _MOST_RELEASED:
        pointer = FieldError("/order_ids", f"these orders have {_MOST_RELEASED} live bindings or more; name fewer")
        raise Invalid("Some fields are wrong; see errors.", errors=(pointer,))
    bindings = await _shown([(pool_id, row_id) for _, pool_id, row_id in rows], services)
    by_order: dict[int, list[Binding]] = {}
    for (place, _, _), binding in zip(rows, bindings, strict=True):
        if binding is not None:
            by_order.setdefault(place, []).append(binding)
    found: list[Binding | NotFound] = []
    for place, order_id in enumerate(order_ids):
        missing = NotFound("This order has no live binding.", code="binding_not_found", extra={"order_id": order_id})
        found.extend(by_order.get(place, [missing]))
    return found


async def _shown(rows: Sequence[tuple[int, UUID]], services: Services) -> list[Binding | None]:
    return list(await asyncio.gather(*(services.show.enqueue(row) for row in rows)))


async def _released(
    found: Sequence[Binding | NotFound], services: Services, heard: Heard, *, grace_s: int | None
) -> list[Binding | BaseException]:
    grace_s = heard.key.app.release_grace_s if grace_s is None else grace_s
    lines: defaultdict[UUID, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def one(binding: Binding | NotFound) -> Binding | BaseException:
        if isinstance(binding, NotFound):
            return binding
        # Those of a line one after the other: the last one's grace is the line's. Without it all go in one statement.
        turn: AbstractAsyncContextManager[object] = lines[binding.line_id] if grace_s else nullcontext()
        async with turn:
            return await end(binding, services, heard, grace_s=grace_s)

    return list(await asyncio.gather(*(one(binding) for binding in found), return_exceptions=True))


# -- items out ---------------------------------------------------------------------------------------------------------


def _bound_item(outcome: Outcome, heard: Heard) -> dict[str, Any]:
    if isinstance(outcome, Bound):
        return {"status": outcome.status, "binding": outcome.body}
    return _problem_item(outcome, heard)


def _released_item(outcome: Binding | BaseException, services: Services, heard: Heard) -> dict[str, Any]:
    if isinstance(outcome, BaseException):
        return _problem_item(outcome, heard)
    try:
        body = shape(outcome, services.registry())
    except Problem as problem:
        return _problem_item(problem, heard)
    return {"status": 200 if outcome.state in OVER else 202, "binding": body}


def _problem_item(outcome: BaseException, heard: Heard) -> dict[str, Any]:
    if not isinstance(outcome, Problem):
        log.error("batch_item_broken", request_id=heard.request_id, exc_info=outcome)
        outcome = Problem("Something went wrong on our side.")
    return {"status": outcome.status, "problem": problem_body(outcome, heard.request_id)}
