"""Finding bindings: which rows to show, newest first, and how far a look went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import asyncpg

from broker.domain.cooldown import Cohort
from broker.store import learned, places
from broker.store.database import Database
from broker.store.places import PlaceCounts
from broker.store.statements import statements

#: Bindings that a walk without an index looks at, over all pools of the app.
_WALK = 4000
NEWEST = UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class Place:
    """An X number by pool and position."""

    pool_id: int
    x_id: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to find: bindings of ``app_id``, whose pools are ``pools``, older than ``before``."""

    app_id: int
    pools: tuple[int, ...]
    limit: int
    before: UUID = NEWEST
    order_id: str | None = None
    x: Place | None = None
    state: str | None = None
    party_key: int | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Rows (pool id, binding id) that are candidates; ``next_before`` is None when there is nothing behind them."""

    rows: list[tuple[int, UUID]]
    next_before: UUID | None


async def find(db: Database, wanted: Wanted) -> Page:
    """Return candidates by the narrowest index; the filters that it does not know are still to be applied."""
    found = await _candidates(db, wanted, wanted.limit + 1)
    if len(found) > wanted.limit:
        found = found[: wanted.limit]
        edge = found[-1]["id"]
    else:
        edge = found[-1]["id"] if found and found[-1]["cut"] else None
    return Page([(row["pool_id"], row["id"]) for row in found if row["fits"]], edge)


async def _candidates(db: Database, wanted: Wanted, limit: int) -> list[asyncpg.Record]:
    sql = statements("listing")
    if wanted.order_id is not None:
        return await db.fetch(sql["by_order"], wanted.app_id, wanted.order_id, wanted.state, wanted.before, limit)
    if wanted.party_key is not None:
        return await db.fetch(sql["by_party"], list(wanted.pools), wanted.party_key, wanted.state, wanted.before, limit)
    if wanted.x is not None and wanted.state in {"pending", "active", "releasing"}:
        return await db.fetch(sql["by_seat"], wanted.x.pool_id, wanted.x.x_id, wanted.state, wanted.before, limit)
    pools = [wanted.x.pool_id] if wanted.x is not None else list(wanted.pools)
    filtered = wanted.x is not None or wanted.state is not None
    depth = max(limit, _WALK // max(len(pools), 1)) if filtered else limit
    x_id = wanted.x.x_id if wanted.x is not None else None
    return await db.fetch(sql["walk"], pools, x_id, wanted.state, wanted.before, limit, depth)


async def live_of_orders(
    db: Database, app_id: int, order_ids: Sequence[str], limit: int
) -> list[tuple[int, int, UUID]]:
    """Return (place in ``order_ids``, pool id, binding id) of the orders' live bindings."""
    rows = await db.fetch(statements("listing")["live_of_orders"], app_id, list(order_ids), limit)
    return [(row["ord"] - 1, row["pool_id"], row["id"]) for row in rows]


@dataclass(frozen=True, slots=True)
class Figures:
    """How full a pool is; ``most_barred`` is the number of X that the busiest party may not get now.

    ``places`` are all 0 where X numbers go to pairs; ``cohorts`` are the sample of late calls, by day.
    """

    live: int
    x_in_use: int
    resting: int
    most_barred: int
    as_of: datetime
    places: PlaceCounts = field(default_factory=PlaceCounts)
    cohorts: tuple[Cohort, ...] = ()


async def figures(db: Database, pools: Sequence[int]) -> dict[int, Figures]:
    """Count; reads all seats, slots and places of the pools."""
    rows = await db.fetch(statements("listing")["figures"], list(pools))
    counted = await places.counts(db, pools)
    known = await learned.of_pools(db, pools)
    return {
        row["pool_id"]: Figures(
            row["live"],
            row["x_in_use"],
            row["resting"],
            row["most_barred"],
            row["as_of"],
            counted[row["pool_id"]],
            tuple(known[row["pool_id"]].cohorts),
        )
        for row in rows
    }
