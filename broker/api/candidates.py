"""The pools that a bind may get its X from, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Sequence

from broker.api import parse
from broker.domain import areas
from broker.domain.modes import MODES
from broker.errors import FieldError
from broker.store.registry import App, Pool, Registry


def routing_of(asked: parse.BindRequest, app: App, registry: Registry) -> str | None:
    """Return what is to be behind X, where the mode of the app leaves the choice: two parties, or one."""
    if "routing" not in MODES[app.mode].binds:
        return None
    if asked.routing is not None:
        return asked.routing
    named = registry.named_pools.get((app.id, asked.pool)) if asked.pool is not None else None
    if named is not None:
        return named.routing
    one = asked.b is None and any(pool.routing == "one" for pool in registry.app_pools.get(app.id, ()))
    return "one" if one else "pair"


def candidates(
    asked: parse.BindRequest, app: App, registry: Registry, routing: str | None, errors: list[FieldError]
) -> tuple[Pool, ...]:
    """Return the pools to try; add what is wrong with the request's choice to ``errors``."""
    named = [name for name in ("pool", "area_code", "areas") if getattr(asked, name) is not None]
    if len(named) > 1:
        errors.extend(FieldError(f"/{name}", "give at most one of pool, area_code, areas") for name in named)
        return ()
    if asked.area_match is not None and named not in (["area_code"], ["areas"]):
        errors.append(FieldError("/area_match", "goes with area_code or areas"))
    if asked.pool is not None:
        return _named(asked.pool, app, registry, routing, errors)
    ours = [pool for pool in registry.app_pools.get(app.id, ()) if routing in {None, pool.routing}]
    if asked.area_code is not None:
        wanted = {"/area_code": asked.area_code}
    elif asked.areas is not None:
        wanted = {f"/areas/{place}": area for place, area in enumerate(asked.areas)}
    else:
        return tuple(pool for pool in ours if pool.open)
    chosen: dict[int, Pool] = {}
    for pointer, area in wanted.items():
        there = [pool for pool in ours if pool.area_code == area]
        if asked.area_match == "relaxed" and areas.known(area):
            there.extend(_around(area, ours))
        if not there:
            errors.append(_nowhere(pointer, area))
        chosen.update((pool.id, pool) for pool in there if pool.id not in chosen)
    return tuple(chosen.values())


def _named(name: str, app: App, registry: Registry, routing: str | None, errors: list[FieldError]) -> tuple[Pool, ...]:
    found = registry.named_pools.get((app.id, name))
    if found is None:
        errors.append(FieldError("/pool", "is not a pool of this app"))
        return ()
    if routing not in {None, found.routing}:
        errors.append(FieldError("/routing", f"the pool's routing is {found.routing}", "routing_mismatch"))
    return (found,)


def _around(area: str, ours: Sequence[Pool]) -> list[Pool]:
    """Return the other open pools: of the area's province, then the rest."""
    province = areas.province(area)
    rest = [pool for pool in ours if pool.open and pool.area_code != area]
    return sorted(rest, key=lambda pool: areas.province(pool.area_code) != province)


def _nowhere(pointer: str, area: str) -> FieldError:
    if areas.known(area):
        return FieldError(pointer, "no pool of this app has this area code", "no_pool_in_area")
    return FieldError(pointer, "is not an area code of the mainland, as 0755 and 010 are", "unknown_area")
