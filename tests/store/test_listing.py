"""Which bindings a look finds, in which order, and how far it went."""

from __future__ import annotations

import time
from uuid import UUID

from broker.domain.ids import new_id
from broker.store import bindings, listing
from broker.store.allocation import Claim
from broker.store.bindings import ReleaseAsk
from broker.store.listing import Figures, Place, Wanted
from tests.store.shop import LEASE_S, Shop


async def _all(shop: Shop, wanted: Wanted) -> list[UUID]:
    """Follow the pages to their end."""
    found: list[UUID] = []
    before: UUID | None = listing.NEWEST
    while before is not None:
        page = await listing.find(
            shop.db,
            Wanted(
                app_id=wanted.app_id, pools=wanted.pools, limit=wanted.limit, before=before, order_id=wanted.order_id,
                x=wanted.x, state=wanted.state, party_key=wanted.party_key,
            ),
        )  # fmt: skip
        assert page.next_before is None or page.next_before < before
        assert len(page.rows) <= wanted.limit
        found += [row for _, row in page.rows]
        before = page.next_before
    return found


def _newest_first(*claims: Claim) -> list[UUID]:
    return sorted((claim.binding_id for claim in claims), reverse=True)


async def _released(shop: Shop, claim: Claim) -> Claim:
    await bindings.release(
        shop.db, [ReleaseAsk(claim.pool_id, claim.binding_id, shop.app_id)], reason="released", lease_s=LEASE_S
    )
    assert await shop.end(claim)
    return claim


async def test_a_walk_over_pools_is_complete(shop: Shop) -> None:
    """Pages of any size give every binding once, newest first, however unevenly pools are filled."""
    first, second = shop.pools
    claims = [await shop.active(shop.claim(10 + n, 100 + n, pool=first)) for n in range(9)]
    claims += [await shop.active(shop.claim(50 + n, 200 + n, pool=second)) for n in range(2)]
    for limit in (1, 2, 3, 11, 50):
        assert await _all(shop, Wanted(shop.app_id, shop.pools, limit)) == _newest_first(*claims)
    assert await _all(shop, Wanted(shop.app_id, (second,), 1)) == _newest_first(*claims[9:])
    assert await _all(shop, Wanted(shop.app_id, (), 5)) == []


async def test_a_filtered_walk_ends_where_it_looked(shop: Shop) -> None:
    """Looking at a few rows at a time, a rare state is found on a later page; nothing is lost or found twice."""
    first, second = shop.pools
    rare = [await _released(shop, await shop.active(shop.claim(1, 2, 1, pool=pool))) for pool in shop.pools]
    for n in range(8):
        await shop.active(shop.claim(10 + n, 100 + n, pool=first))
    rare.append(await _released(shop, await shop.active(shop.claim(3, 4, 1, pool=second))))
    found, before, pages = [], listing.NEWEST, 0
    while True:
        rows = await shop.db.fetch(
            "SELECT id, fits, cut FROM walk_pools($1, 1, 'released', $2, 100, 3)", list(shop.pools), before
        )
        pages += 1
        found += [row["id"] for row in rows if row["fits"]]
        if not rows or not rows[-1]["cut"]:
            break
        before = rows[-1]["id"]
    assert found == _newest_first(*rare)
    assert pages > 2


async def test_by_order(shop: Shop) -> None:
    """An order's bindings of this app, in any state or in one; live_of_orders leaves the ended ones out."""
    live, gone = await shop.active(shop.claim(1, 2)), await _released(shop, await shop.active(shop.claim(3, 4, 1)))
    await shop.run("UPDATE binding SET order_id = 'mine' WHERE id = ANY ($1)", [live.binding_id, gone.binding_id])
    other = await shop.active(shop.claim(5, 6))
    mine = Wanted(shop.app_id, shop.pools, 50, order_id="mine")
    assert await _all(shop, mine) == _newest_first(live, gone)
    assert await _all(shop, Wanted(shop.app_id, shop.pools, 50, order_id="mine", state="released")) == [gone.binding_id]
    assert await _all(shop, Wanted(shop.app_id + 1, shop.pools, 50, order_id="mine")) == []
    found = await listing.live_of_orders(shop.db, shop.app_id, ["none", "mine", "order-1"], 10)
    assert found == [(1, live.pool_id, live.binding_id), (2, other.pool_id, other.binding_id)]
    assert len(await listing.live_of_orders(shop.db, shop.app_id, ["mine", "order-1"], 1)) == 1


async def test_by_x(shop: Shop) -> None:
    """A live state is found by the seats of the X, any other by a walk: both agree."""
    x = Place(shop.pool, 1)
    live = [await shop.active(shop.claim(10 + n, 100 + n, 1)) for n in range(3)]
    gone = await _released(shop, await shop.active(shop.claim(1, 2, 1)))
    await shop.active(shop.claim(10, 100, 2))
    for limit in (1, 50):
        assert await _all(shop, Wanted(shop.app_id, shop.pools, limit, x=x, state="active")) == _newest_first(*live)
        assert await _all(shop, Wanted(shop.app_id, shop.pools, limit, x=x, state="released")) == [gone.binding_id]
        assert await _all(shop, Wanted(shop.app_id, shop.pools, limit, x=x)) == _newest_first(*live, gone)


async def test_by_party(shop: Shop) -> None:
    """A party's bindings on either side and in every pool; of each X the last one."""
    first, second = shop.pools
    mine = [
        await shop.active(shop.claim(7, 20)),
        await shop.active(shop.claim(21, 7, 1)),
        await _released(shop, await shop.active(shop.claim(7, 22, pool=second))),
    ]
    await shop.active(shop.claim(20, 21, 2, pool=first))
    assert await _all(shop, Wanted(shop.app_id, shop.pools, 2, party_key=7)) == _newest_first(*mine)
    live = Wanted(shop.app_id, shop.pools, 2, party_key=7, state="active")
    assert await _all(shop, live) == _newest_first(*mine[:2])
    assert await _all(shop, Wanted(shop.app_id, shop.pools, 2, party_key=8)) == []


async def test_pages_start_below_an_id(shop: Shop) -> None:
    """What is bound after a page was read does not appear on the next one."""
    old = [await shop.active(shop.claim(10 + n, 100 + n)) for n in range(2)]
    page = await listing.find(shop.db, Wanted(shop.app_id, shop.pools, 1))
    await shop.active(shop.claim(50, 51))
    assert page.next_before is not None
    rest = await listing.find(shop.db, Wanted(shop.app_id, shop.pools, 5, before=page.next_before))
    assert [row for _, row in (*page.rows, *rest.rows)] == _newest_first(*old)
    assert rest.next_before is None
    assert new_id() < listing.NEWEST


async def test_figures(shop: Shop) -> None:
    """Live lines, X in use, rests and the most X barred for one party, per pool, at the time of the count."""
    first, second = shop.pools
    for x in range(3):
        await shop.active(shop.claim(1, 10 + x, x))
    await _released(shop, await shop.active(shop.claim(1, 13, 3)))
    found = await listing.figures(shop.db, shop.pools)
    as_of = found[first].as_of
    assert found == {first: Figures(3, 3, 2, 4, as_of), second: Figures(0, 0, 0, 0, as_of)}
    assert abs(as_of.timestamp() - time.time()) < 60
