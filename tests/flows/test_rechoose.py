from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from broker.clock import boottime
from broker.domain.choice import Policy
from broker.domain.phone import PhoneNumber
from broker.flows.allocate import Allocator
from broker.flows.calls import PlatformCall
from broker.flows.order import BindOrder
from broker.store.bindings import ReleaseAsk, release
from broker.store.calls import CallKey
from broker.store.crypto import DataKey, Vault
from broker.store.database import Database
from broker.store.registry import Registry, load
from tests.store.shop import LEASE_S, Shop, open_shop

_VAULT = Vault((DataKey(1, bytes(32)),), bytes(32))
_A, _B = PhoneNumber("+8613900000001"), PhoneNumber("+8613900000002")


@dataclass(slots=True)
class _Desk:
    shop: Shop
    registry: Registry
    allocator: Allocator

    async def bind_call(self) -> PlatformCall:
        """A pending binding of A and B, as its bind call."""
        app = self.registry.apps[self.shop.app_id]
        order = BindOrder(
            app=app, caller_id=self.shop.caller_id, a=_A, b=_B, a_key=_VAULT.party_key(_A.reveal()),
            b_key=_VAULT.party_key(_B.reveal()), pools=(self.registry.pools[self.shop.pool],), ttl_s=3600,
            direction="both", policy=Policy.PACK, share=False,
        )  # fmt: skip
        allocated = await self.allocator.allocate(order, within_s=5)
        return PlatformCall(
            key=CallKey(allocated.pool.id, allocated.line_id, 1, 1), op="bind", app_id=app.id, x_id=allocated.x_id,
            x=allocated.x,
            a=_A, b=_B, a_key=order.a_key, b_key=order.b_key, direction="both", ttl_s=3600,
            lease_until=boottime() + LEASE_S, urgency=boottime() + 5,
        )  # fmt: skip

    async def rechoose(self, call: PlatformCall) -> PlatformCall | str:
        """Refused on this X."""
        return await self.allocator.rechoose(call, outcome="refused", http=403, code="1012010", bar_s=60)


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[_Desk]:
    """An allocator over a pool of three numbers."""
    db = Database(database_url, connections=4, timeout_s=20)
    await db.open()
    shop = await open_shop(db, numbers=3)
    await shop.run("UPDATE app SET secret_sealed = $1", _VAULT.seal("app", "secret", 0, "shop", "secret"))
    registry = await load(db, _VAULT)
    allocator = Allocator(db, _VAULT, lambda: registry, lease_s=LEASE_S, boottime=boottime)
    yield _Desk(shop, registry, allocator)
    await db.close()


async def test_a_refused_bind_walks_through_the_pool_and_then_stops(desk: _Desk) -> None:
    """Each refusal gives the binding an X it has not had; with none left nothing is changed."""
    call = await desk.bind_call()
    had = {call.x_id}
    for _ in range(2):
        moved = await desk.rechoose(call)
        assert isinstance(moved, PlatformCall)
        assert moved.line_id != call.line_id
        assert moved.x_id not in had
        had.add(moved.x_id)
        call = moved
    before = await desk.shop.contents()
    assert await desk.rechoose(call) == "exhausted"
    assert await desk.shop.contents() == before
    assert await desk.shop.wrong_books() == []


async def test_whoever_lost_the_call_and_what_was_released_is_not_moved(desk: _Desk) -> None:
    """With the call settled by another, or the binding released meanwhile, no other X is taken."""
    call = await desk.bind_call()
    binding_id = await desk.shop.value("SELECT id FROM binding")
    asks = [ReleaseAsk(call.pool_id, binding_id, call.app_id)]
    await release(desk.shop.db, asks, reason="released", lease_s=LEASE_S)
    assert await desk.rechoose(call) == "released"
    assert await desk.rechoose(call) == "superseded"
    assert await desk.shop.value("SELECT count(*) FROM line") == 1


async def test_many_orders_of_few_parties_are_never_bound_twice_to_an_x(desk: _Desk) -> None:
    """Orders of the same pair at once get different X numbers, and those beyond the pool are refused."""
    answers = await asyncio.gather(*(desk.bind_call() for _ in range(5)), return_exceptions=True)
    bound = [answer.x_id or 0 for answer in answers if isinstance(answer, PlatformCall)]
    assert sorted(bound) == [0, 1, 2]
    assert [type(answer).__name__ for answer in answers if isinstance(answer, Exception)] == ["PoolExhausted"] * 2
    assert await desk.shop.wrong_books() == []
