"""Giving orders places: pools in turn, limits, extensions asked for, refusals, and what is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from broker.clock import boottime
from broker.domain.choice import Policy
from broker.domain.extension import text_of
from broker.domain.phone import PhoneNumber
from broker.errors import Conflict, PoolExhausted
from broker.flows.calls import PlatformCall
from broker.flows.order import Allocated, BindOrder
from broker.flows.place import Placer
from broker.store.calls import CallKey
from broker.store.crypto import DataKey, Vault
from broker.store.database import Database, DatabaseAway
from broker.store.registry import Registry, load
from tests.store.shop import LEASE_S
from tests.store.stall import Stall, open_second_pool, open_stall

_VAULT = Vault((DataKey(1, bytes(32)),), bytes(32))


@dataclass
class _Desk:
    stall: Stall
    registry: Registry
    placer: Placer

    def order(self, a: int, **more: Any) -> BindOrder:
        phone = PhoneNumber(f"+86139{a:08}")
        app = self.registry.apps[self.stall.app_id]
        return BindOrder(
            app=app, caller_id=self.stall.caller_id, a=phone, b=None, a_key=_VAULT.party_key(phone.reveal()),
            b_key=None, pools=self.registry.app_pools[app.id], ttl_s=3600, direction="both", policy=Policy.PACK, **more,
        )  # fmt: skip

    async def give(self, a: int, **more: Any) -> Allocated:
        return await self.placer.allocate(self.order(a, **more), within_s=20)


async def _desk(db: Database, mode: str, **more: Any) -> _Desk:
    stall = await open_stall(db, mode, **more)
    await open_second_pool(stall)
    await db.fetch("UPDATE app SET secret_sealed = $1", _VAULT.seal("app", "secret", 0, f"stall-{mode}", "s"))
    registry = await load(db, _VAULT)
    return _Desk(stall, registry, Placer(db, _VAULT, lambda: registry, lease_s=LEASE_S, boottime=boottime))


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """Eight connections."""
    db = Database(database_url, connections=8, timeout_s=20)
    await db.open()
    yield db
    await db.close()


async def test_many_orders_share_batches_and_fill_the_pools_in_turn(db: Database) -> None:
    """Each of many orders gets a place of its own, of the first pool that has one; the others are told why not."""
    desk = await _desk(db, "axe")
    results = await asyncio.gather(*(desk.give(n) for n in range(30)), return_exceptions=True)
    won = [one for one in results if isinstance(one, Allocated)]
    assert len({(one.pool.id, one.x_id, one.extension) for one in won}) == len(won) == 24
    refused = [one for one in results if isinstance(one, PoolExhausted)]
    assert len(refused) == 6
    assert refused[0].extra["reasons"] == {"held": 24, "resting": 0, "not_open": 0, "not_in_use": 0}
    assert [desk.placer.refusals(pool.id) for pool in desk.registry.app_pools[desk.stall.app_id]] == [{"held": 6}] * 2
    assert desk.placer.batches < 30 <= desk.placer.items
    assert await desk.stall.wrong_books() == []


async def test_a_dry_pool_refuses_by_a_look(db: Database) -> None:
    """After a refusal no claim is written for who gets nothing; a place that is free again, or one's own, is given."""
    desk = await _desk(db, "ax")
    given = [await desk.give(n) for n in range(8)]
    with pytest.raises(PoolExhausted):
        await desk.give(8)
    written = desk.placer.items
    refused = await asyncio.gather(*(desk.give(n) for n in range(10, 20)), return_exceptions=True)
    assert [getattr(one, "code", one) for one in refused] == ["pool_exhausted"] * 10
    assert desk.placer.items == written
    first = given[0]
    await desk.stall.run("UPDATE line SET seat = NULL, state = 'released' WHERE id = $1", first.line_id)
    await desk.stall.run("UPDATE place SET until = broker_now(), line_id = NULL WHERE line_id = $1", first.line_id)
    again = await desk.give(30)
    assert (again.pool.id, again.x_id) == (first.pool.id, first.x_id)


async def test_what_was_given_is_what_is_stored(db: Database) -> None:
    """The winner's place is the row's; A and the call-back open where they are sealed."""
    desk = await _desk(db, "axe")
    given = await desk.give(1, callback=PhoneNumber("+8613900000009"), explain=True)
    line = await desk.stall.row("line", given.line_id)
    assert (line["x_id"], line["extension"]) == (given.x_id, given.extension)
    assert _VAULT.open("line", "a", given.pool.id, given.line_id, line["a_sealed"]) == "+8613900000001"
    assert _VAULT.open("line", "callback", given.pool.id, given.line_id, line["callback_sealed"]) == "+8613900000009"
    assert given.explanation is not None
    assert (given.explanation["why"], given.explanation["pool"], given.explanation["held"]) == (
        "pack:unused", given.pool.name, 1,
    )  # fmt: skip


async def test_no_sixth_x(db: Database) -> None:
    """Five X for one A over all pools; asked for many at once, one more is refused, and others are not."""
    desk = await _desk(db, "ax")
    results = await asyncio.gather(*(desk.give(1) for _ in range(7)), desk.give(2), return_exceptions=True)
    assert isinstance(results[-1], Allocated)
    assert sum(isinstance(one, Allocated) for one in results[:-1]) == 5
    limits = [one for one in results if isinstance(one, Conflict)]
    assert [one.code for one in limits] == ["party_limit"] * 2
    assert await desk.stall.wrong_books() == []


async def test_an_extension_that_is_taken(db: Database) -> None:
    """Asked for and free nowhere: the nearest free ones are named as they are dialled, and nothing is kept."""
    desk = await _desk(db, "axe", digits=3, per_x=4)
    code = (await desk.give(1)).extension
    assert code is not None
    for n in range(2, 9):
        assert (await desk.give(n, extension=code)).extension == code
    with pytest.raises(Conflict) as caught:
        await desk.give(9, extension=code)
    assert caught.value.code == "extension_taken"
    others = set(desk.registry.app_pools[desk.stall.app_id][0].codes) - {code}
    assert set(caught.value.extra["free"]) == {text_of(other, 3) for other in others}
    assert await desk.stall.value("SELECT count(*) FROM line") == 8


async def test_another_place_after_a_refusal(db: Database) -> None:
    """The call goes on for the same binding with another X; with none left, nothing is changed."""
    desk = await _desk(db, "ax")
    given = await desk.give(1)
    order = desk.order(1)
    call = PlatformCall(
        key=CallKey(given.pool.id, given.line_id, 1, 1), op="bind", app_id=order.app.id, x_id=given.x_id, x=given.x,
        a=order.a, b=None, a_key=order.a_key, b_key=None, direction="both", ttl_s=0, lease_until=boottime() + LEASE_S,
        urgency=0.0, extension=0,
    )  # fmt: skip
    again = await desk.placer.rechoose(call, outcome="refused", http=403, code="1", bar_s=60.0)
    assert isinstance(again, PlatformCall)
    assert (again.x_id, again.extension, again.x) == (1, 0, given.pool.numbers[1])
    assert await desk.placer.rechoose(call, outcome="refused", http=403, code="1", bar_s=60.0) == "superseded"
    await desk.stall.run("UPDATE x_number SET state = 'frozen'")
    assert await desk.placer.rechoose(again, outcome="refused", http=403, code="1", bar_s=60.0) == "exhausted"
    assert await desk.stall.wrong_books() == []


async def test_a_claim_that_nobody_waits_for_is_released_later(db: Database) -> None:
    """Who asked has gone before the claim was committed: it is noted as to be let go."""
    desk = await _desk(db, "ax")
    told = asyncio.Event()

    def nobody(_result: Allocated | BaseException) -> bool:
        told.set()
        return False

    desk.placer.enqueue(desk.order(1), nobody, within_s=20, gone=lambda: False)
    await asyncio.wait_for(told.wait(), 20)
    assert await desk.stall.value("SELECT id FROM binding") == desk.placer.abandoned[0][1].binding_id


async def test_without_a_database_the_claim_is_looked_for_later(db: Database) -> None:
    """The statement got no answer: 'not now', and a claim that turns up yet is released."""
    desk = await _desk(db, "ax")
    await db.close()
    with pytest.raises(DatabaseAway):
        await desk.give(1)
    assert len(desk.placer.abandoned) == 1


async def test_the_routing_of_one_party(db: Database) -> None:
    """In mode X an order without B takes a whole X of a pool that is routed so."""
    desk = await _desk(db, "x", routing="one")
    first = desk.registry.app_pools[desk.stall.app_id]
    order = replace(desk.order(1), pools=tuple(pool for pool in first if pool.routing == "one"))
    given = await desk.placer.allocate(order, within_s=20)
    assert (given.x_id, given.extension, given.pool.codes) == (0, 0, (0,))
