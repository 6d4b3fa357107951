"""``/v1/pools``: how full the caller's pools are."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiohttp import web

from broker.api.context import Heard, Reply, Services
from broker.api.reply import pack
from broker.domain.cooldown import exposure, sample_load
from broker.domain.extension import codes
from broker.errors import NotFound
from broker.store.listing import Figures
from broker.store.places import PlaceCounts
from broker.store.registry import Pool


async def show_all(_request: web.Request, services: Services, heard: Heard) -> Reply:
    """``GET /v1/pools``."""
    pools = services.registry().app_pools.get(heard.key.app.id, ())
    figures = await services.pool_figures.of(heard.key.app.id, [pool.id for pool in pools])
    return Reply(200, pack({"items": [_shape(pool, figures[pool.id], services) for pool in pools]}))


async def show(request: web.Request, services: Services, heard: Heard) -> Reply:
    """``GET /v1/pools/{name}``."""
    pools = services.registry().app_pools.get(heard.key.app.id, ())
    found = next((pool for pool in pools if pool.name == request.match_info["name"]), None)
    if found is None:
        raise NotFound("There is no such pool.", code="pool_not_found")
    figures = await services.pool_figures.of(heard.key.app.id, [pool.id for pool in pools])
    return Reply(200, pack(_shape(found, figures[found.id], services)))


def _shape(pool: Pool, figures: Figures, services: Services) -> dict[str, Any]:
    """``x_needed`` is X*: with fewer numbers no choice whatever could hold what is live and resting now."""
    app, cap = pool.app, pool.app.cap
    late = exposure(figures.cohorts, app.quarantine_s)
    open_numbers = pool.open_mask.bit_count() if pool.open else 0
    shape = {
        "name": pool.name,
        "area_code": pool.area_code,
        "state": "open" if pool.open else "closed",
        "numbers": sum(1 for number in pool.numbers if number),
        "open": open_numbers,
        "cap": cap,
        "live": figures.live,
        "resting": figures.resting,
        "headroom": max(open_numbers * cap - figures.live, 0),
        "x_in_use": figures.x_in_use,
        "x_needed": max(figures.most_barred, -(-figures.live // cap)),
        "refusals": services.allocator.refusals(pool.id),
        "sample": {
            "share": app.sample_share,
            "factor": app.sample_factor,
            "of_resting": sample_load(app.quarantine_s, app.sample_share, app.sample_factor),
        },
        "exposure": None if late is None else asdict(late),
        "as_of": figures.as_of,
    }
    return shape | _places(pool, figures.places) if pool.codes else shape


def _places(pool: Pool, counts: PlaceCounts) -> dict[str, Any]:
    """What differs where each X has places, and the places themselves."""
    app, per_x = pool.app, len(pool.codes)
    unsafe = len(codes(app.extension_digits, app.extensions_per_x, typo_safe=False)) if pool.typo_safe else None
    taken = counts.held + counts.resting
    return {
        "cap": per_x,
        "resting": counts.resting,
        "headroom": counts.free if pool.open else 0,
        "x_needed": -(-taken // per_x),
        "places": {
            "per_x": per_x,
            "per_x_unsafe": unsafe,
            "in_use": counts.in_use,
            "held": counts.held,
            "resting": counts.resting,
            "free": counts.free,
        },
    }
