"""From what was asked for to an order: checked against what we know of apps, modes, pools and our own numbers."""

from __future__ import annotations

from typing import Final

import orjson

from broker.api import parse
from broker.api.candidates import candidates, routing_of
from broker.api.capability import bind_errors
from broker.api.checks import (
    callback_errors,
    extension_errors,
    first_of_each,
    options_errors,
    party_errors,
    ttl_errors,
)
from broker.api.context import Services
from broker.domain.choice import Policy
from broker.domain.modes import MODES, Mode
from broker.domain.options import DEFAULT, CallOptions
from broker.errors import FieldError, Invalid, PoolExhausted, Unavailable
from broker.flows.bind import check_gate
from broker.flows.order import BindOrder
from broker.store.registry import Key

#: What makes options of a bind.
_OPTIONS: Final = frozenset(
    {
        "recording", "max_call_minutes", "last_minute_tone", "sms", "tones", "display", "callback", "peer_ttl_s",
        "area_match",
    }
)  # fmt: skip


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
    check_gate(app)
    registry = services.registry()
    mode = MODES[app.mode]
    errors = [*found.errors, *bind_errors(mode, asked.given())]
    routing = routing_of(asked, app, registry)
    errors.extend(_pair_errors(found, mode.needs, routing))
    errors.extend(party_errors({"/a": asked.a, "/b": asked.b}, registry))
    pools = candidates(asked, app, registry, routing, errors)
    ttl_s = app.default_ttl_s if asked.ttl_s is None else asked.ttl_s
    options = options_of(asked, mode, ttl_s)
    errors.extend(options_errors(options, app))
    errors.extend(ttl_errors(ttl_s, app))
    callback = asked.callback.number if asked.callback is not None else None
    errors.extend(callback_errors(callback, asked.a, options, ttl_s, registry))
    errors.extend(extension_errors(asked.extension, app))
    if errors:
        raise Invalid("Some fields are wrong; see errors.", errors=first_of_each(errors))
    if not pools:
        raise PoolExhausted("No pool of this app is open.", extra={"reasons": {"not_open": 0}, "pools": []})
    return BindOrder(
        app=app,
        caller_id=key.caller_id,
        a=asked.a,
        b=asked.b,
        a_key=services.vault.party_key(asked.a.reveal()),
        b_key=services.vault.party_key(asked.b.reveal()) if asked.b is not None else None,
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
        extension=int(asked.extension) if asked.extension is not None else None,
        callback=callback,
    )


def options_of(asked: parse.BindRequest, mode: Mode, ttl_s: int) -> CallOptions:
    """Return the options asked for; what is the platform's default anyway is as if not asked for."""
    if asked.model_fields_set.isdisjoint(_OPTIONS):
        return DEFAULT
    recording, tones, callback = asked.recording, asked.tones, asked.callback
    peer_ttl_s = asked.peer_ttl_s or None
    return CallOptions(
        recording=True if recording is not None and recording.enabled else None,
        hint_tone=recording.hint_tone if recording is not None else None,
        max_call_minutes=asked.max_call_minutes or None,
        last_minute_tone=asked.last_minute_tone,
        sms=asked.sms,
        caller_tone=tones.caller if tones is not None else None,
        callee_tone=tones.callee if tones is not None else None,
        display="caller" if asked.display == "caller" else None,
        callback_tone=callback.tone if callback is not None else None,
        callback_ttl_s=callback.ttl_s if callback is not None else None,
        # A Y does not outlive its binding.
        peer_ttl_s=min(peer_ttl_s, ttl_s) if peer_ttl_s is not None and ttl_s else peer_ttl_s,
        # Where we choose X, its pools are the answer to that, and no option of the line.
        relaxed=True if asked.area_match == "relaxed" and mode.binds["area_match"].wire else None,
    )


def _pair_errors(found: parse.Asked, needs: frozenset[str], routing: str | None) -> list[FieldError]:
    """Return what is wrong with the parties together: who is missing, who is one too many, who is there twice."""
    asked = found.request
    needed = needs | {"b"} if routing == "pair" else needs
    errors = [
        FieldError(f"/{name}", "is missing: a number in E.164, as +8613900000001")
        for name in sorted(needed)
        if getattr(asked, name) is None and name not in found.bad
    ]
    if asked.b is not None and routing == "one":
        errors.append(FieldError("/b", "behind an X of routing one is one party", "routing_mismatch"))
    if asked.b is not None and asked.a == asked.b:
        errors.append(FieldError("/b", "must differ from a"))
    return errors
