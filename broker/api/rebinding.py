"""``POST /v1/bindings/{id}:rebind-in``: a binding goes on in a sibling app, as another one with another X."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from broker.api import parse
from broker.api.bindings import read
from broker.api.context import Heard, Reply, Services
from broker.api.ordering import order_of
from broker.api.reply import pack
from broker.api.shape import Bound, bound_before, shape, told
from broker.domain.ids import public_id
from broker.domain.modes import MODES
from broker.errors import Conflict, FieldError, Invalid, NotFound
from broker.flows.succession import sibling
from broker.store.bindings import Binding
from broker.store.registry import App, Key, Registry

_LIVE = frozenset({"pending", "active"})
_SHORTEST_TTL_S = 60
#: The order's own words: they go with it into every mode.
_OWN = ("order_id", "user_data")
#: What an order asked for besides its parties, in the words of a bind and of an answer alike.
_OPTIONS = (
    "direction", "display", "recording", "max_call_minutes", "last_minute_tone", "sms", "tones", "callback",
    "peer_ttl_s",
)  # fmt: skip
_USUAL = {"direction": "both"}


class RebindRequest(BaseModel):
    """Body of ``POST /v1/bindings/{id}:rebind-in``: the app, and fields of a bind in place of what the binding has."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    app: Annotated[str, Field(min_length=1, max_length=63, description="An app of the same owner.")]


async def rebind_in(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``POST /v1/bindings/{id}:rebind-in``: 201 once the new binding is confirmed, 202 before."""
    asked = parse.body_as(RebindRequest, heard.body)
    old = await read(request, services, heard)
    registry = services.registry()
    key = _key_in(asked.app, registry, heard.key)
    key_hash = _key_hash(services, heard)
    if key_hash is not None and (made := await services.successions.made((old.pool_id, old.id), key_hash)):
        return _replaced(await bound_before(services, heard, made), old, [])
    if old.state not in _LIVE:
        raise Conflict("The binding has ended, or is about to.", code="binding_ended")
    given = asked.model_extra or {}
    if "a" in given:
        raise Invalid("Some fields are wrong; see errors.", errors=(FieldError("/a", "stays as it is"),))
    carried, dropped = _carried(old, key.app, registry, given)
    wanted = {name: value for name, value in (carried | given).items() if value is not None}
    order = order_of(parse.bind_item(wanted), services, key)
    accepted = await services.successions.replace(
        old, order, key_hash=key_hash, deadline=heard.deadline, wait=not heard.respond_async
    )
    heard.notes["successor"] = public_id(accepted.pool_id, accepted.binding_id)
    return _replaced(await told(order, accepted, services, heard), old, dropped)


def _key_in(name: str, registry: Registry, key: Key) -> Key:
    """Return the caller's key in the app.

    Raises:
        Invalid: it is the app that the binding is in.
        NotFound: it is no app in which the caller binds, too; whether there is one is nobody's business.
    """
    if name == key.app.name:
        raise Invalid("Some fields are wrong; see errors.", errors=(FieldError("/app", "is the app it is in"),))
    found = sibling(registry, key, name)
    if found is None:
        raise NotFound("There is no such app in which you bind, too.", code="foreign_app")
    return found


def _key_hash(services: Services, heard: Heard) -> bytes | None:
    """Return what a repeat of the request is known by; the bind itself belongs to another app's caller."""
    ask = heard.key_ask
    if ask is None:
        return None
    return services.vault.request_hash(b"rebind-in", str(ask.caller_id).encode(), ask.key_hash)


def _carried(
    old: Binding, app: App, registry: Registry, given: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return the fields of the old binding that its app's mode knows, and a warning for each other one that it had."""
    known, shown = MODES[app.mode].binds, shape(old, registry)
    fields: dict[str, Any] = {"a": old.a.reveal(), "ttl_s": _ttl_left(old)}
    if "b" in known and old.b is not None:
        fields["b"] = old.b.reveal()
    fields |= {name: shown[name] for name in _OWN}
    fields["metadata"] = orjson.loads(old.metadata) if old.metadata is not None else None
    options = {name: value for name in _OPTIONS if (value := shown.get(name)) is not None and value != _USUAL.get(name)}
    possible = {name: value for name in options if (value := _possible(name, options[name], app)) is not None}
    if "last_minute_tone" in possible and "max_call_minutes" not in options:
        del possible["last_minute_tone"]
    fields |= {name: value for name, value in possible.items() if name in known}
    dropped = [
        _not_carried(f"/{name}", f"{app.name} does not offer it as it was")
        for name in options
        if name not in given and fields.get(name) != options[name]
    ]
    if old.b is not None and "b" not in known:
        dropped.append(_not_carried("/b", f"in {app.name} nobody but a is behind X"))
    if not {"pool", "area_code", "areas"} & given.keys():
        here = registry.pools[old.pool_id].area_code
        if any(pool.area_code == here and pool.open for pool in registry.app_pools.get(app.id, ())):
            fields["area_code"] = here
        else:
            dropped.append(_not_carried("/area_code", f"{app.name} has no open pool of area {here}"))
    return fields, dropped


def _not_carried(pointer: str, detail: str) -> dict[str, str]:
    return {"code": "not_carried_over", "pointer": pointer, "detail": detail}


def _possible(name: str, value: Any, app: App) -> Any:
    """Return as much of an option as the app can do; None = nothing."""
    match name:
        case "callback":
            return None  # its number is shown masked
        case "recording":
            return (value | {"hint_tone": _tone(value["hint_tone"], app)}) if app.recording else None
        case "sms":
            return value if app.sms or not value else None
        case "last_minute_tone":
            return _tone(value, app)
        case "tones":
            tones = {side: _tone(tone, app) for side, tone in value.items()}
            return tones if any(tones.values()) else None
        case _:
            return value


def _tone(name: str | None, app: App) -> str | None:
    return name if name is not None and app.tones.get(name) == "approved" else None


def _ttl_left(old: Binding) -> int:
    """Return how long the binding would have lasted, in seconds; 0 = without end."""
    if old.expires_at is None:
        return old.ttl_s
    return max(math.ceil((old.expires_at - old.as_of).total_seconds()), _SHORTEST_TTL_S)


def _replaced(made: Bound, old: Binding, dropped: list[dict[str, str]]) -> Reply:
    body = made.body | {"replaces": public_id(old.pool_id, old.id)}
    body["warnings"] = [*body.get("warnings", ()), *dropped]
    return Reply(made.status, pack(body), location=f"/v1/bindings/{made.binding_id}", etag=made.etag)
