"""Deleting what has ended: everything goes in its time, and nothing that is needed yet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from broker.store import retention
from broker.store.allocation import Claim, LockMode
from broker.store.database import Database
from broker.store.retention import Kind
from tests.store.pairs import A, B, C, D, Pairs, b_becomes
from tests.store.shop import Shop, key_of, open_shop
from tests.store.test_races import _process as rival_process

_DAY_S = 86_400
_PEER = """
INSERT INTO peer (pool_id, id, app_id, binding_id, line_id, state, b_key, b_sealed, ttl_s, created_at)
VALUES ($1, gen_random_uuid(), $2, $3, $4, $5, 1, '', 0, broker_now())
"""
_PLACE = """
INSERT INTO place (pool_id, x_id, extension, until, line_id) VALUES ($1, $2, 0, broker_now() + interval '200 days', $3)
ON CONFLICT (pool_id, x_id, extension) DO UPDATE SET until = excluded.until, line_id = excluded.line_id
"""
_DRIFT = """
INSERT INTO drift (app_id, kind, subscription_id, pool_id, x_id, line_id, ours, action, first_run, last_run,
                   resolved_at)
VALUES ($1, 'absent_there', $2, $3, $4, $5, true, 'reported', 1, 1, CASE WHEN $2 = 'settled' THEN broker_now() END)
"""


@pytest.fixture
async def pairs(database_url: str) -> AsyncIterator[Pairs]:
    """A shop on the test clock, with orders of real phones."""
    db = Database(database_url, connections=4, timeout_s=20)
    await db.open()
    shop = await open_shop(db)
    await shop.test_clock()
    yield Pairs(shop)
    await db.close()


async def _walk(shop: Shop, kind: Kind, *, limit: int = 500) -> list[int]:
    """One whole walk that is due: how much each slice deleted."""
    gone = []
    while (done := await retention.forget(shop.db, kind, limit=limit)) is not None:
        gone.append(done.gone)
        assert len(gone) < 200, "it never comes to its end"
        if not done.more:
            break
    return gone


async def _forget(shop: Shop) -> dict[str, int]:
    """One walk of each kind."""
    return {kind: sum(await _walk(shop, kind)) for kind in retention.KINDS}


async def _ended(pairs: Pairs, a: str = A, b: str = B, x: int = 0) -> Claim:
    """A binding that was released and is settled."""
    claim = await pairs.active(a, b, x)
    await pairs.release(claim)
    assert await pairs.shop.end(claim)
    return claim


async def _books(shop: Shop) -> dict[str, int]:
    counts = await shop.counts()
    return {table: counts[table] for table in ("line", "binding", "slot", "platform_call")}


async def test_what_has_ended_long_ago_goes(pairs: Pairs) -> None:
    """Released, failed, shared, changed, with peers: nothing is left of it, and nobody finds the binding any more."""
    shop = pairs.shop
    released = await _ended(pairs)
    await shop.run(_PEER, released.pool_id, shop.app_id, released.binding_id, released.line_id, "released")
    failed = await shop.won(pairs.claim(C, D, 1))
    assert await pairs.end(failed, 1, state="failed", reason="platform_refused")
    shared = await pairs.active(A, C, 2)
    mate = await pairs.joined(shared)
    await pairs.release(mate)
    no = await pairs.begun(shared, b_becomes(D))
    assert await pairs.settle(shared, no, done=True) is not None
    await pairs.release(shared)
    assert await shop.end(shared, no=no + 1)
    await shop.advance(89 * _DAY_S)
    assert sum((await _forget(shop)).values()) == 0
    assert await pairs.show(released) is not None
    await shop.advance(2 * _DAY_S)
    gone = await _forget(shop)
    assert gone["lines"] > 0
    assert gone["slots"] > 0
    assert await _books(shop) == {"line": 0, "binding": 0, "slot": 0, "platform_call": 0}
    assert await shop.value("SELECT count(*) FROM peer") == 0
    with pytest.raises(KeyError):
        await pairs.show(released)
    assert await shop.wrong_books() == []


async def test_what_is_needed_yet_stays(pairs: Pairs) -> None:
    """Live, pending, releasing, dead, resting, unlike the platform's, with a live peer: each stays, however old."""
    shop = pairs.shop
    lives = await pairs.active(A, B, 0)
    pending = await shop.won(pairs.claim(A, B, 1))
    releasing = await pairs.active(A, B, 2)
    await pairs.release(releasing)
    dead = await pairs.active(C, D, 0)
    await pairs.release(dead)
    await shop.run("UPDATE platform_call SET state = 'dead' WHERE line_id = $1 AND settled_at IS NULL", dead.line_id)
    rests = await _ended(pairs, C, D, 1)
    await shop.run("UPDATE slot SET until = broker_now() + interval '200 days' WHERE line_id = $1", rests.line_id)
    rests_whole = await _ended(pairs, "+8613900000208", "+8613900000209", 1)
    await shop.run(_PLACE, rests_whole.pool_id, rests_whole.x_id, rests_whole.line_id)
    differs = await _ended(pairs, C, D, 2)
    await shop.run(_DRIFT, shop.app_id, "s", differs.pool_id, differs.x_id, differs.line_id)
    with_peer = await _ended(pairs, C, D, 3)
    await shop.run(_PEER, shop.pool, shop.app_id, with_peer.binding_id, with_peer.line_id, "releasing")
    called_for = await _ended(pairs, "+8613900000108", "+8613900000109", 0)
    await shop.run("UPDATE platform_call SET state = 'open', settled_at = NULL WHERE line_id = $1", called_for.line_id)
    kept = [lives, pending, releasing, dead, rests, rests_whole, differs, with_peer, called_for]
    ended = await _ended(pairs, A, B, 3)
    await shop.advance(150 * _DAY_S)
    await _forget(shop)
    lines = {row["id"] for row in await shop.db.fetch("SELECT id FROM line")}
    assert lines == {claim.line_id for claim in kept}
    assert {row["id"] for row in await shop.db.fetch("SELECT id FROM binding")} == {one.binding_id for one in kept}
    assert await shop.calls_of(ended) == []
    slots = {row["line_id"] for row in await shop.db.fetch("SELECT line_id FROM slot")}
    assert slots == {claim.line_id for claim in (lives, pending, releasing, dead, rests)}
    # What kept them is over: they go with the next walks.
    await shop.run("UPDATE drift SET resolved_at = broker_now()")
    await shop.run("UPDATE platform_call SET settled_at = broker_now() WHERE line_id = $1", called_for.line_id)
    await shop.run("UPDATE peer SET state = 'released'")
    await shop.advance(51 * _DAY_S)
    await _forget(shop)
    lines = {row["id"] for row in await shop.db.fetch("SELECT id FROM line")}
    assert lines == {claim.line_id for claim in (lives, pending, releasing, dead, called_for)}
    assert rests.line_id in {row["line_id"] for row in await shop.db.fetch("SELECT line_id FROM slot")}


async def test_an_order_leaves_a_line_that_lives_on(pairs: Pairs) -> None:
    """The ended binding of a shared line goes by itself; the line, its calls and the other order stay."""
    shop = pairs.shop
    stays = await pairs.active(ttl_s=0)
    leaves = await pairs.joined(stays)
    await pairs.release(leaves)
    before = await shop.calls_of(stays)
    await shop.advance(91 * _DAY_S)
    assert (await _forget(shop)) == {"lines": 0, "bindings": 1, "slots": 0, "audits": 0}
    assert await _books(shop) == {"line": 1, "binding": 1, "slot": 2, "platform_call": len(before) - 1}
    assert (await pairs.show(stays)).state == "active"


async def test_as_long_as_the_app_keeps_but_two_days_at_least(pairs: Pairs) -> None:
    """Two days, with an app that keeps one: longer than an Idempotency-Key and the platform's late pushes look back."""
    shop = pairs.shop
    await shop.run("UPDATE app SET retention_days = 1")
    await _ended(pairs)
    await shop.advance(1.9 * _DAY_S)
    assert sum((await _forget(shop)).values()) == 0
    await shop.advance(0.2 * _DAY_S)
    assert (await _forget(shop))["lines"] == 3
    await shop.run("UPDATE app SET retention_days = 10")
    again = await _ended(pairs, C, D)
    await shop.advance(9 * _DAY_S)
    await _forget(shop)
    assert (await pairs.show(again)).state == "released"


async def test_in_slices_one_at_a_time_from_where_the_last_one_ended(pairs: Pairs, database_url: str) -> None:
    """A slice looks at so many rows; who comes while another one is at it does nothing; the walk goes on by anybody."""
    shop = pairs.shop
    for n in range(7):
        await _ended(pairs, f"+86139000001{n:02}", B if n < 4 else C, n % 4)
    await shop.advance(91 * _DAY_S)
    # Line, binding and unbind of each.
    assert await retention.forget(shop.db, "lines", limit=2) == (6, True)
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        assert await other.fetchval("SELECT gone FROM forget_slice('lines', 2)") == 6
        assert await retention.forget(shop.db, "lines", limit=2) is None
    await other.close()
    assert (await retention.behind(shop.db))["lines"] > 0
    assert await _walk(shop, "lines", limit=2) == [6, 3, 0]
    assert await retention.forget(shop.db, "lines", limit=2) is None, "the next walk is not due"
    (walk,) = [one for one in await retention.walks(shop.db) if one.kind == "lines"]
    assert (walk.gone, walk.gone_before, walk.gone_in_all, walk.began_at) == (0, 21, 21, None)
    assert (await retention.behind(shop.db))["lines"] == 0
    await shop.advance(3601)
    assert await _walk(shop, "lines", limit=2) == [0, 0]


async def test_a_party_that_is_being_bound_keeps_its_slots(pairs: Pairs, database_url: str) -> None:
    """Who binds holds the party's lock and trusts what it saw: its slots are left for the next walk."""
    shop = pairs.shop
    claim = await _ended(pairs)
    await shop.advance(91 * _DAY_S)
    binds = await asyncpg.connect(database_url)
    async with binds.transaction():
        await binds.execute("SELECT pg_advisory_xact_lock(party_lock($1, $2))", claim.pool_id, claim.a_key)
        assert sum(await _walk(shop, "slots")) == 1
    await binds.close()
    assert list(await shop.slots_of(claim)) == [claim.a_key]
    await shop.advance(_DAY_S + 1)
    assert sum(await _walk(shop, "slots")) == 1


async def test_notes_of_people_and_audits(pairs: Pairs) -> None:
    """Kept 400 days; open differences and runs, and the newest run of an app, for ever."""
    shop = pairs.shop
    note = "INSERT INTO audit (at, who, what, pool_id, binding_id) VALUES (broker_now(), 'me', 'reveal', $1, $2)"
    run = """
    INSERT INTO drift_run (app_id, why, state, started_at, ended_at)
    VALUES ($1, 'asked', 'done', broker_now(), broker_now())
    """
    claim = await pairs.active()
    for _ in range(2):
        await shop.run(note, claim.pool_id, claim.binding_id)
        await shop.run(run, shop.app_id)
    await shop.run(_DRIFT, shop.app_id, "open", claim.pool_id, 0, claim.line_id)
    await shop.run(_DRIFT, shop.app_id, "settled", claim.pool_id, 0, claim.line_id)
    await shop.advance(399 * _DAY_S)
    assert sum(await _walk(shop, "audits")) == 0
    await shop.advance(2 * _DAY_S)
    # Two notes, one run, one difference.
    assert sum(await _walk(shop, "audits", limit=1)) == 4
    assert await shop.value("SELECT min(subscription_id) FROM drift") == "open"
    assert await shop.value("SELECT count(*) FROM drift_run") == 1


async def test_beside_processes_that_bind(shop: Shop, database_url: str) -> None:
    """Slots and lines are deleted the moment they may be while two processes claim them again: the books stay right."""
    await shop.run(
        "CREATE OR REPLACE FUNCTION kept_since(p_days integer) RETURNS timestamptz "
        "LANGUAGE sql VOLATILE AS 'SELECT broker_now()'"
    )
    await shop.run("UPDATE retention SET every = '0'")
    rivals = [asyncio.create_task(rival_process(database_url, seed, LockMode.TRY, 150)) for seed in (1, 2)]
    gone = dict.fromkeys(retention.KINDS, 0)
    async with asyncio.timeout(120):
        while not all(task.done() for task in rivals):
            for kind in ("lines", "slots"):
                done = await retention.forget(shop.db, kind, limit=100)
                gone[kind] += done.gone if done is not None else 0
    seen = [await task for task in rivals]
    assert gone["lines"] > 0
    assert gone["slots"] > 0
    assert [one["wrong"] for one in seen] == [0, 0]
    assert all(one["won"] > 0 for one in seen)
    assert await shop.wrong_books() == []


async def test_a_late_settle_of_what_is_gone_changes_nothing(pairs: Pairs) -> None:
    """Who froze over a call that another has settled since, and wakes up after the line has gone, finds none."""
    shop = pairs.shop
    claim = await _ended(pairs)
    await shop.advance(91 * _DAY_S)
    await _forget(shop)
    assert not await shop.end(claim)
    assert await shop.bind(claim) is None
    assert await shop.value("SELECT count(*) FROM platform_call WHERE line_id = $1", key_of(claim).line_id) == 0
