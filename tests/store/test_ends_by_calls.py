"""Ends that calls move, and lines that outlive their last order for a while."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from broker.store import bindings, inbox
from broker.store.allocation import Claim
from broker.store.bindings import ReleaseAsk
from tests.store.pairs import GRACE_S, Pairs
from tests.store.shop import TTL_S, Shop

_CALL = """
INSERT INTO call (at, id, app_id, pool_id, line_id, bindings, started_at, session_sealed, timeline, received_at)
VALUES (broker_now(), $5, $1, $2, $3, $4, broker_now() - make_interval(secs => $6), '', '[]', broker_now())
"""

_STANDING = """
CREATE OR REPLACE FUNCTION broker_now() RETURNS timestamptz LANGUAGE sql VOLATILE PARALLEL SAFE
AS $$ SELECT '2000-01-01'::timestamptz + (SELECT ahead FROM test_clock) $$
"""


class _Calls:
    """Calls on a line as their events make them."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    async def begun(self, claim: Claim, *others: Claim, ago_s: float = 0) -> UUID:
        """One that runs; ``others`` share its line."""
        call = uuid.uuid4()
        whose = [one.binding_id for one in (claim, *others)]
        await self.shop.run(_CALL, claim.app_id, claim.pool_id, claim.line_id, whose, call, float(ago_s))
        return call

    async def over(self, call: UUID, *, ago_s: float = 0) -> None:
        """Its end is told."""
        await self.shop.run(
            "UPDATE call SET ended_at = broker_now() - make_interval(secs => $2) WHERE id = $1", call, float(ago_s)
        )


@pytest.fixture
async def pairs(shop: Shop) -> Pairs:
    """Orders, and a clock that stands still."""
    await shop.test_clock()
    await shop.run("UPDATE test_clock SET ahead = date_trunc('second', clock_timestamp()) - '2000-01-01'")
    await shop.run(_STANDING)
    return Pairs(shop)


async def _left(shop: Shop, claim: Claim) -> float | None:
    """Seconds until a binding ends."""
    found = await shop.value(
        "SELECT extract(epoch FROM expires_at - broker_now()) FROM binding WHERE id = $1", claim.binding_id
    )
    return None if found is None else round(float(found), 1)


async def _state(shop: Shop, claim: Claim) -> tuple[Any, ...]:
    row = await shop.row("binding", claim.binding_id)
    return row["state"], row["reason"], (await shop.row("line", claim.line_id))["state"]


async def _told(shop: Shop, claim: Claim) -> list[str]:
    rows = await shop.db.fetch("SELECT type FROM event WHERE binding_id = $1 ORDER BY id", claim.binding_id)
    return [row["type"] for row in rows]


# -- so long after the last call ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ttl_s", [TTL_S, 0])
async def test_a_binding_ends_so_long_after_its_last_call(shop: Shop, pairs: Pairs, ttl_s: int) -> None:
    """Not while a call runs and not before the time is over; then once, by an unbind, whether it had a ttl or none."""
    await shop.run("UPDATE app SET end_after_call_s = 300")
    claim = await pairs.active(ttl_s=ttl_s)
    calls = _Calls(shop)
    call = await calls.begun(claim)
    assert await _left(shop, claim) == (TTL_S if ttl_s else 2 * 3600 + 300)
    await shop.advance(100)
    await calls.over(call)
    assert await _left(shop, claim) == 300
    await shop.advance(299)
    await pairs.sweep()
    assert (await _state(shop, claim))[0] == "active"
    await shop.advance(1 + GRACE_S)
    # As many at a time as there are instances.
    await asyncio.gather(*(pairs.sweep() for _ in range(4)))
    assert await _state(shop, claim) == ("releasing", "expired", "releasing")
    assert [op for _, op, _, _ in await shop.calls_of(claim)] == ["bind", "unbind"]


async def test_a_new_call_puts_the_end_off_to_its_own_end(shop: Shop, pairs: Pairs) -> None:
    """And never over the ttl that the order asked for."""
    await shop.run("UPDATE app SET end_after_call_s = 300")
    claim = await pairs.active()
    calls = _Calls(shop)
    await calls.over(await calls.begun(claim))
    await shop.advance(200)
    second = await calls.begun(claim)
    assert await _left(shop, claim) == TTL_S - 200
    await shop.advance(1000)
    await pairs.sweep()
    assert (await _state(shop, claim))[0] == "active"
    await calls.over(second)
    assert await _left(shop, claim) == 300
    third = await calls.begun(claim)
    await shop.advance(TTL_S - 1200 - 10)
    await calls.over(third)
    assert await _left(shop, claim) == 10


async def test_of_two_calls_the_last_end_counts(shop: Shop, pairs: Pairs) -> None:
    """Whatever the order in which they are told; an end that is told late ends nothing before it was told."""
    await shop.run("UPDATE app SET end_after_call_s = 300")
    claim = await pairs.active()
    calls = _Calls(shop)
    one, two = await calls.begun(claim), await calls.begun(claim)
    await calls.over(one)
    assert await _left(shop, claim) == TTL_S
    await shop.advance(1000)
    await calls.over(two, ago_s=900)
    assert await _left(shop, claim) == 0


async def test_all_that_share_the_line_end_by_the_call(shop: Shop, pairs: Pairs) -> None:
    """Each binding of that time, not one that came after it."""
    await shop.run("UPDATE app SET end_after_call_s = 300")
    claim = await pairs.active()
    mate, later = await pairs.joined(claim), await pairs.joined(claim)
    calls = _Calls(shop)
    await calls.over(await calls.begun(claim, mate))
    assert [await _left(shop, one) for one in (claim, mate, later)] == [300, 300, TTL_S]


async def test_the_order_asks_anew(shop: Shop, pairs: Pairs) -> None:
    """A ttl that is asked for after a call is the new bound."""
    await shop.run("UPDATE app SET end_after_call_s = 300")
    claim = await pairs.active()
    calls = _Calls(shop)
    call = await calls.begun(claim)
    await shop.run("UPDATE binding SET expires_at = broker_now() + interval '60 seconds'")
    await calls.over(call)
    assert await _left(shop, claim) == 60


# -- renewed by calls --------------------------------------------------------------------------------------------------


async def test_each_call_renews_until_the_longest_life(shop: Shop, pairs: Pairs) -> None:
    """The platform is told in time, by the same sweep as ever; never is a binding shortened."""
    await shop.run("UPDATE app SET renew_by_call_s = 1800, longest_life_s = 5400")
    claim = await pairs.active()
    calls = _Calls(shop)
    await calls.over(await calls.begun(claim))
    assert await _left(shop, claim) == TTL_S
    await shop.advance(3000)
    await calls.over(await calls.begun(claim))
    assert await _left(shop, claim) == 1800
    await shop.advance(500)
    await pairs.sweep()
    assert [op for _, op, _, _ in await shop.calls_of(claim)] == ["bind", "modify"]
    assert await pairs.settle(claim, 2, token=0, done=True) is not None
    await calls.over(await calls.begun(claim))
    assert await _left(shop, claim) == 1800
    await shop.advance(200)
    await calls.over(await calls.begun(claim))
    assert await _left(shop, claim) == 5400 - 3700
    assert "binding.renewed" in await _told(shop, claim)


async def test_what_the_platform_has_ended_is_not_revived(shop: Shop, pairs: Pairs) -> None:
    """A call that is told after the platform's own end renews nothing."""
    await shop.run("UPDATE app SET renew_by_call_s = 1800, longest_life_s = 86400")
    claim = await pairs.active()
    await shop.advance(TTL_S + 1)
    await _Calls(shop).begun(claim, ago_s=100)
    assert await _left(shop, claim) == -1
    await shop.advance(GRACE_S)
    await pairs.sweep()
    assert await _state(shop, claim) == ("released", "expired", "released")


async def test_who_asks_for_nothing_gets_nothing(shop: Shop, pairs: Pairs) -> None:
    """Without a policy calls leave no trace; what they left is forgotten with the binding."""
    claim = await pairs.active()
    await _Calls(shop).begun(claim)
    assert await shop.value("SELECT count(*) FROM binding_end") == 0
    await shop.run("UPDATE app SET end_after_call_s = 300")
    await _Calls(shop).begun(claim)
    assert await inbox.forget_ends(shop.db, limit=10) == 0
    await pairs.release(claim)
    await pairs.end(claim, 2)
    assert await inbox.forget_ends(shop.db, limit=10) == 1


async def test_batches_of_many_instances_do_not_wait_in_a_circle(shop: Shop, pairs: Pairs) -> None:
    """Calls of the same lines, told in any order by several at a time, each move every end."""
    await shop.run("UPDATE app SET end_after_call_s = 300")
    claims = [await pairs.active(x=x, b=f"+86139000001{x:02d}") for x in range(4)]
    add = (
        "INSERT INTO call"
        " (at, id, app_id, pool_id, bindings, started_at, ended_at, session_sealed, timeline, received_at)"
        " SELECT broker_now(), gen_random_uuid(), $1, $2, ARRAY[b], broker_now(), broker_now(), '', '[]', broker_now()"
        " FROM unnest($3::uuid[]) AS b"
    )
    whose = [claim.binding_id for claim in claims]
    await asyncio.gather(
        *(shop.run(add, shop.app_id, shop.pool, whose if turn % 2 else whose[::-1]) for turn in range(20))
    )
    assert [await _left(shop, claim) for claim in claims] == [300] * 4


# -- released with grace -----------------------------------------------------------------------------------------------


async def _later(shop: Shop, claim: Claim, grace_s: int) -> bool:
    return await bindings.release_later(shop.db, ReleaseAsk(claim.pool_id, claim.binding_id, claim.app_id), grace_s)


async def test_the_order_ends_now_and_the_line_later(shop: Shop, pairs: Pairs) -> None:
    """Released and told at once; the sweep unbinds when the grace is over, once, also after a long pause."""
    claim = await pairs.active()
    assert await _later(shop, claim, 600)
    assert await _state(shop, claim) == ("released", "released", "active")
    assert await _told(shop, claim) == ["binding.active", "binding.released"]
    assert await shop.wrong_books() == []
    await shop.advance(599)
    await pairs.sweep()
    assert (await shop.row("line", claim.line_id))["state"] == "active"
    await shop.advance(1000)
    await asyncio.gather(*(pairs.sweep() for _ in range(4)))
    assert await _state(shop, claim) == ("released", "released", "releasing")
    assert [op for _, op, _, _ in await shop.calls_of(claim)] == ["bind", "unbind"]
    assert await shop.wrong_books() == []


async def test_a_line_that_outlasts_its_grace_is_found(shop: Shop, pairs: Pairs) -> None:
    """What nobody sweeps is wrong again."""
    claim = await pairs.active()
    assert await _later(shop, claim, 600)
    await shop.advance(700)
    assert [wrong.partition(":")[0] for wrong in await shop.wrong_books()] == ["a live line that nobody wants"]


async def test_a_new_order_of_the_pair_shares_the_line_in_grace(shop: Shop, pairs: Pairs) -> None:
    """It keeps the line after the grace."""
    claim = await pairs.active()
    assert await _later(shop, claim, 600)
    new = await pairs.joined(claim)
    await shop.advance(601)
    await pairs.sweep()
    assert await _state(shop, new) == ("active", None, "active")
    assert [op for _, op, _, _ in await shop.calls_of(claim)] == ["bind"]
    assert not await _later(shop, claim, 600)


async def test_the_platform_ends_a_line_in_grace_at_its_own_time(shop: Shop, pairs: Pairs) -> None:
    """A grace never outlasts what the platform was told."""
    claim = await pairs.active()
    await shop.advance(TTL_S - 60)
    assert await _later(shop, claim, 600)
    await shop.advance(60)
    await pairs.sweep()
    await shop.advance(GRACE_S)
    await pairs.sweep()
    assert (await shop.row("line", claim.line_id))["state"] == "released"
    assert [op for _, op, _, _ in await shop.calls_of(claim)] == ["bind"]


async def test_others_on_the_line_or_a_bind_under_way_need_no_grace(shop: Shop, pairs: Pairs) -> None:
    """Nothing is done: the release of every day does it."""
    claim = await pairs.active()
    await pairs.joined(claim)
    assert not await _later(shop, claim, 600)
    pending = await shop.won(pairs.claim("+8613900000031", "+8613900000032", x=1))
    assert not await _later(shop, pending, 600)
    assert await _state(shop, claim) == ("active", None, "active")


async def test_calls_in_grace_are_the_last_orders(shop: Shop, pairs: Pairs) -> None:
    """Who had the line last has what goes through it until it ends."""
    claim = await pairs.active()
    assert await _later(shop, claim, 600)
    await shop.advance(100)
    now = await shop.value("SELECT broker_now()")
    for at in (now, now + timedelta(seconds=30)):
        found = await shop.value("SELECT bindings FROM bound_then($1, $2, $3)", shop.app_id, claim.line_id, at)
        assert found == [claim.binding_id]
