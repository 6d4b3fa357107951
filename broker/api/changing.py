"""``PATCH /v1/bindings/{id}`` and ``POST /v1/bindings:hand-over``: bindings that live become others."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from aiohttp import web

from broker.api import parse
from broker.api.bindings import read, seen
from broker.api.capability import change_errors
from broker.api.checks import callback_errors, first_of_each, options_errors, party_errors, ttl_errors
from broker.api.context import Heard, Reply, Services
from broker.api.patching import called_back, check_kept, patched
from broker.api.reply import pack, problem_body
from broker.api.shape import etag, shape
from broker.domain.change import LineChange
from broker.domain.modes import MODES
from broker.domain.phone import PhoneNumber
from broker.errors import Conflict, FieldError, Invalid, PreconditionFailed, Problem
from broker.flows.change import Plan, Stale, Wait
from broker.store.bindings import Binding
from broker.store.changes import OwnChange
from broker.store.listing import NEWEST, Wanted

log = structlog.get_logger()

#: Bindings that one request hands over at most, and how many of them at a time.
_MOST_HANDED = 1000
_AT_A_TIME = 32
_PAGE = 200
_AGAIN = 5
_LIVE = frozenset({"pending", "active"})


async def change(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``PATCH /v1/bindings/{id}``: 200 once it is so, 202 while the platform has not confirmed."""
    asked = parse.body_as(parse.ChangeRequest, heard.body)
    tags = parse.if_match(request)
    until = Wait(heard.deadline, wait=not heard.respond_async)
    for _ in range(_AGAIN):
        binding = await read(request, services, heard)
        if tags is not None and etag(binding) not in tags:
            raise PreconditionFailed("The binding is not what If-Match says any more.")
        if binding.state not in _LIVE:
            raise Conflict("The binding has ended, or is about to.", code="binding_ended")
        plan = _plan(asked, binding, services)
        if plan.line is not None or plan.own.given:
            try:
                binding = await services.changer.change(binding, plan, until)
            except Stale:
                continue
        body = shape(binding, services.registry())
        return Reply(_status(body), pack(body), etag=etag(binding))
    raise Conflict("Others keep changing the binding.", code="change_in_progress", retry_after_s=1)


def _status(body: dict[str, Any]) -> int:
    """Return the status that goes with a binding after a change; a renewal under way is nobody's concern."""
    return 202 if body["pending_change"] is not None or body["state"] == "pending" else 200


def _plan(asked: parse.ChangeRequest, binding: Binding, services: Services) -> Plan:
    """Return what the patch changes of the binding as it is.

    Raises:
        Invalid: with one error for every bad field.
        Conflict: the mode cannot change one of them.
    """
    registry = services.registry()
    app, given = registry.apps[binding.app_id], asked.model_fields_set
    errors = change_errors(MODES[app.mode], given - {"on_conflict"})
    errors += [
        FieldError(f"/{name}", "must not be null")
        for name in ("a", "b", "ttl_s", "direction")
        if name in given and getattr(asked, name) is None
    ]
    options = patched(binding.options, asked)
    callback = called_back(binding.callback, asked)
    if given & {"a", "callback", "ttl_s"}:
        ttl_s = binding.ttl_s if asked.ttl_s is None else asked.ttl_s
        errors.extend(callback_errors(callback, asked.a or binding.a, options, ttl_s, registry))
    if options != binding.options:
        errors.extend(options_errors(options, app, binding.options))
    errors.extend(_party_errors(asked, binding, services))
    if asked.ttl_s is not None:
        errors.extend(ttl_errors(asked.ttl_s, app))
    if errors:
        raise Invalid("Some fields are wrong; see errors.", errors=first_of_each(errors))
    check_kept(MODES[app.mode], binding, callback, options)
    line = LineChange(
        a=asked.a if asked.a != binding.a else None,
        b=asked.b if asked.b != binding.b else None,
        direction=asked.direction if asked.direction != binding.direction else None,
        options=options if options != binding.options else None,
        callback=callback if callback != binding.callback else None,
        no_callback=callback is None and binding.callback is not None,
    )
    return Plan(
        own=_own(asked, binding),
        line=line if line != LineChange() else None,
        rebind=asked.on_conflict == "rebind",
    )


def _party_errors(asked: parse.ChangeRequest, binding: Binding, services: Services) -> list[FieldError]:
    errors = party_errors({"/a": asked.a, "/b": asked.b}, services.registry())
    if asked.b is not None and binding.b is None:
        errors.append(FieldError("/b", "behind this X is one party", "routing_mismatch"))
    a, b = asked.a or binding.a, asked.b or binding.b
    if a == b:
        errors.append(FieldError("/a" if asked.a is not None else "/b", "must differ from the other party"))
    if asked.a not in {None, binding.a} and asked.b not in {None, binding.b}:
        errors.append(FieldError("/b", "only one party can be replaced; with two others it is another binding"))
    return errors


def _own(asked: parse.ChangeRequest, binding: Binding) -> OwnChange:
    """Return what changes of the binding itself. A ttl is counted anew even if it is the same."""
    given = set(asked.model_fields_set & {"ttl_s", "user_data"})
    if asked.user_data == binding.user_data:
        given.discard("user_data")
    metadata = binding.metadata
    if "metadata" in asked.model_fields_set:
        metadata = parse.merged_metadata(binding.metadata, asked.metadata)
        if metadata != binding.metadata:
            given.add("metadata")
    return OwnChange(frozenset(given), asked.ttl_s, asked.user_data, metadata)


# -- hand-over ---------------------------------------------------------------------------------------------------------


async def hand_over(_request: web.Request, services: Services, heard: Heard) -> Reply:
    """``POST /v1/bindings:hand-over``: 200 with an outcome for each live binding of ``from``."""
    asked = parse.body_as(parse.HandOverRequest, heard.body)
    change_errors(MODES[heard.key.app.mode], {"a"})
    errors = party_errors({"/to": asked.to}, services.registry())
    if asked.to == asked.from_:
        errors.append(FieldError("/to", "must differ from from"))
    if errors:
        raise Invalid("Some fields are wrong; see errors.", errors=tuple(errors))
    bindings = await _live_of(asked.from_, services, heard)
    # Bindings that share a line are of the same pair, so all of them move with it.
    lines: dict[tuple[int, object], list[Binding]] = {}
    for binding in bindings:
        lines.setdefault((binding.pool_id, binding.line_id), []).append(binding)
    gate = asyncio.Semaphore(_AT_A_TIME)

    async def one(sharing: list[Binding]) -> list[dict[str, Any]]:
        async with gate:
            if asked.dry_run:
                return [await _foretold(binding, asked, services, heard) for binding in sharing]
            return await _handed(sharing, asked, services, heard)

    told = await asyncio.gather(*(one(sharing) for sharing in lines.values()))
    items = [item for some in told for item in some]
    heard.notes.update(items=len(items), dry_run=asked.dry_run)
    passing = any(item["status"] >= 500 or item["status"] == 409 for item in items)  # noqa: PLR2004
    return Reply(200, pack({"items": items}), keep=not passing)


async def _live_of(party: PhoneNumber, services: Services, heard: Heard) -> list[Binding]:
    """Return the live bindings of a party.

    Raises:
        Invalid: there are more than one request hands over.
    """
    app_id = heard.key.app.id
    pools = tuple(pool.id for pool in services.registry().app_pools.get(app_id, ()))
    key = services.vault.party_key(party.reveal())
    found: list[Binding] = []
    for state in sorted(_LIVE):
        before = NEWEST
        while True:
            page = await services.find(
                Wanted(app_id=app_id, pools=pools, limit=_PAGE, before=before, state=state, party_key=key)
            )
            shown = await asyncio.gather(*(services.show.enqueue(row) for row in page.rows))
            found.extend(
                seen(binding, heard)
                for binding in shown
                if binding is not None and binding.state in _LIVE and party in {binding.a, binding.b}
            )
            if len(found) > _MOST_HANDED:
                detail = f"has more than {_MOST_HANDED} live bindings; release or hand over in parts"
                raise Invalid("Some fields are wrong; see errors.", errors=(FieldError("/from", detail),))
            if page.next_before is None:
                break
            before = page.next_before
    return list({binding.id: binding for binding in found}.values())


def _replaced(binding: Binding, asked: parse.HandOverRequest) -> LineChange:
    return LineChange(a=asked.to) if binding.a == asked.from_ else LineChange(b=asked.to)


async def _handed(
    sharing: list[Binding], asked: parse.HandOverRequest, services: Services, heard: Heard
) -> list[dict[str, Any]]:
    """Move a line's bindings with it, or each to an X of its own where the line cannot take the new party."""
    until = Wait(heard.deadline, wait=not heard.respond_async)
    first, rebind = sharing[0], asked.on_conflict == "rebind"
    alone = len(sharing) == 1
    if asked.to in {first.a, first.b}:
        return [_problem_item(_same(), heard, binding, services) for binding in sharing]
    try:
        mates = frozenset(binding.id for binding in sharing)
        await services.changer.change(
            first, Plan(line=_replaced(first, asked), mates=mates, rebind=rebind and alone), until
        )
    except Stale:
        problem: Problem = Conflict("Somebody else changed it meanwhile.", code="change_in_progress", retry_after_s=1)
    except Problem as refused:
        problem = refused
        if rebind and not alone and refused.code == "party_barred":
            return [await _moved(binding, asked, services, heard, until) for binding in sharing]
    else:
        return [await _as_it_is(binding, services) for binding in sharing]
    return [_problem_item(problem, heard, binding, services) for binding in sharing]


async def _moved(
    binding: Binding, asked: parse.HandOverRequest, services: Services, heard: Heard, until: Wait
) -> dict[str, Any]:
    # What the platform refused of the whole line has made each of its bindings another one.
    binding = await services.show.submit((binding.pool_id, binding.id)) or binding
    try:
        await services.changer.change(binding, Plan(line=_replaced(binding, asked), rebind=True), until)
    except Stale:
        problem = Conflict("Somebody else changed it meanwhile.", code="change_in_progress", retry_after_s=1)
        return _problem_item(problem, heard, binding, services)
    except Problem as problem:
        return _problem_item(problem, heard, binding, services)
    return await _as_it_is(binding, services)


async def _as_it_is(binding: Binding, services: Services) -> dict[str, Any]:
    now = await services.show.submit((binding.pool_id, binding.id)) or binding
    body = shape(now, services.registry())
    return {"status": _status(body), "binding": body}


async def _foretold(binding: Binding, asked: parse.HandOverRequest, services: Services, heard: Heard) -> dict[str, Any]:
    kept = binding.b_key if binding.a == asked.from_ else binding.a_key
    to_key = services.vault.party_key(asked.to.reveal())
    if asked.to in {binding.a, binding.b}:
        return _problem_item(_same(), heard, binding, services)
    if binding.state != "active" or binding.moving or binding.pending is not None:
        passing = Conflict("The binding is being bound or changed.", code="change_in_progress", retry_after_s=1)
        return _problem_item(passing, heard, binding, services)
    # Whoever comes in to a sole line is nobody's new counterpart.
    barred = kept is not None and await services.changer.barred(binding, to_key, kept)
    if barred and asked.on_conflict == "refuse":
        refused = Conflict("The new party may not have this X number now.", code="party_barred")
        return _problem_item(refused, heard, binding, services)
    body = shape(binding, services.registry())
    return {"status": 200, "would": "rebind" if barred else "change", "binding": body}


def _same() -> Problem:
    return Conflict("The new party is the other side of this binding.", code="party_barred")


def _problem_item(problem: Problem, heard: Heard, binding: Binding, services: Services) -> dict[str, Any]:
    return {
        "status": problem.status,
        "binding": shape(binding, services.registry()),
        "problem": problem_body(problem, heard.request_id),
    }
