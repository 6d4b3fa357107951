"""Pools: create, list, change, close, open."""

from __future__ import annotations

from broker.errors import Conflict, NotFound
from broker.flows.operate.desk import Desk, Shown, app_id, shown
from broker.flows.operate.fields import NewPool, PoolChange
from broker.log import scrubbed
from broker.store.statements import statements

_LONG_S = 60.0


async def every(desk: Desk, app: str) -> list[Shown]:
    """Return the pools of an app, with how many numbers they have and how many of these are open."""
    return shown(await desk.db.fetch(statements("operate")["pools"], await app_id(desk, app), None))


async def create(desk: Desk, app: str, new: NewPool) -> Shown:
    """Create a pool.

    Raises:
        NotFound: there is no such app.
        Conflict: the app has a pool of this name.
    """
    owner = await app_id(desk, app)
    made = await desk.db.fetchrow(
        statements("operate")["add_pool"],
        owner,
        new.name,
        new.area_code,
        new.routing,
        new.typo_safe,
        new.low_percent,
    )
    if made is None:
        raise Conflict(f"The app has a pool '{new.name}' already.")
    return await _show(desk, owner, new.name)


async def change(desk: Desk, app: str, pool: str, wanted: PoolChange) -> Shown:
    """Change what is given and leave the rest; what is bound stays bound.

    Raises:
        NotFound: there is no such app or pool.
        Conflict: the pool has numbers, and with them a routing.
    """
    owner = await app_id(desk, app)
    given = wanted.model_dump(exclude_unset=True)
    changed = await desk.db.fetchrow(
        statements("operate")["change_pool"],
        owner,
        pool,
        given.get("routing"),
        given.get("typo_safe"),
        "low_percent" in given,
        given.get("low_percent"),
        timeout_s=_LONG_S,
    )
    found = await _show(desk, owner, pool)
    if changed is None:
        raise Conflict(f"The pool '{pool}' has, or had, numbers: its routing stays. Make another pool.")
    return found


async def close(desk: Desk, app: str, pool: str) -> Shown:
    """Give out no X of the pool any more; its lines live on.

    Raises:
        NotFound: there is no such app or pool.
    """
    return await _set_state(desk, app, pool, "closed")


async def reopen(desk: Desk, app: str, pool: str) -> Shown:
    """Give out the pool's X again.

    Raises:
        NotFound: there is no such app or pool.
    """
    return await _set_state(desk, app, pool, "open")


async def _set_state(desk: Desk, app: str, pool: str, state: str) -> Shown:
    owner = await app_id(desk, app)
    if await desk.db.fetchrow(statements("operate")["set_pool_state"], owner, pool, state) is None:
        raise _no_pool(pool)
    return await _show(desk, owner, pool)


async def _show(desk: Desk, owner: int, pool: str) -> Shown:
    row = await desk.db.fetchrow(statements("operate")["pools"], owner, pool)
    if row is None:
        raise _no_pool(pool)
    return dict(row)


def _no_pool(pool: str) -> NotFound:
    return NotFound(f"The app has no pool '{scrubbed(pool)}'.")
