"""What operators set of places, and what they see of them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broker.errors import Conflict
from broker.flows.operate import apps, numbers, pools
from broker.flows.operate.desk import Desk
from broker.flows.operate.fields import AppChange, Move, NewPool, PoolChange, read
from broker.store.database import Database
from tests.store.stall import Stall, open_second_pool, open_stall
from tests.store.test_operate import _VAULT


@pytest.fixture
async def axe(database_url: str) -> AsyncIterator[Stall]:
    """Four X numbers of twelve extensions each."""
    db = Database(database_url, connections=4, timeout_s=20)
    await db.open()
    yield await open_stall(db, "axe", per_x=12)
    await db.close()


async def test_a_pool_tells_its_places_and_what_safety_costs(axe: Stall) -> None:
    """Places, held, resting and free; a typo-safe pool says what each X would have without that."""
    desk = Desk(axe.db, _VAULT)
    held, left = axe.want(1), axe.want(2)
    await axe.give(held, left)
    await axe.leave(left)
    (plain,) = await pools.every(desk, "stall-axe")
    assert [plain[name] for name in ("places", "held", "resting", "free", "places_per_x")] == [48, 1, 1, 46, 12]
    assert plain["places_per_x_unsafe"] is None
    safe = await pools.change(desk, "stall-axe", "stall", read(PoolChange, {"typo_safe": True}))
    assert [safe[name] for name in ("places", "places_per_x", "places_per_x_unsafe")] == [40, 10, 12]
    pairs = await pools.create(desk, "stall-axe", read(NewPool, {"name": "empty", "area_code": "010"}))
    assert pairs["places"] == 0


async def test_settings_that_would_pull_the_ground_away(axe: Stall) -> None:
    """The number of digits stays while an extension is held, and a pool's routing once it has numbers."""
    desk = Desk(axe.db, _VAULT)
    claim = axe.want(1)
    await axe.where(claim)
    with pytest.raises(Conflict, match="digits"):
        await apps.change(desk, "stall-axe", read(AppChange, {"extension_digits": 3}))
    with pytest.raises(Conflict, match="routing"):
        await pools.change(desk, "stall-axe", "stall", read(PoolChange, {"routing": "one"}))
    await axe.leave(claim)
    changed = await apps.change(desk, "stall-axe", read(AppChange, {"extension_digits": 3, "owner": "us"}))
    assert (changed["extension_digits"], changed["owner"]) == (3, "us")


async def test_a_number_on_which_somebody_rests_stays(axe: Stall) -> None:
    """While a place of it rests, a number is neither releasable nor moved; then it is, and has places there."""
    desk = Desk(axe.db, _VAULT)
    annex = await open_second_pool(axe)
    claim = axe.want(1)
    x, _ = await axe.where(claim)
    await axe.leave(claim)
    row = await axe.db.fetchrow("SELECT number FROM x_number WHERE pool_id = $1 AND x_id = $2", axe.pool, x)
    assert row is not None
    await axe.run(
        "UPDATE x_number SET state = 'draining', state_since = state_since - interval '1 minute' WHERE number = $1",
        row["number"],
    )
    moving = read(Move, {"number": row["number"], "to": "annex"})
    with pytest.raises(Conflict, match="rests"):
        await numbers.move(desk, "stall-axe", moving)
    await axe.run("UPDATE place SET until = broker_now() WHERE until < 'infinity' AND until > broker_now()")
    await numbers.move(desk, "stall-axe", moving)
    assert await axe.value("SELECT count(*) FROM place WHERE pool_id = $1 AND in_use", annex) == 5 * 12
