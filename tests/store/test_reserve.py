from __future__ import annotations

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from broker.domain.ids import local_subscription
from broker.store import idempotency
from broker.store.allocation import BatchTorn, LockMode, LocksBusy, histories
from broker.store.idempotency import KeyAsk
from tests.store.shop import QUARANTINE_S, Shop, with_key

_A, _B, _C, _D = 11, -22, 33, 2**63 - 1


async def test_a_winner_is_written_whole(shop: Shop) -> None:
    """A won claim leaves a pending line with a seat, its binding, two live slots and one open bind call."""
    claim = await shop.won(shop.claim(_A, _B))
    line, binding = await shop.row("line", claim.line_id), await shop.row("binding", claim.binding_id)
    assert (line["state"], line["x_id"], line["calls"], line["confirmed_at"]) == ("pending", 0, 1, None)
    assert 0 <= line["seat"] < claim.cap
    assert (binding["state"], binding["line_id"], binding["expires_at"]) == ("pending", claim.line_id, None)
    assert (binding["order_id"], binding["user_data"], binding["metadata"]) == ("order-1", "their words", '{"k": 1}')
    assert await shop.slots_of(claim) == {_A: None, _B: None}
    assert await shop.calls_of(claim) == [(1, "bind", "open", 1)]
    assert await shop.wrong_books() == []


async def test_what_nobody_has_to_be_asked_for_is_active_at_once(shop: Shop) -> None:
    """Beside a claim that waits for its platform: confirmed, its time begun, told of once, and without a call."""
    asked, ours = shop.claim(_A, _B), shop.claim(_C, _D)._replace(at_once=True)
    endless = shop.claim(5, 6, 1, ttl_s=0)._replace(at_once=True)
    assert await shop.reserve(asked, ours, endless) == ["won", "won", "won"]
    assert [(await shop.row("line", one.line_id))["state"] for one in (asked, ours)] == ["pending", "active"]
    line, binding = await shop.row("line", ours.line_id), await shop.row("binding", ours.binding_id)
    assert line["confirmed_at"] == binding["created_at"]
    assert line["expires_at"] - line["confirmed_at"] == timedelta(seconds=ours.line_ttl_s)
    assert binding["state"] == "active"
    assert binding["expires_at"] - binding["created_at"] == timedelta(seconds=ours.ttl_s)
    assert line["subscription_id"] == local_subscription(ours.line_id)
    assert (await shop.row("line", endless.line_id))["expires_at"] is None
    assert [row["line_id"] for row in await shop.db.fetch("SELECT line_id FROM platform_call")] == [asked.line_id]
    told = await shop.db.fetch("SELECT binding_id, x, expires_at FROM event WHERE type = 'binding.active' ORDER BY id")
    assert {row["binding_id"]: row["expires_at"] for row in told} == {
        ours.binding_id: binding["expires_at"], endless.binding_id: None,
    }  # fmt: skip
    assert len(told) == 2
    assert await shop.wrong_books() == []


async def test_answers_are_in_the_order_of_the_claims(shop: Shop) -> None:
    """Outcomes come in the order asked, however the claims are sorted inside."""
    await shop.won(shop.claim(_A, _B, 1))
    claims = [
        shop.claim(5, 6, 3, pool=shop.pools[1]),
        shop.claim(_A, 8, 1),
        shop.claim(9, 10, 0),
        shop.claim(7, _B, 1),
        shop.claim(1, 2, 2),
    ]
    assert await shop.reserve(*claims) == ["won", "barred", "won", "barred", "won"]


@pytest.mark.parametrize("held", [_A, _B])
async def test_a_party_locked_elsewhere_makes_its_item_busy(shop: Shop, database_url: str, held: int) -> None:
    """While another transaction holds a party's lock its items are busy and leave nothing; their neighbours win."""
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(party_lock($1, $2))", shop.pool, held)
            assert await shop.reserve(shop.claim(_A, _B), shop.claim(_C, _D)) == ["busy", "won"]
            assert (await shop.counts())["line"] == 1
            # The lock is the pool's: the same party in another pool is free.
            assert await shop.reserve(shop.claim(_A, _B, pool=shop.pools[1])) == ["won"]
        assert await shop.reserve(shop.claim(_A, _B)) == ["won"]
    finally:
        await other.close()
    assert await shop.wrong_books() == []


async def test_waiting_for_a_lock_ends(shop: Shop, database_url: str) -> None:
    """With LockMode.WAIT a lock that stays held ends as LocksBusy, with nothing written; a free one is taken."""
    before = await shop.contents()
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(party_lock($1, $2))", shop.pool, _A)
            with pytest.raises(LocksBusy):
                await shop.reserve(shop.claim(_A, _B), mode=LockMode.WAIT)
        assert await shop.contents() == before
        assert await shop.reserve(shop.claim(_A, _B), mode=LockMode.WAIT) == ["won"]
        assert await shop.value("SHOW lock_timeout") == "0"
    finally:
        await other.close()


@pytest.mark.parametrize(("a", "b"), [(_A, _C), (_C, _A), (_B, _C), (_C, _B)])
async def test_a_party_behind_the_x_bars_it(shop: Shop, a: int, b: int) -> None:
    """An X is barred for whoever shares a party with a line on it; the loser leaves nothing."""
    await shop.won(shop.claim(_A, _B))
    before = await shop.contents()
    assert await shop.reserve(shop.claim(a, b)) == ["barred"]
    assert await shop.reserve(shop.claim(_A, _B)) == ["barred"]
    assert await shop.contents() == before
    assert await shop.reserve(shop.claim(a, b, 1)) == ["won"]


async def test_rest_bars_other_counterparts_until_the_clock_says_so(shop: Shop) -> None:
    """A resting X is barred for a different counterpart to the last second, and free from then on."""
    await shop.test_clock()
    old = await shop.active(shop.claim(_A, _B))
    await shop.run("SELECT * FROM release_bindings(ARRAY[$1::int], ARRAY[$2::uuid], ARRAY[$3::int], 'released', '8 s')",
                   old.pool_id, old.binding_id, shop.app_id)  # fmt: skip
    assert await shop.end(old)
    before = await shop.contents()
    for pair in ((_A, _C), (_C, _A), (_B, _C), (_C, _B)):
        assert await shop.reserve(shop.claim(*pair)) == ["barred"]
    assert await shop.contents() == before
    await shop.advance(QUARANTINE_S - 30)
    assert await shop.reserve(shop.claim(_A, _C)) == ["barred"]
    await shop.advance(31)
    assert await shop.reserve(shop.claim(_A, _C), shop.claim(_D, _B)) == ["won", "won"]
    assert await shop.wrong_books() == []


@pytest.mark.parametrize("pair", [(_A, _B), (_B, _A)])
async def test_the_same_pair_may_come_back_while_it_rests(shop: Shop, pair: tuple[int, int]) -> None:
    """The pair that left an X may share it again at once, in either order, and takes the resting slots over."""
    old = await shop.won(shop.claim(_A, _B))
    assert await shop.end(old, no=1)
    new = await shop.won(shop.claim(*pair))
    assert await shop.slots_of(new) == {_A: None, _B: None}
    assert await shop.slots_of(old) == {}
    assert await shop.wrong_books() == []


@pytest.mark.parametrize("cap", [7, 32, 33, 400])
async def test_only_the_seats_left_are_won(shop: Shop, cap: int) -> None:
    """Of a batch larger than what an X has left exactly the free seats win, and the rest is full: few seats or many."""
    first = [shop.claim(1000 + n, 2000 + n, cap=cap) for n in range(cap - 2)]
    assert await shop.reserve(*first) == ["won"] * (cap - 2)
    second = [shop.claim(3000 + n, 4000 + n, cap=cap) for n in range(6)] + [shop.claim(1, 2, 1, cap=cap)]
    outcomes = await shop.reserve(*second)
    assert sorted(outcomes[:6]) == ["full"] * 4 + ["won"] * 2
    assert outcomes[6] == "won"
    assert await shop.reserve(shop.claim(501, 502, cap=cap)) == ["full"]
    assert await shop.value("SELECT count(*) FROM line WHERE x_id = 0 AND seat BETWEEN 0 AND $1", cap - 1) == cap
    assert (await shop.counts()) == {
        "line": cap + 1, "binding": cap + 1, "slot": 2 * cap + 2, "platform_call": cap + 1, "idempotency": 0,
    }  # fmt: skip
    # An ended line gives its seat back.
    assert await shop.end(first[0], no=1)
    assert await shop.reserve(shop.claim(501, 502, cap=cap), shop.claim(503, 504, cap=cap)) == ["won", "full"]
    assert await shop.wrong_books() == []


async def test_a_cap_lowered_below_the_lines_admits_nobody(shop: Shop) -> None:
    """Lines that sit above a lowered cap keep their seats; new ones find seats below it only."""
    assert await shop.reserve(*(shop.claim(10 + n, 50 + n, cap=4) for n in range(4))) == ["won"] * 4
    assert await shop.reserve(shop.claim(1, 2, cap=2)) == ["full"]


@pytest.mark.parametrize("state", ["frozen", "draining", "suspended", "retired"])
async def test_an_x_that_is_not_open_is_closed(shop: Shop, state: str) -> None:
    """Only open X numbers are handed out, whatever the chooser believed."""
    await shop.run("UPDATE x_number SET state = $1 WHERE pool_id = $2 AND x_id = 0", state, shop.pool)
    before = await shop.contents()
    assert await shop.reserve(shop.claim(_A, _B)) == ["closed"]
    assert await shop.contents() == before
    assert await shop.reserve(shop.claim(_A, _B, 1)) == ["won"]


async def test_a_closed_pool_and_an_unknown_x_are_closed(shop: Shop) -> None:
    """A closed pool, an X that the pool does not have and a pool that does not exist hand out nothing."""
    await shop.run("UPDATE pool SET state = 'closed' WHERE id = $1", shop.pools[1])
    outcomes = await shop.reserve(
        shop.claim(_A, _B, pool=shop.pools[1]), shop.claim(_A, _B, 99), shop.claim(_A, _B, pool=9999)
    )
    assert outcomes == ["closed"] * 3
    assert set((await shop.counts()).values()) == {0}


def _ask(shop: Shop, name: bytes, *, busy_s: float = 30.0) -> KeyAsk:
    return KeyAsk(shop.app_id, shop.caller_id, name, b"request", busy_s)


async def test_a_claim_under_a_key_links_it(shop: Shop) -> None:
    """A won claim writes its binding into the idempotency record in the same transaction."""
    ask = _ask(shop, b"key")
    (state,) = await idempotency.begin(shop.db, [ask])
    assert state.token == 1
    claim = await shop.won(with_key(shop.claim(_A, _B), b"key", 1))
    row = await shop.db.fetchrow("SELECT pool_id, binding_id FROM idempotency")
    assert row is not None
    assert tuple(row) == (claim.pool_id, claim.binding_id)


async def test_a_claim_with_an_old_token_is_superseded(shop: Shop) -> None:
    """After a twin took the key over, or answered, the slower one claims nothing."""
    await idempotency.begin(shop.db, [_ask(shop, b"key", busy_s=-1.0)])
    (twin,) = await idempotency.begin(shop.db, [_ask(shop, b"key")])
    assert twin.token == 2
    before = await shop.contents()
    stale = with_key(shop.claim(_A, _B), b"key", 1)
    unknown = with_key(shop.claim(_C, _D), b"nobody knows it", 1)
    assert await shop.reserve(stale, unknown) == ["superseded", "superseded"]
    assert await shop.contents() == before
    fresh = with_key(shop.claim(_A, _B), b"key", 2)
    again = with_key(shop.claim(_C, _D), b"key", 2)
    assert await shop.reserve(fresh) == ["won"]
    assert await shop.reserve(again) == ["superseded"]
    assert await shop.wrong_books() == []


async def test_losers_with_a_key_leave_the_record_alone(shop: Shop, database_url: str) -> None:
    """A key's record names no binding after its claim lost for whatever reason; the same key may win later."""
    for name in (b"barred", b"busy", b"full", b"closed"):
        await idempotency.begin(shop.db, [_ask(shop, name)])
    await shop.won(shop.claim(_A, _B))
    await shop.won(shop.claim(71, 72, 1, cap=1))
    await shop.run("UPDATE x_number SET state = 'frozen' WHERE pool_id = $1 AND x_id = 3", shop.pool)
    other = await asyncpg.connect(database_url)
    claims = [
        with_key(shop.claim(_A, _C), b"barred", 1),
        with_key(shop.claim(_D, 55), b"busy", 1),
        with_key(shop.claim(73, 74, 1, cap=1), b"full", 1),
        with_key(shop.claim(75, 76, 3), b"closed", 1),
    ]
    before = await shop.contents()
    try:
        async with other.transaction():
            await other.execute("SELECT pg_advisory_xact_lock(party_lock($1, $2))", shop.pool, _D)
            assert await shop.reserve(*claims) == ["barred", "busy", "full", "closed"]
    finally:
        await other.close()
    assert await shop.contents() == before
    assert await shop.reserve(*(claim._replace(x_id=2) for claim in claims)) == ["won"] * 4


async def test_a_claim_that_loses_its_seat_leaves_its_key_unlinked(shop: Shop, database_url: str) -> None:
    """A claim whose seat another batch was just taking finds the X full; its key's record does not name its binding."""
    await idempotency.begin(shop.db, [_ask(shop, b"key")])
    other = await asyncpg.connect(database_url)
    try:
        transaction = other.transaction()
        await transaction.start()
        # An uncommitted line on the only seat: invisible to the search for a free one, met at the insert.
        await other.execute(
            """
            INSERT INTO line (pool_id, id, app_id, x_id, seat, state, direction, calls, ttl_s, a_key, b_key, a_sealed,
                              b_sealed)
            VALUES ($1, gen_random_uuid(), $2, 0, 0, 'pending', 'both', 1, 60, 1, 2, '', '')
            """,
            shop.pool,
            shop.app_id,
        )
        waiting = asyncio.create_task(
            shop.reserve(with_key(shop.claim(_A, _B, cap=1), b"key", 1), shop.claim(_C, _D, 1))
        )
        while not await shop.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'"):
            pass
        await transaction.commit()
        assert await waiting == ["full", "won"]
    finally:
        await other.close()
    assert await shop.value("SELECT binding_id IS NULL AND pool_id IS NULL FROM idempotency")
    assert await shop.reserve(with_key(shop.claim(_A, _B, 2), b"key", 1)) == ["won"]


async def test_two_claims_of_one_batch_for_the_same_party_and_x(shop: Shop) -> None:
    """One of two such claims is named torn and nothing is written; sent again without it, the rest wins."""
    first, neighbour = shop.claim(_A, _B), shop.claim(7, 8)
    before = await shop.contents()
    for double in (shop.claim(_A, _C), shop.claim(_C, _A), shop.claim(_B, _A)):
        with pytest.raises(BatchTorn) as torn:
            await shop.reserve(first, double, neighbour)
        assert torn.value.places in ({0}, {1})
        assert await shop.contents() == before
    with pytest.raises(BatchTorn):
        await shop.reserve(shop.claim(5, 5))
    assert await shop.reserve(first, neighbour) == ["won", "won"]
    assert await shop.wrong_books() == []


async def test_one_party_may_get_several_x_in_one_batch(shop: Shop) -> None:
    """Claims of the same party for different X share a batch."""
    assert await shop.reserve(*(shop.claim(_A, 100 + x, x) for x in range(4))) == ["won"] * 4


async def test_histories_tell_live_resting_and_rested(shop: Shop) -> None:
    """A view has what the party is behind, what rests and for whom, and when each was or will be left."""
    await shop.test_clock()
    live = await shop.won(shop.claim(_A, _B, 0))
    resting = await shop.won(shop.claim(_A, _C, 1))
    rested = await shop.won(shop.claim(_A, _D, 2))
    assert await shop.end(rested, no=1, rest_s=10)
    await shop.advance(20)
    assert await shop.end(resting, no=1, rest_s=60)
    views = await histories(shop.db, [(shop.pool, _A), (shop.pool, _B), (shop.pools[1], _A), (shop.pool, 777)])
    mine = views[shop.pool, _A]
    assert mine.live == 0b001
    assert mine.resting == {1: _C}
    assert set(mine.left) == {1, 2}
    assert mine.left[2] < mine.left[1]
    assert mine.last_with == {1: _C, 2: _D}
    assert mine.barred(_C) == 0b001
    assert mine.barred(_D) == 0b011
    assert views[shop.pool, _B].live == 1 << live.x_id
    assert views[shop.pools[1], _A].live == 0
    assert views[shop.pool, 777].left == {}
