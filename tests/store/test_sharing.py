"""Lines that several orders share: who joins, who leaves, who ends the line, at once and in every order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from broker.domain.ids import new_id
from broker.domain.phone import PhoneNumber
from broker.store import allocation, calls, sharing
from broker.store.allocation import Claim, LockMode, Rechoice
from broker.store.calls import Bound
from tests.store.pairs import GRACE_S, VAULT, A, B, C, Pairs, b_becomes, key
from tests.store.shop import LEASE_S, QUARANTINE_S, Shop, ended, key_of, with_key

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def pairs(shop: Shop) -> Pairs:
    """Words for orders of a pair."""
    return Pairs(shop)


@asynccontextmanager
async def held_up(shop: Shop, url: str, claim: Claim, waiting: int) -> AsyncIterator[None]:
    """Inside, somebody has the line's row; leaving waits until ``waiting`` others stand before it."""
    gate = await asyncpg.connect(url)
    try:
        async with gate.transaction():
            await gate.execute("SELECT FROM line WHERE id = $1 FOR UPDATE", claim.line_id)
            yield
            async with asyncio.timeout(20):
                # The first waits for the transaction, the next ones for the row behind it.
                while await shop.value("SELECT count(*) FROM pg_locks WHERE NOT granted") < waiting:
                    pass
    finally:
        await gate.close()


async def started(shop: Shop, work: Awaitable[Any], waiting: int) -> asyncio.Task[Any]:
    """Begin ``work`` and wait until it is the ``waiting``-th that waits for a lock: the order of a queue is kept."""
    task = asyncio.ensure_future(work)
    async with asyncio.timeout(20):
        while await shop.value("SELECT count(*) FROM pg_locks WHERE NOT granted") < waiting:
            pass
    return task


async def test_a_joiner_has_a_binding_of_its_own(pairs: Pairs) -> None:
    """It is active at once on a confirmed line, with its own end and its own view of who is A."""
    first = await pairs.active()
    (told,) = await sharing.join(pairs.shop.db, [other := pairs.joiner(first, ttl_s=600, flipped=True)])
    assert (told.outcome, told.state) == ("joined", "active")
    assert told.expires_at == told.created_at + timedelta(seconds=600)
    assert told.subscription_id == "sub-" + first.line_id.hex
    one, two = await pairs.show(first), await pairs.show(other)
    assert (one.a, one.b, one.x) == (two.b, two.a, two.x)
    assert (one.shared, two.shared, two.flipped) == (True, True, True)
    assert await pairs.shop.calls_of(first) == [(1, "bind", "settled", 1)]
    assert await pairs.shop.wrong_books() == []


@pytest.mark.parametrize(
    "different",
    [
        {"direction": "a_to_b"},
        {"options": '{"recording":true}'},
        {"app_id": 4711},
        {"a_key": 1},
        {"b_key": 1},
        {"line_id": new_id()},
    ],
    ids=lambda different: next(iter(different)),
)
async def test_what_differs_does_not_join(pairs: Pairs, different: dict[str, Any]) -> None:
    """Another direction, other options, another app or party: nothing is done, and neighbours join."""
    first = await pairs.active()
    before = await pairs.shop.counts()
    stranger, twin = pairs.joiner(first)._replace(**different), pairs.joiner(first)
    assert await pairs.join(stranger) == ["gone"]
    assert await pairs.shop.counts() == before
    assert await pairs.join(stranger._replace(binding_id=new_id()), twin) == ["gone", "joined"]


async def test_a_line_of_one_way_is_joined_in_its_roles_only(pairs: Pairs) -> None:
    """Who may call whom is part of the order: with one direction the roles must be the same."""
    first = await pairs.shop.active(pairs.claim(A, B)._replace(direction="a_to_b"))
    assert await pairs.join(pairs.joiner(first, flipped=True), pairs.joiner(first)) == ["gone", "joined"]


@pytest.mark.parametrize("state", ["not joinable", "changing", "releasing", "ending"])
async def test_a_line_that_goes_takes_nobody_in(pairs: Pairs, state: str) -> None:
    """A line of its own, one that changes, one that ends, and one the platform ends before it could be renewed."""
    shop = pairs.shop
    await shop.test_clock()
    first = await shop.active(pairs.claim(A, B, ttl_s=60)._replace(joinable=state != "not joinable"))
    if state == "changing":
        await pairs.begun(first, b_becomes(C))
    elif state == "releasing":
        await pairs.release(first)
    elif state == "ending":
        await shop.advance(49)
        await pairs.joined(first)
        await shop.advance(2)
    found = await sharing.lines(shop.db, VAULT, [(first.pool_id, first.line_id)])
    line = found[first.line_id]
    assert not line.fits(a=line.a, b=line.b, direction="both", options=None)
    assert await pairs.join(pairs.joiner(first)) == ["gone"]


async def test_a_twin_with_a_newer_key_joins_instead(pairs: Pairs) -> None:
    """Under an idempotency key that somebody else holds by now nothing joins."""
    first = await pairs.active()
    late = with_key(pairs.joiner(first), b"k" * 32, 1)
    assert await pairs.join(late, pairs.joiner(first)) == ["superseded", "joined"]
    assert await pairs.shop.value("SELECT count(*) FROM binding") == 2


async def test_the_line_ends_with_its_last_binding(pairs: Pairs) -> None:
    """Each release ends its own binding only; the last one begins the unbind, and nobody rests before."""
    first = await pairs.active()
    second, third = await pairs.joined(first), await pairs.joined(first, flipped=True)
    for gone in (first, third):
        (told,) = await pairs.release(gone)
        assert told is not None
        assert not told.to_send
        assert (await pairs.show(gone)).state == "released"
        assert await pairs.open_calls(first) == []
        assert await pairs.shop.slots_of(first) == {key(A): None, key(B): None}
    (told,) = await pairs.release(second)
    assert told is not None
    assert told.to_send
    assert await pairs.open_calls(first) == [(2, "unbind")]
    assert await pairs.shop.wrong_books() == []
    assert await pairs.end(first, 2)
    assert all(left is not None for left in (await pairs.shop.slots_of(first)).values())
    assert await pairs.shop.wrong_books() == []


async def test_all_bindings_of_a_line_in_one_statement(pairs: Pairs) -> None:
    """Released together, also named twice, they end the line once."""
    first = await pairs.active()
    second = await pairs.joined(first)
    told = await pairs.release(second, first, second)
    assert sorted(one.to_send for one in told if one is not None) == [False, False, True]
    assert await pairs.open_calls(first) == [(2, "unbind")]
    assert await pairs.shop.wrong_books() == []


async def test_the_last_two_released_at_once(pairs: Pairs, database_url: str) -> None:
    """Of two releases of the last two bindings exactly one ends the line, whoever is first."""
    first = await pairs.active()
    second = await pairs.joined(first)
    async with held_up(pairs.shop, database_url, first, waiting=2):
        rivals = [asyncio.create_task(pairs.release(claim)) for claim in (first, second)]
    told = [one for task in rivals for one in await task]
    assert sorted(one.to_send for one in told if one is not None) == [False, True]
    assert await pairs.open_calls(first) == [(2, "unbind")]
    assert await pairs.shop.wrong_books() == []


@pytest.mark.parametrize("first_in", ["join", "confirm"])
async def test_who_joins_while_the_bind_is_confirmed(pairs: Pairs, database_url: str, first_in: str) -> None:
    """Both orders: the joiner is active with the line, never left behind pending."""
    first = await pairs.shop.won(pairs.claim(A, B))
    joiner = pairs.joiner(first)
    works = [pairs.join(joiner), pairs.shop.bind(first)]
    async with held_up(pairs.shop, database_url, first, waiting=2):
        one = await started(pairs.shop, works[0 if first_in == "join" else 1], 1)
        two = await started(pairs.shop, works[1 if first_in == "join" else 0], 2)
    await asyncio.gather(one, two)
    assert [(await pairs.show(claim)).state for claim in (first, joiner)] == ["active", "active"]
    assert await pairs.shop.wrong_books() == []


@pytest.mark.parametrize("first_in", ["join", "refuse"])
async def test_who_joins_while_the_bind_is_refused(pairs: Pairs, database_url: str, first_in: str) -> None:
    """It fails with the line, or is told that the line is gone."""
    first = await pairs.shop.won(pairs.claim(A, B))
    joiner = pairs.joiner(first)
    works = [pairs.join(joiner), pairs.end(first, 1, state="failed", reason="platform_refused")]
    async with held_up(pairs.shop, database_url, first, waiting=2):
        one = await started(pairs.shop, works[0 if first_in == "join" else 1], 1)
        two = await started(pairs.shop, works[1 if first_in == "join" else 0], 2)
    told = await asyncio.gather(one, two)
    assert ["joined"] in told if first_in == "join" else ["gone"] in told
    if first_in == "join":
        assert (await pairs.show(joiner)).state == "failed"
    assert await pairs.shop.wrong_books() == []


def _rechoice(old: Claim, x: int) -> Rechoice:
    line_id = new_id()
    sealed = {f"{c}_sealed": VAULT.seal("line", c, old.pool_id, line_id, p) for c, p in (("a", A), ("b", B))}
    return Rechoice(
        pool_id=old.pool_id, old_line=old.line_id, no=1, token=1, bar_s=60.0, outcome="refused", http=403,
        code="1", x_id=x, cap=500, line_id=line_id, chosen="pack:longest_rest", **sealed,
    )  # fmt: skip


@pytest.mark.parametrize("first_in", ["join", "rechoose"])
async def test_who_joins_while_another_x_is_chosen(pairs: Pairs, database_url: str, first_in: str) -> None:
    """It moves along, or is told that the line is gone."""
    first = await pairs.shop.won(pairs.claim(A, B))
    joiner, item = pairs.joiner(first, flipped=True), _rechoice(first, 1)
    works = [
        pairs.join(joiner), allocation.rechoose(pairs.shop.db, item, mode=LockMode.WAIT, lease_s=LEASE_S)
    ]  # fmt: skip
    async with held_up(pairs.shop, database_url, first, waiting=2):
        one = await started(pairs.shop, works[0 if first_in == "join" else 1], 1)
        two = await started(pairs.shop, works[1 if first_in == "join" else 0], 2)
    told = await asyncio.gather(one, two)
    assert "won" in told
    assert ["joined"] in told if first_in == "join" else ["gone"] in told
    if first_in == "join":
        assert (await pairs.show(joiner)).line_id == item.line_id
    assert await pairs.shop.wrong_books() == []


async def test_who_came_from_the_other_side_stays_there_on_another_x(pairs: Pairs) -> None:
    """The order that made the line has gone; the flipped one that is left keeps its A and B when X changes."""
    first = await pairs.shop.won(pairs.claim(A, B))
    joiner = await pairs.joined(first, flipped=True)
    await pairs.release(first)
    item = _rechoice(first, 1)
    assert await allocation.rechoose(pairs.shop.db, item, mode=LockMode.WAIT, lease_s=LEASE_S) == "won"
    binding = await pairs.show(joiner)
    assert (binding.a, binding.b, binding.flipped) == (PhoneNumber(B), PhoneNumber(A), True)


async def test_sharers_end_and_are_renewed_in_time_on_another_x(pairs: Pairs) -> None:
    """Who shares a line is looked at on its other X, too: the short one's end, a renewal for the endless one."""
    shop = pairs.shop
    await shop.test_clock()
    old = await shop.won(pairs.claim(A, B))
    short, endless = await pairs.joined(old, ttl_s=60), await pairs.joined(old, ttl_s=0)
    item = _rechoice(old, 1)
    assert await allocation.rechoose(shop.db, item, mode=LockMode.WAIT, lease_s=LEASE_S) == "won"
    assert await shop.bind(old._replace(line_id=item.line_id)) is not None
    await pairs.sweep()
    await shop.advance(60 + GRACE_S + 1)
    await pairs.sweep()
    assert (await shop.row("binding", short.binding_id))["reason"] == "expired"
    await shop.advance(3600 * 0.9 - 60)
    assert (await pairs.sweep()).renewed == 1
    assert (await pairs.show(endless)).state == "active"
    assert await shop.wrong_books() == []


async def test_a_line_of_many_bindings_takes_nobody_in(pairs: Pairs) -> None:
    """A thousand orders of one pair are enough for a line: whoever comes next makes another."""
    shop = pairs.shop
    claim = await pairs.active()
    where = [(claim.pool_id, claim.line_id)]
    assert (await sharing.lines(shop.db, VAULT, where))[claim.line_id].joinable
    await shop.run(
        "INSERT INTO binding (pool_id, id, app_id, caller_id, line_id, state, ttl_s, created_at)"
        " SELECT $1, gen_random_uuid(), $2, $3, $4, 'released', 60, now() FROM generate_series(1, 1000)",
        claim.pool_id, claim.app_id, claim.caller_id, claim.line_id,
    )  # fmt: skip
    assert not (await sharing.lines(shop.db, VAULT, where))[claim.line_id].joinable


async def test_releases_that_meet_a_choice_of_another_x(pairs: Pairs, database_url: str) -> None:
    """A release that waited while its binding moved does not judge the new line, which is not locked: it asks again."""
    first = await pairs.shop.won(pairs.claim(A, B))
    second, item = await pairs.joined(first), _rechoice(first, 1)
    async with held_up(pairs.shop, database_url, first, waiting=2):
        moving = await started(
            pairs.shop, allocation.rechoose(pairs.shop.db, item, mode=LockMode.WAIT, lease_s=LEASE_S), 1
        )
        late = await started(pairs.shop, pairs.release(first), 2)
    assert (await moving, await late) == ("won", [None])
    for claim in (second, first):
        (told,) = await pairs.release(claim)
        assert told is not None
    assert (await pairs.shop.row("line", item.line_id))["state"] == "releasing"
    assert await pairs.shop.wrong_books() == []


@pytest.mark.parametrize("first_in", ["join", "release"])
async def test_who_joins_while_the_last_one_leaves(pairs: Pairs, database_url: str, first_in: str) -> None:
    """The line lives on with the joiner, or is gone for it."""
    first = await pairs.active()
    joiner = pairs.joiner(first)
    works = [pairs.join(joiner), pairs.release(first)]
    async with held_up(pairs.shop, database_url, first, waiting=2):
        one = await started(pairs.shop, works[0 if first_in == "join" else 1], 1)
        two = await started(pairs.shop, works[1 if first_in == "join" else 0], 2)
    told = await asyncio.gather(one, two)
    assert (["joined"] in told) == (first_in == "join")
    assert await pairs.open_calls(first) == ([] if first_in == "join" else [(2, "unbind")])
    assert await pairs.shop.wrong_books() == []


async def test_each_binding_ends_in_its_time_and_the_line_is_renewed_for_the_longest(pairs: Pairs) -> None:
    """One modify, late, for who stays longest; then an unbind-less end when the platform has ended it by itself."""
    shop = pairs.shop
    await shop.test_clock()
    short = await pairs.active(ttl_s=600)
    long = await pairs.joined(short, ttl_s=7200)
    assert await pairs.sweep() == (0, 0, 0)
    await shop.advance(600 - 60 + 1)
    assert await pairs.sweep() == (0, 0, 1)
    assert await pairs.open_calls(short) == [(2, "modify")]
    assert await shop.wrong_books() == []
    assert await pairs.settle(short, 2, done=True, token=0) == "active"
    line = await shop.row("line", short.line_id)
    assert (await pairs.show(long)).expires_at is not None
    assert line["expires_at"] >= (await shop.row("binding", long.binding_id))["expires_at"]
    await shop.advance(60 + GRACE_S)
    assert await pairs.sweep() == (1, 0, 0)
    assert [(await pairs.show(one)).state for one in (short, long)] == ["released", "active"]
    assert await shop.wrong_books() == []
    await shop.advance(7200)
    assert await pairs.sweep() == (1, 0, 0)
    assert await pairs.open_calls(short) == []
    assert (await shop.row("line", short.line_id))["state"] == "released"
    assert await shop.wrong_books() == []


async def test_a_line_that_outlives_its_bindings_is_unbound(pairs: Pairs) -> None:
    """The long order left: when the short one ends, the platform is told, for it would keep the line."""
    shop = pairs.shop
    await shop.test_clock()
    long = await pairs.active(ttl_s=7200)
    short = await pairs.joined(long, ttl_s=600)
    await pairs.release(long)
    await shop.advance(600 + GRACE_S + 1)
    assert await pairs.sweep() == (1, 0, 0)
    assert (await pairs.show(short)).state == "releasing"
    assert await pairs.open_calls(long) == [(2, "unbind")]
    assert await pairs.end(long, 2, token=0)
    binding = await pairs.show(short)
    assert (binding.state, binding.reason) == ("released", "expired")
    assert await shop.wrong_books() == []


async def test_a_refused_renewal_is_tried_again_while_somebody_needs_it(pairs: Pairs) -> None:
    """One renewal at a time, and another one later as long as the line lives."""
    shop = pairs.shop
    await shop.test_clock()
    short = await pairs.active(ttl_s=600)
    await pairs.joined(short, ttl_s=0)
    await shop.advance(545)
    assert await pairs.sweep() == (0, 0, 1)
    await shop.advance(11)
    assert await pairs.sweep() == (0, 0, 0)
    assert await pairs.settle(short, 2, done=False, token=0) == "active"
    assert await pairs.sweep() == (0, 0, 0)
    await shop.advance(61)
    assert await pairs.sweep() == (0, 0, 1)
    assert await pairs.open_calls(short) == [(3, "modify")]
    assert await pairs.settle(short, 3, done=True, token=0) == "active"
    assert (await shop.row("line", short.line_id))["expires_at"] is None
    assert await shop.wrong_books() == []


@pytest.mark.parametrize("first_in", ["join", "sweep"])
async def test_who_joins_while_the_sweep_ends_the_line(pairs: Pairs, database_url: str, first_in: str) -> None:
    """Nobody is left on a line that the sweep has ended, and no line is ended under who has just joined it."""
    shop = pairs.shop
    await shop.test_clock()
    long = await pairs.active(ttl_s=7200)
    short = await pairs.joined(long, ttl_s=600)
    await pairs.release(long)
    await shop.advance(600 + GRACE_S + 1)
    joiner = pairs.joiner(long)
    if first_in == "join":
        async with held_up(shop, database_url, long, waiting=1):
            joining = await started(shop, pairs.join(joiner), 1)
            assert await pairs.sweep() == (0, 0, 0)
        assert await joining == ["joined"]
        assert await pairs.sweep() == (1, 0, 0)
        assert await pairs.open_calls(long) == []
    else:
        assert await pairs.sweep() == (1, 0, 0)
        assert await pairs.join(joiner) == ["gone"]
    assert (await pairs.show(short)).state in {"released", "releasing"}
    assert await shop.wrong_books() == []


async def test_opposite_orders_never_wait_in_a_circle(pairs: Pairs) -> None:
    """Settles, releases and joins of the same lines in every order, at once: no deadlock, clean books."""
    shop, dice = pairs.shop, random.Random(5)  # noqa: S311 - a repeatable start; the interleaving is not
    for turn in range(12):
        a, b = f"+8613800{turn:06d}", f"+8613900{turn:06d}"
        made = [pairs.claim(f"{a[:-1]}{n}", f"{b[:-1]}{n}", n % 4) for n in range(8)]
        assert set(await shop.reserve(*made)) == {"won"}
        shuffled = [dice.sample(made, len(made)) for _ in range(5)]
        bound = [Bound(key_of(one), 1, "sub-" + one.line_id.hex, plain=n % 2 == 0) for n, one in enumerate(shuffled[0])]
        await asyncio.gather(
            calls.settle_bound(shop.db, bound, lease_s=LEASE_S),
            pairs.join(*(pairs.joiner(one) for one in shuffled[1])),
            pairs.release(*shuffled[2]),
            pairs.release(*shuffled[3]),
            pairs.join(*(pairs.joiner(one) for one in shuffled[4])),
            calls.extend(shop.db, [calls.Extension(key_of(one), 1, LEASE_S) for one in shuffled[3]]),
        )
        assert await shop.wrong_books() == []
        left = await shop.db.fetch(
            "SELECT pool_id, id, app_id FROM binding WHERE state IN ('pending', 'active') ORDER BY random()"
        )
        claims = [made[0]._replace(pool_id=row["pool_id"], binding_id=row["id"]) for row in left]
        await pairs.release(*claims)
        rows = await shop.db.fetch("SELECT line_id, no FROM platform_call WHERE state = 'open' ORDER BY random()")
        await calls.settle_ended(
            shop.db,
            [ended(made[0]._replace(line_id=row["line_id"]), no=row["no"], rest_s=QUARANTINE_S) for row in rows],
        )
        assert await shop.value("SELECT count(*) FROM line WHERE state IN ('pending', 'active', 'releasing')") == 0
        assert await shop.wrong_books() == []
