"""From what was asked for to an order: checked against what we know of apps, pools and our own numbers."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from broker.api import parse
from broker.api.context import Services
from broker.domain.choice import Policy
from broker.domain.modes import LONGEST_TTL_S
from broker.domain.options import DEFAULT, CallOptions
from broker.domain.phone import PhoneNumber
from broker.errors import FieldError, Invalid, PoolExhausted, Unavailable
from broker.flows.order import BindOrder
from broker.flows.tones import check_tones
from broker.store.registry import App, Key, Pool, Registry


def order_of(
    found: parse.Asked,
    services: Services,
    key: Key,
    *,
    key_hash: bytes | None = None,
    key_token: int | None = None,
) -> BindOrder:
    """Return the order; ``key_hash`` and ``key_token`` name its idempotency record.

    Raises:
        Invalid: with one error for every bad field.
        PoolExhausted, Unavailable: the app has no open pool, or is suspended.
    """
    asked, app = found.request, key.app
    if app.suspended is not None:
        raise Unavailable("This app is suspended.", code="app_suspended", retry_after_s=60)
    registry = services.registry()
    errors = list(found.errors)
    parties: dict[str, PhoneNumber | None] = {"/a": asked.a, "/b": asked.b}  # None: it is among the errors
    if parties["/a"] is not None and parties["/a"] == parties["/b"]:
        errors.append(FieldError("/b", "must differ from a"))
    errors.extend(party_errors(parties, registry))
    pools = _pools(asked, app, registry, errors)
    ttl_s = app.default_ttl_s if asked.ttl_s is None else asked.ttl_s
    options = options_of(asked)
    errors.extend(options_errors(options, app))
    errors.extend(ttl_errors(ttl_s, app))
    if errors:
        raise Invalid("Some fields are wrong; see errors.", errors=tuple(errors))
    if not pools:
        raise PoolExhausted("No pool of this app is open.", extra={"reasons": {"not_open": 0}, "pools": []})
    return BindOrder(
        app=app,
        caller_id=key.caller_id,
        a=asked.a,
        b=asked.b,
        a_key=services.vault.party_key(asked.a.reveal()),
        b_key=services.vault.party_key(asked.b.reveal()),
        pools=pools,
        ttl_s=ttl_s,
        direction=asked.direction,
        policy=app.policy if asked.policy is None else Policy(asked.policy),
        options=options,
        share=asked.share,
        explain=asked.explain,
        order_id=asked.order_id,
        user_data=asked.user_data,
        metadata=orjson.dumps(asked.metadata).decode() if asked.metadata is not None else None,
        key_hash=key_hash,
        key_token=key_token,
    )


def party_errors(parties: Mapping[str, PhoneNumber | None], registry: Registry) -> list[FieldError]:
    """Return which of the parties, by pointer, cannot be one."""
    return [
        FieldError(pointer, "is one of our X numbers; a party must be a real phone")
        for pointer, party in parties.items()
        if party is not None and party.reveal() in registry.our_numbers
    ]


def ttl_errors(ttl_s: int, app: App) -> list[FieldError]:
    """Return whether the app's bindings may not last that long; under a maximum of its own, nothing lasts for ever."""
    if ttl_s > app.max_ttl_s or (ttl_s == 0 and app.max_ttl_s < LONGEST_TTL_S):
        return [FieldError("/ttl_s", f"this app's bindings last {app.max_ttl_s} seconds at most")]
    return []


def options_of(asked: parse.BindRequest) -> CallOptions:
    """Return the options asked for; what is the platform's default anyway is as if not asked for."""
    recording, tones = asked.recording, asked.tones
    return CallOptions(
        recording=True if recording is not None and recording.enabled else None,
        hint_tone=recording.hint_tone if recording is not None else None,
        max_call_minutes=asked.max_call_minutes or None,
        last_minute_tone=asked.last_minute_tone,
        sms=asked.sms,
        caller_tone=tones.caller if tones is not None else None,
        callee_tone=tones.callee if tones is not None else None,
    )


def options_errors(options: CallOptions, app: App, was: CallOptions = DEFAULT) -> list[FieldError]:
    """Return what is wrong with the options of an order of the app's, or of a change from what they were."""
    if options == DEFAULT:
        return []
    tones, had = _tones(options), _tones(was)
    # A tone that the line has already is no longer the order system's choice.
    errors = check_tones(app, {pointer: tone for pointer, tone in tones.items() if tone != had[pointer]})
    if options.recording and not app.recording:
        errors.append(FieldError("/recording", "this app has no recording"))
    if options.sms and not app.sms:
        errors.append(FieldError("/sms", "this app has no SMS"))
    if options.hint_tone is not None and not options.recording:
        errors.append(FieldError("/recording/hint_tone", "goes with enabled: true"))
    if options.last_minute_tone is not None and not options.max_call_minutes:
        errors.append(FieldError("/last_minute_tone", "goes with max_call_minutes"))
    return errors


def _tones(options: CallOptions) -> dict[str, str | None]:
    return {
        "/recording/hint_tone": options.hint_tone,
        "/last_minute_tone": options.last_minute_tone,
        "/tones/caller": options.caller_tone,
        "/tones/callee": options.callee_tone,
    }


def _pools(asked: parse.BindRequest, app: App, registry: Registry, errors: list[FieldError]) -> tuple[Pool, ...]:
    """Return the pools to try, in order; add what is wrong with the request's choice to ``errors``."""
    named = [name for name in ("pool", "area_code", "areas") if getattr(asked, name) is not None]
    if len(named) > 1:
        errors.extend(FieldError(f"/{name}", "give at most one of pool, area_code, areas") for name in named)
        return ()
    if asked.pool is not None:
        found = registry.named_pools.get((app.id, asked.pool))
        if found is None:
            errors.append(FieldError("/pool", "is not a pool of this app"))
        return () if found is None else (found,)
    ours = registry.app_pools.get(app.id, ())
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
