"""What is told of bindings, apps and limits where it happens, and in which order."""

from __future__ import annotations

import pytest

from broker.domain.ids import new_id
from broker.errors import Unavailable
from broker.flows.feed import Feeds
from broker.store import allocation, events, limits
from broker.store.allocation import LockMode, Rechoice
from tests.store.pairs import GRACE_S, Pairs
from tests.store.shop import LEASE_S, TTL_S, Shop


async def _types(shop: Shop) -> list[str]:
    return [row["type"] for row in await shop.db.fetch("SELECT type FROM event ORDER BY id")]


async def test_who_ends_by_itself_has_expired(shop: Shop) -> None:
    """Also as one of several on a line that lives on."""
    await shop.test_clock()
    pairs = Pairs(shop)
    claim = await pairs.active()
    brief = await pairs.joined(claim, ttl_s=60)
    await shop.advance(61 + GRACE_S)
    await pairs.sweep()
    await shop.advance(TTL_S)
    await pairs.sweep()
    told = await shop.db.fetch("SELECT type, binding_id, reason FROM event ORDER BY id")
    assert [tuple(row) for row in told[-2:]] == [
        ("binding.expired", brief.binding_id, "expired"), ("binding.expired", claim.binding_id, "expired"),
    ]  # fmt: skip


async def test_a_conflict_is_told_of_the_x_that_it_was_on(shop: Shop) -> None:
    """The binding goes to another X in the same transaction; what is told is the one that somebody else is on."""
    claim = await shop.won(shop.claim(11, 22))
    item = Rechoice(
        pool_id=claim.pool_id, old_line=claim.line_id, no=1, token=1, bar_s=60.0, outcome="conflict", http=200,
        code="1012001", x_id=1, cap=500, line_id=new_id(), a_sealed=b"a", b_sealed=b"b", chosen="pack:longest_rest",
    )  # fmt: skip
    assert await allocation.rechoose(shop.db, item, mode=LockMode.WAIT, lease_s=LEASE_S) == "won"
    old = await shop.value("SELECT number FROM x_number WHERE pool_id = $1 AND x_id = 0", claim.pool_id)
    told = await shop.db.fetch("SELECT type, binding_id, x, reason FROM event")
    assert [tuple(row) for row in told] == [("binding.conflict", claim.binding_id, old, "1012001")]


async def test_flow_control_is_told_once_for_each_pause(shop: Shop) -> None:
    """Answers to what was under way when the first one came are the same refusal."""
    for _ in range(3):
        await limits.stop_for_flow(shop.db, shop.app_id, pause_s=60.0)
    assert await _types(shop) == ["limit.flow_control"]
    await shop.run("UPDATE platform_stop SET until = clock_timestamp() - interval '1 second'")
    await limits.stop_for_flow(shop.db, shop.app_id, pause_s=60.0)
    assert await _types(shop) == ["limit.flow_control"] * 2


async def test_several_changes_in_one_transaction_keep_their_order(shop: Shop) -> None:
    """What a trigger tells of each of them has its place, for many bindings in between each other."""
    claims = [await shop.won(shop.claim(n, n + 100)) for n in range(1, 21)]
    await shop.run(
        """
        DO $$
        BEGIN
          UPDATE binding SET state = 'active', expires_at = broker_now() + interval '1 hour';
          UPDATE binding SET expires_at = expires_at + interval '1 hour';
          UPDATE binding SET expires_at = expires_at + interval '1 hour' WHERE pool_id > 0;
          UPDATE binding SET state = 'released', reason = 'released', ended_at = broker_now();
        END
        $$
        """
    )
    while await events.place(shop.db, limit=7):
        pass
    told = await events.read(shop.db, shop.app_id, 0, span=1000)
    assert len(told) == 4 * len(claims)
    for claim in claims:
        own = [event for event in told if event.binding_id == claim.binding_id]
        assert [event.type for event in own] == [
            "binding.active", "binding.renewed", "binding.renewed", "binding.released"
        ]  # fmt: skip
        ends = [event.expires_at for event in own[:3] if event.expires_at is not None]
        assert ends == sorted(set(ends))


async def test_so_many_may_wait(shop: Shop) -> None:
    """Neither one app nor all together can have more waiters than there is room for; who goes makes room."""
    feeds = Feeds(shop.db)
    held = [feeds.waiter(1) for _ in range(200)]
    for one in held:
        await one.__aenter__()
    with pytest.raises(Unavailable):
        await feeds.waiter(1).__aenter__()
    others = [feeds.waiter(2 + n % 4) for n in range(800)]
    for one in others:
        await one.__aenter__()
    with pytest.raises(Unavailable):
        await feeds.waiter(6).__aenter__()
    await held.pop().__aexit__(None, None, None)
    async with feeds.waiter(6):
        assert feeds.waiting == 1000
    for one in held + others:
        await one.__aexit__(None, None, None)
    assert feeds.waiting == 0
