"""How PostgreSQL carries the hot statements out, over tables with tens of thousands of rows.

``auto_explain`` reports every statement with its plan and the rows it really touched, also inside functions.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.domain.ids import new_id
from broker.store import allocation, bindings, calls, idempotency, listing, reach, retention, sharing
from broker.store.allocation import Claim, LockMode, Rechoice
from broker.store.bindings import ReleaseAsk
from broker.store.calls import Bound, Extension
from broker.store.crypto import DataKey, Vault
from broker.store.idempotency import Finish, KeyAsk, Stored
from broker.store.listing import Place, Wanted
from broker.store.statements import statements
from tests.store.pairs import VAULT, Pairs, b_becomes
from tests.store.shop import LEASE_S, Shop, ended, key_of, open_shop, with_key
from tests.store.watch import Watched, nodes, watched

_BIG = {"slot", "line", "binding", "platform_call", "idempotency", "place", "held_rest"}
_BATCH = 50
#: Rows that one node of a plan may touch in a big table: a handful per item of the batch, never a pool or a table.
_ROWS = 20 * _BATCH
_POOLS, _NUMBERS = 5, 40
#: The seed's lines sit above it.
_CAP = 100
_VAULT = Vault((DataKey(1, bytes(32)),), bytes(32))

_LINE_ID = "('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
_SEED = (
    # 250 lines on each of 200 X, every other one live; 200 of them to be swept; 100 calls to be claimed.
    """
    CREATE TEMPORARY TABLE seed AS
    SELECT n, ($1::integer[])[1 + n % 5] AS pool_id, (n / 5) % 40 AS x_id, n / 200 AS k, (n / 200) % 2 = 0 AS live,
           {id} AS id, clock_timestamp() AS now FROM generate_series(0, 49999) AS n
    """,
    """
    INSERT INTO line (pool_id, id, app_id, x_id, seat, state, direction, calls, ttl_s, a_key, b_key, sweep_at,
                      confirmed_at, expires_at, a_sealed, b_sealed, subscription_id)
    SELECT pool_id, id, $1, x_id, CASE WHEN live THEN 100 + k / 2 END, CASE WHEN live THEN 'active' ELSE 'released' END,
           'both', 1, 3600, 10000000 + n, 20000000 + n,
           CASE WHEN live THEN now + CASE WHEN k = 0 THEN -1 ELSE 1 END * interval '1 hour' END, now,
           now + CASE WHEN k = 0 THEN -1 ELSE 1 END * interval '1 hour', 'sealed', 'sealed', 'sub'
    FROM seed
    """,
    """
    INSERT INTO binding (pool_id, id, app_id, caller_id, line_id, state, ttl_s, created_at, order_id)
    SELECT pool_id, id, $1, $2, id, CASE WHEN live THEN 'active' ELSE 'released' END, 3600, now,
           'order-' || n / 5 FROM seed
    """,
    """
    INSERT INTO slot (pool_id, x_id, party_key, counterpart_key, until, line_id)
    SELECT pool_id, x_id, v.own, v.other, CASE WHEN live THEN 'infinity' ELSE now + interval '4 hours' END, id
    FROM seed CROSS JOIN LATERAL (VALUES (10000000 + n, 20000000 + n), (20000000 + n, 10000000 + n)) AS v (own, other)
    """,
    """
    INSERT INTO place (pool_id, x_id, extension, until, line_id, party_key)
    SELECT pool_id, x_id, 1 + k, CASE WHEN live THEN 'infinity' ELSE now END, id, 10000000 + n FROM seed
    """,
    """
    INSERT INTO held (pool_id, line_id, app_id, x, extension, direction, a_key, b_key, since, until, why, a_sealed,
                      b_sealed)
    SELECT pool_id, id, $1, '+861', CASE WHEN live THEN k END, 'both', 10000000 + n, 20000000 + n,
           now - interval '1 day' - n * interval '1 second', now - n * interval '1 second', 'released', 's', 's'
    FROM seed
    """,
    """
    INSERT INTO platform_call (pool_id, line_id, no, app_id, op, state, claimable_at, created_at, settled_at)
    SELECT pool_id, id, 1, $1, 'bind', CASE WHEN n < 100 THEN 'open' ELSE 'settled' END, now - interval '1 minute', now,
           CASE WHEN n >= 100 THEN now END FROM seed
    """,
    """
    INSERT INTO idempotency (app_id, caller_id, key_hash, request_hash, busy_until, created_at, status)
    SELECT $1, $2, decode(lpad(to_hex(n), 32, '0'), 'hex'), 'request', now, now - CASE WHEN n < 300 THEN 26 ELSE 1 END
           * interval '1 hour', 201 FROM seed
    """,
)


@asynccontextmanager
async def _shop(url: str) -> AsyncIterator[tuple[Shop, Watched]]:
    async with watched(url, _BIG) as db:
        yield await open_shop(db, pools=_POOLS, numbers=_NUMBERS), db


async def _seed(shop: Shop) -> None:
    args: tuple[tuple[Any, ...], ...] = (
        (list(shop.pools),), (shop.app_id,), (shop.app_id, shop.caller_id), (), (), (shop.app_id,),
        (shop.app_id,),
        (shop.app_id, shop.caller_id),
    )  # fmt: skip
    for statement, values in zip(_SEED, args, strict=True):
        await shop.run(statement.format(id=_LINE_ID), *values)


_Hot = Callable[[Shop, int], Awaitable[None]]


def _claims(shop: Shop, start: int) -> list[Claim]:
    return [
        shop.claim(start + 2 * n, start + 2 * n + 1, n % _NUMBERS, pool=shop.pools[n % _POOLS], cap=_CAP)
        for n in range(_BATCH)
    ]


def _asks(shop: Shop, start: int) -> list[KeyAsk]:
    return [
        KeyAsk(shop.app_id, shop.caller_id, (start + n).to_bytes(16, "big"), b"request", 30.0) for n in range(_BATCH)
    ]


async def _histories(shop: Shop, _start: int) -> None:
    await allocation.histories(shop.db, [(shop.pools[n % 5], 10_000_000 + 7 * n) for n in range(2 * _BATCH)])


async def _reserve_and_settle(shop: Shop, start: int) -> None:
    """Half of the claims under keys, some barred; then confirm, renew, move, release and end what was won."""
    db = shop.db
    claims = _claims(shop, start)
    await idempotency.begin(db, _asks(shop, start))
    for n in range(0, _BATCH, 2):
        claims[n] = with_key(claims[n], (start + n).to_bytes(16, "big"), 1)
    await allocation.reserve(db, claims, mode=LockMode.TRY, lease_s=LEASE_S)
    await allocation.reserve(db, _claims(shop, start), mode=LockMode.TRY, lease_s=LEASE_S)
    await calls.extend(db, [Extension(key_of(claim), 1, LEASE_S) for claim in claims])
    first = claims.pop(0)
    await allocation.rechoose(
        db,
        Rechoice(
            pool_id=first.pool_id, old_line=first.line_id, no=1, token=1, bar_s=60.0, outcome="refused", http=403,
            code="1", x_id=_NUMBERS - 1, cap=_CAP, line_id=new_id(), a_sealed=b"a", b_sealed=b"b",
            chosen="pack:longest_rest",
        ),
        mode=LockMode.WAIT,
        lease_s=LEASE_S,
    )  # fmt: skip
    await calls.settle_bound(db, [Bound(key_of(claim), 1, "sub", plain=True) for claim in claims], lease_s=LEASE_S)
    asks = [ReleaseAsk(claim.pool_id, claim.binding_id, shop.app_id) for claim in claims]
    await bindings.release(db, asks, reason="released", lease_s=LEASE_S)
    await calls.settle_ended(db, [ended(claim) for claim in claims])


async def _share(shop: Shop, start: int) -> None:
    """Lines that others join and leave; then changes, and a sweep of what is renewed and unbound for them."""
    pairs, db = Pairs(shop), shop.db
    made = [
        pairs.claim(f"+86{13_000_000_000 + start + n}", f"+86{14_000_000_000 + start + n}", n % _NUMBERS)._replace(
            cap=_CAP, order_id=None
        )
        for n in range(_BATCH)
    ]
    await allocation.reserve(db, made, mode=LockMode.TRY, lease_s=LEASE_S)
    await calls.settle_bound(db, [Bound(key_of(claim), 1, "sub") for claim in made], lease_s=LEASE_S)
    await sharing.lines(db, VAULT, [(claim.pool_id, claim.line_id) for claim in made])
    joiners = [pairs.joiner(claim, ttl_s=0 if n % 2 else 60) for n, claim in enumerate(made)]
    assert set(await pairs.join(*joiners)) == {"joined"}
    assert all(await pairs.release(*made))
    changing = pairs.joiner(made[0])
    assert await pairs.join(changing) == ["joined"]
    await pairs.release(joiners[0])
    no = await pairs.begun(changing, b_becomes(f"+86{15_000_000_000 + start}"))
    await pairs.settle(changing, no, done=True)
    assert (await pairs.begin(joiners[1], b_becomes(f"+86{16_000_000_000 + start}"))).outcome == "begun"
    await calls.sweep(db, limit=2 * _BATCH, grace_s=30.0)
    await pairs.release(*joiners)
    await calls.settle_ended(db, [ended(claim) for claim in made])


async def _show(shop: Shop, _start: int) -> None:
    keys = [(shop.pools[n % 5], uuid.UUID(int=(0x7000_8000 << 64) + 200 + n)) for n in range(_BATCH)]
    rows = await shop.db.fetch(
        "SELECT id FROM show_bindings($1, $2)", [pool for pool, _ in keys], [row for _, row in keys]
    )
    assert len(rows) in (0, _BATCH)
    await bindings.show(shop.db, _VAULT, [])


async def _list(shop: Shop, _start: int) -> None:
    """Every way to find bindings, over the seed's: an order of a few, an X of many, a party, pages of 30."""
    one = Wanted(shop.app_id, shop.pools, 30)
    for wanted in (
        one,
        replace(one, order_id="order-7"),
        replace(one, order_id="order-7", state="released"),
        replace(one, party_key=10_000_007),
        replace(one, x=Place(shop.pools[0], 3), state="active"),
    ):
        await listing.find(shop.db, wanted)
    await listing.live_of_orders(shop.db, shop.app_id, [f"order-{n}" for n in range(_BATCH)], 1000)


async def _reach(shop: Shop, _start: int) -> None:
    """Every way to find who is, or was, behind an X."""
    sql, pool, ago = statements("reach"), shop.pool, datetime.now(UTC) - timedelta(hours=3)
    for by in reach.By:
        for at in (None, datetime.now(UTC)):
            await shop.db.fetch(sql["behind"], at, by.value, pool, 0, 7, 10_000_000)
        await shop.db.fetch(sql["was_behind"], ago, by.value, "+861", 8, 10_000_007)
    half = [10_000_000 + 200 * n for n in range(_BATCH // 2)] * 2
    ways = ["pair", "whole"] * (_BATCH // 2)
    await shop.db.fetch(sql["behind_all"], ways, [pool] * _BATCH, [0] * _BATCH, half)


async def _claim(shop: Shop, _start: int) -> None:
    await calls.claim(shop.db, limit=_BATCH, lease_s=LEASE_S)


async def _sweep(shop: Shop, _start: int) -> None:
    await calls.sweep(shop.db, limit=_BATCH, grace_s=30.0)


async def _keys(shop: Shop, start: int) -> None:
    asks = _asks(shop, start + 5_000)
    await idempotency.begin(shop.db, asks)
    await idempotency.finish(shop.db, [Finish(ask, 1, Stored(201, None, b"{}")) for ask in asks])
    await idempotency.forget(shop.db, asks[0], 1)
    await idempotency.sweep(shop.db, limit=_BATCH)


async def _nothing_due(shop: Shop, _start: int) -> None:
    """Whoever looks in time and again finds out without reading what is not due yet."""
    for _ in range(12):
        await calls.sweep(shop.db, limit=_BATCH, grace_s=30.0)
        await idempotency.sweep(shop.db, limit=_BATCH)


async def _forget(shop: Shop, _start: int) -> None:
    """Rows as old as can be that are needed yet, in the tables that are walked along."""
    await shop.run("UPDATE retention SET due_at = '-infinity'")
    for kind in retention.KINDS:
        for _ in range(3):
            await retention.forget(shop.db, kind, limit=_BATCH)
    await retention.oldest(shop.db)


_HOT: tuple[_Hot, ...] = (
    _histories,
    _reserve_and_settle,
    _share,
    _show,
    _list,
    _reach,
    _claim,
    _sweep,
    _keys,
    _nothing_due,
    _forget,
)


def _faults(db: Watched) -> list[str]:
    """Every scan of a big table that goes by no index, or touches more rows than the batch explains."""
    found = []
    for said in db.plans():
        for node in nodes(said["Plan"]):
            table, kind = node.get("Relation Name"), node["Node Type"]
            if table not in _BIG or kind == "ModifyTable":
                continue
            removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            touched = (node["Actual Rows"] + removed) * node["Actual Loops"]
            # Pages tell on an index that is read from end to end for a few rows.
            pages = node["Shared Hit Blocks"] + node["Shared Read Blocks"]
            if kind == "Seq Scan" or touched > _ROWS or pages > 4 * _BATCH + 10 * node["Actual Loops"]:
                condition = node.get("Index Cond")
                found.append(
                    f"{kind} on {table} by {condition}: {touched} rows, {pages} pages, in {said['Query Text'][:200]}"
                )
    return found


@pytest.mark.parametrize("statistics", ["none", "fresh", "of empty tables, plans kept"])
async def test_hot_statements_go_by_index(database_url: str, statistics: str) -> None:
    """No hot statement reads a big table or a pool, whether it was never analysed, is, or the plan is from before."""
    async with _shop(database_url) as (shop, db):
        start = 1_000_000
        if statistics.startswith("of empty"):
            await shop.run("ANALYZE")
            for _ in range(7):
                for hot in _HOT:
                    await hot(shop, start)
                start += 10_000
        await _seed(shop)
        if statistics == "fresh":
            await shop.run("ANALYZE")
        await db.watch()
        seen = 0
        faults = []
        for hot in _HOT:
            await hot(shop, start)
            seen += len(db.said)
            faults += _faults(db)
        assert faults == []
        assert seen > 20


async def test_claims_planned_on_empty_tables_do_not_read_all_slots(database_url: str) -> None:
    """Who planned its claims when there were no slots reads no more of them for each item when there are many."""
    async with _shop(database_url) as (shop, db):
        await shop.run("ANALYZE")
        for turn in range(10):
            assert set(await shop.reserve(*_claims(shop, 1_000_000 + 1_000 * turn))) == {"won"}
        await db.watch()
        assert set(await shop.reserve(*_claims(shop, 2_000_000))) == {"won"}
        plans = [node for said in db.plans() for node in nodes(said["Plan"])]
        slots = [node for node in plans if node.get("Relation Name") == "slot" and node["Node Type"] != "ModifyTable"]
        assert slots
        assert max(node.get("Rows Removed by Filter", 0) for node in slots) <= _BATCH


async def test_the_guard_sees_a_bad_plan(database_url: str) -> None:
    """Statements that read a table or a pool are found: the guard is not blind."""
    async with _shop(database_url) as (shop, db):
        await _seed(shop)
        await shop.run("ANALYZE")
        await db.watch()
        await shop.run("SELECT count(*) FROM line WHERE direction = 'both'")
        assert len(_faults(db)) == 1
        await shop.run("SET enable_seqscan = off")
        await shop.run("SELECT count(a_sealed) FROM line WHERE pool_id = $1", shop.pool)
        assert len(_faults(db)) >= 1
