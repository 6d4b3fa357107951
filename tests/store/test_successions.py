"""Bindings that replace others: the old one ends with the first moment of the new one, and not without it."""

from __future__ import annotations

from uuid import UUID

from broker.domain.ids import new_id
from broker.store import bindings, successions
from broker.store.allocation import Claim
from broker.store.bindings import ReleaseAsk
from broker.store.successions import Succession
from tests.store.shop import LEASE_S, Shop


def intent(shop: Shop, old: Claim, new: UUID, *, within_s: float = 60.0, key_hash: bytes | None = None) -> Succession:
    """The new binding may be in any pool of the shop."""
    return Succession(old.pool_id, old.binding_id, old.app_id, new, tuple(shop.pools), key_hash, within_s)


async def state(shop: Shop, claim: Claim) -> str:
    """What became of a binding."""
    return str(await shop.value("SELECT state FROM binding WHERE id = $1", claim.binding_id))


async def settle(shop: Shop) -> int:
    """What every instance does once a second."""
    return await successions.settle(shop.db, limit=100)


async def test_the_old_one_ends_with_the_new_one(shop: Shop) -> None:
    """Nothing happens while the new binding is not there, nor while it is pending; then the old one is released."""
    old, new = await shop.active(shop.claim(1, 2)), shop.claim(1, 3, x=1)
    assert await successions.begin(shop.db, intent(shop, old, new.binding_id)) == "begun"
    assert (await settle(shop), await state(shop, old)) == (0, "active")
    await shop.active(new)
    assert (await settle(shop), await state(shop, old)) == (1, "releasing")
    assert await shop.value("SELECT reason FROM binding WHERE id = $1", old.binding_id) == "moved"
    assert await settle(shop) == 0


async def test_a_new_one_that_was_active_counts_even_if_it_is_gone(shop: Shop) -> None:
    """Released before anybody looked: the order system had been told of it, so the old one ends all the same."""
    old, new = await shop.active(shop.claim(1, 2)), shop.claim(1, 3, x=1)
    await successions.begin(shop.db, intent(shop, old, new.binding_id))
    await shop.active(new)
    ask = ReleaseAsk(new.pool_id, new.binding_id, new.app_id)
    await bindings.release(shop.db, [ask], reason="released", lease_s=LEASE_S)
    await settle(shop)
    assert await state(shop, old) == "releasing"


async def test_an_intent_that_came_to_nothing_is_forgotten(shop: Shop) -> None:
    """Its time over and no binding there: the old one stands, and the next request may try; before, it is refused."""
    old = await shop.active(shop.claim(1, 2))
    first, second = intent(shop, old, new_id()), intent(shop, old, new_id())
    assert await successions.begin(shop.db, first) == "begun"
    assert await successions.begin(shop.db, second) == "busy"
    await shop.run("UPDATE succession SET until = clock_timestamp()")
    assert await successions.begin(shop.db, second) == "begun"
    await shop.run("UPDATE succession SET until = clock_timestamp()")
    assert (await settle(shop), await state(shop, old)) == (1, "active")
    await successions.begin(shop.db, third := intent(shop, old, new_id()))
    await successions.forget(shop.db, third)
    assert await successions.begin(shop.db, first) == "begun"


async def test_what_was_claimed_is_not_taken_back(shop: Shop) -> None:
    """Neither by its own request nor by the next one."""
    old, new = await shop.active(shop.claim(1, 2)), shop.claim(1, 3, x=1)
    item = intent(shop, old, new.binding_id, within_s=0.0, key_hash=b"k")
    await successions.begin(shop.db, item)
    await shop.won(new)
    await successions.forget(shop.db, item)
    assert await successions.begin(shop.db, intent(shop, old, new_id())) == "busy"
    assert await successions.made(shop.db, (old.pool_id, old.binding_id), b"k") == (new.pool_id, new.binding_id)
    assert await successions.made(shop.db, (old.pool_id, old.binding_id), b"other") is None


async def test_what_has_ended_is_not_replaced(shop: Shop) -> None:
    """A binding that ended since it was read: nothing is written down."""
    old, new = await shop.active(shop.claim(1, 2)), shop.claim(1, 3, x=1)
    await successions.begin(shop.db, intent(shop, old, new.binding_id))
    await shop.active(new)
    await settle(shop)
    assert await successions.begin(shop.db, intent(shop, old, new_id())) == "over"
    assert await shop.value("SELECT count(*) FROM succession WHERE settled_at IS NULL") == 0


async def test_old_rows_go(shop: Shop) -> None:
    """Settled ones are kept for a day, for repeats."""
    old, new = await shop.active(shop.claim(1, 2)), shop.claim(1, 3, x=1)
    await successions.begin(shop.db, intent(shop, old, new.binding_id))
    await shop.active(new)
    await settle(shop)
    await successions.sweep(shop.db, limit=10)
    assert await shop.value("SELECT count(*) FROM succession") == 1
    await shop.run("UPDATE succession SET settled_at = settled_at - interval '26 hours'")
    await successions.sweep(shop.db, limit=10)
    assert await shop.value("SELECT count(*) FROM succession") == 0
