"""A rest that the same pair broke off goes on when nothing comes of its return; the limiter never strands an app."""

from __future__ import annotations

import pytest

from broker.domain.ids import new_id
from broker.store import allocation, bindings, calls
from broker.store.allocation import Claim, LockMode, Rechoice
from broker.store.bindings import ReleaseAsk
from broker.store.limits import Limit, take_slots
from tests.store.shop import Shop, ended

_REST_S = 600.0


async def _returned(shop: Shop) -> Claim:
    """A and B rest on X and come back to it: the claim of their return."""
    first = await shop.active(shop.claim(1, 2))
    await bindings.release(
        shop.db, [ReleaseAsk(first.pool_id, first.binding_id, first.app_id)], reason="released", lease_s=8
    )
    assert await shop.end(first, rest_s=_REST_S)
    assert await shop.reserve(shop.claim(1, 3)) == ["barred"]
    return await shop.won(shop.claim(1, 2))


async def test_a_refused_return_does_not_end_the_rest(shop: Shop) -> None:
    """A pair's bind on its old X is refused: for everybody else both still rest on it."""
    again = await _returned(shop)
    await calls.settle_ended(shop.db, [ended(again, no=1, rest_s=0.0, state="failed")])
    assert await shop.reserve(shop.claim(1, 3)) == ["barred"]
    assert await shop.reserve(shop.claim(4, 2)) == ["barred"]


async def test_choosing_again_does_not_shorten_the_rest(shop: Shop) -> None:
    """A pair that returned and was given another X rests on the old one as long as it had to."""
    again = await _returned(shop)
    item = Rechoice(
        pool_id=again.pool_id, old_line=again.line_id, no=1, token=1, bar_s=60.0, outcome="capacity", http=403,
        code="1012008", x_id=1, cap=500, line_id=new_id(), a_sealed=b"a", b_sealed=b"b", chosen="pack:longest_rest",
    )  # fmt: skip
    assert await allocation.rechoose(shop.db, item, mode=LockMode.WAIT, lease_s=8) == "won"
    rests = await shop.slots_of(again)
    assert all(rest is not None and rest > _REST_S - 100 for rest in rests.values()), rests


@pytest.mark.parametrize(
    ("before", "after"),
    [((0.1, 100), (10, 100)), ((10, 6000), (10, 1))],
    ids=["rate raised", "burst lowered"],
)
async def test_a_new_limit_works_within_seconds(
    shop: Shop, before: tuple[float, int], after: tuple[float, int]
) -> None:
    """What the old limit had put off does not hold the new one up."""
    await take_slots(shop.db, shop.app_id, want=1, limit=Limit(*before), horizon_s=0.2)
    slots = await take_slots(shop.db, shop.app_id, want=1, limit=Limit(*after), horizon_s=0.2)
    assert slots.first_s < 6


async def test_a_clock_that_went_back_stops_nobody(shop: Shop) -> None:
    """With the stored time an hour ahead the next slot is seconds away."""
    await take_slots(shop.db, shop.app_id, want=1, limit=Limit(10, 1), horizon_s=0.2)
    await shop.run("UPDATE limiter SET tat = tat + interval '1 hour'")
    slots = await take_slots(shop.db, shop.app_id, want=1, limit=Limit(10, 1), horizon_s=0.2)
    assert slots.first_s < 6
