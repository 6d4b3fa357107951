"""The allocator's own rounds: several pools, batches that break, waiters that leave."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from broker.clock import boottime
from broker.domain.choice import Policy
from broker.domain.phone import PhoneNumber
from broker.errors import PoolExhausted
from broker.flows.allocate import Allocator
from broker.flows.order import BindOrder
from broker.store import allocation
from broker.store.allocation import Claim, LockMode, Reserved
from broker.store.crypto import DataKey, Vault
from broker.store.database import Database
from broker.store.registry import Registry, load
from tests.store.shop import LEASE_S, Shop, open_shop

_VAULT = Vault((DataKey(1, bytes(32)),), bytes(32))


@dataclass(slots=True)
class _Desk:
    shop: Shop
    registry: Registry
    allocator: Allocator

    def order(self, a: int, b: int, **changes: Any) -> BindOrder:
        """A bind of two phones by their numbers, in all pools in turn."""
        phones = [PhoneNumber(f"+86139{number:08d}") for number in (a, b)]
        fields: dict[str, Any] = {
            "app": self.registry.apps[self.shop.app_id],
            "caller_id": self.shop.caller_id,
            "a": phones[0],
            "b": phones[1],
            "a_key": _VAULT.party_key(phones[0].reveal()),
            "b_key": _VAULT.party_key(phones[1].reveal()),
            "pools": tuple(self.registry.pools[pool] for pool in self.shop.pools),
            "ttl_s": 3600,
            "direction": "both",
            "policy": Policy.PACK,
        }
        return BindOrder(**{**fields, **changes})


@pytest.fixture
async def desk(database_url: str) -> AsyncIterator[_Desk]:
    """An allocator over two pools of one number each."""
    db = Database(database_url, connections=4, timeout_s=20)
    await db.open()
    shop = await open_shop(db, numbers=1)
    await shop.run("UPDATE app SET secret_sealed = $1", _VAULT.seal("app", "secret", 0, "shop", "secret"))
    registry = await load(db, _VAULT)
    yield _Desk(shop, registry, Allocator(db, _VAULT, lambda: registry, lease_s=LEASE_S, boottime=boottime))
    await db.close()


async def test_pools_are_tried_in_order_and_the_refusal_counts_all(desk: _Desk) -> None:
    """The first pool that serves gives the X; with none left the refusal counts every X of every pool by its reason."""
    first = await desk.allocator.allocate(desk.order(1, 2), within_s=5)
    second = await desk.allocator.allocate(desk.order(1, 3), within_s=5)
    assert [first.pool.id, second.pool.id] == list(desk.shop.pools)
    with pytest.raises(PoolExhausted) as refused:
        await desk.allocator.allocate(desk.order(1, 4), within_s=5)
    assert refused.value.extra["reasons"] == {"not_open": 0, "full": 0, "a_busy": 2, "b_busy": 0, "resting": 0}


async def test_a_number_that_came_while_the_order_waited(desk: _Desk) -> None:
    """The order was checked when the pool had one X, and gets the second one, which it is told."""
    order = desk.order(1, 2)
    pool = desk.shop.pools[0]
    await desk.shop.run("INSERT INTO x_number (pool_id, x_id, number) VALUES ($1, 1, '+8617099999999')", pool)
    await desk.shop.run("UPDATE x_number SET state = 'frozen' WHERE pool_id = $1 AND x_id = 0", pool)
    newest = await load(desk.shop.db, _VAULT)
    allocator = Allocator(desk.shop.db, _VAULT, lambda: newest, lease_s=LEASE_S, boottime=boottime)
    assert (await allocator.allocate(order, within_s=5)).x == "+8617099999999"


async def test_a_batch_that_breaks_gives_each_item_one_claim(desk: _Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item that had moved on to its next pool when its batch broke is claimed once, and so are its neighbours."""
    await desk.allocator.allocate(desk.order(1, 2), within_s=5)
    real = allocation.reserve
    broken: list[int] = []

    async def reserve(db: Database, claims: Sequence[Claim], *, mode: LockMode, lease_s: float) -> list[Reserved]:
        if not broken:
            broken.append(len(claims))
            raise ValueError("poisonous")
        return await real(db, claims, mode=mode, lease_s=lease_s)

    monkeypatch.setattr(allocation, "reserve", reserve)
    won = await asyncio.gather(
        desk.allocator.allocate(desk.order(1, 5), within_s=5),  # its first pool has nothing for it
        desk.allocator.allocate(desk.order(6, 7), within_s=5),
        desk.allocator.allocate(desk.order(8, 9), within_s=5),
    )
    assert broken == [2]
    assert [allocated.pool.id for allocated in won] == [desk.shop.pools[1], desk.shop.pools[0], desk.shop.pools[0]]
    assert await desk.shop.value("SELECT count(*) FROM binding") == 4
    assert await desk.shop.wrong_books() == []


async def test_a_claim_whose_waiter_has_gone_is_given_back(desk: _Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows the id of a binding whose requester left during the commit: it is put down for release."""
    real = allocation.reserve
    leaving: list[asyncio.Task[Any]] = []

    async def reserve(db: Database, claims: Sequence[Claim], *, mode: LockMode, lease_s: float) -> list[Reserved]:
        results = await real(db, claims, mode=mode, lease_s=lease_s)
        leaving[0].cancel()
        await asyncio.sleep(0)
        return results

    monkeypatch.setattr(allocation, "reserve", reserve)
    leaving.append(asyncio.create_task(desk.allocator.allocate(desk.order(1, 2), within_s=5)))
    await asyncio.wait(leaving)
    while not desk.allocator.abandoned:  # noqa: ASYNC110 - the round ends a turn of the loop later
        await asyncio.sleep(0)
    made = await desk.shop.value("SELECT id FROM binding")
    assert [ask.binding_id for _, ask in desk.allocator.abandoned] == [made]


async def test_a_full_pool_is_refused_soon(desk: _Desk) -> None:
    """With every seat of many X taken by others, a fresh process refuses by reasons, not by running out of time."""
    await desk.shop.run(
        "INSERT INTO x_number (pool_id, x_id, number)"
        " SELECT $1, g, '+8615' || (100000000 + g) FROM generate_series(1, 59) g",
        desk.shop.pool,
    )
    await desk.shop.run("UPDATE app SET cap = 1")
    await desk.shop.run(
        """INSERT INTO line (pool_id, id, app_id, x_id, seat, state, direction, calls, ttl_s, a_key, b_key,
                             a_sealed, b_sealed)
        SELECT $1, gen_random_uuid(), $2, g, 0, 'active', 'both', 1, 0, 100 + 2 * g, 101 + 2 * g, 'x', 'x'
        FROM generate_series(0, 59) g""",
        desk.shop.pool,
        desk.shop.app_id,
    )
    registry = await load(desk.shop.db, _VAULT)
    allocator = Allocator(desk.shop.db, _VAULT, lambda: registry, lease_s=LEASE_S, boottime=boottime)
    order = desk.order(1, 2, app=registry.apps[desk.shop.app_id], pools=(registry.pools[desk.shop.pool],))
    with pytest.raises(PoolExhausted) as refused:
        await allocator.allocate(order, within_s=3)
    assert refused.value.extra["reasons"]["full"] == 60
    assert allocator.lost_rounds == 0


async def test_one_order_looks_at_an_x_that_was_full(desk: _Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it is time to look again at 40 full X, each is looked at once, and no order loses more than one round."""
    await desk.shop.run(
        "INSERT INTO x_number (pool_id, x_id, number)"
        " SELECT $1, g, '+8615' || (100000000 + g) FROM generate_series(1, 59) g",
        desk.shop.pool,
    )
    await desk.shop.run("UPDATE app SET cap = 100")
    await desk.shop.run(
        """INSERT INTO line (pool_id, id, app_id, x_id, seat, state, direction, calls, ttl_s, a_key, b_key,
                             a_sealed, b_sealed)
        SELECT $1, gen_random_uuid(), $2, x, seat, 'active', 'both', 1, 0, 1000 * x + seat, -1000 * x - seat - 1,
               'x', 'x'
        FROM generate_series(0, 39) x, generate_series(0, 99) seat""",
        desk.shop.pool,
        desk.shop.app_id,
    )
    registry = await load(desk.shop.db, _VAULT)
    allocator = Allocator(desk.shop.db, _VAULT, lambda: registry, lease_s=LEASE_S, boottime=boottime)
    of_shop = {"app": registry.apps[desk.shop.app_id], "pools": (registry.pools[desk.shop.pool],)}
    passed = 0.0
    now = time.monotonic
    monkeypatch.setattr("broker.flows.allocate.time.monotonic", lambda: now() + passed)
    await allocator.allocate(desk.order(1, 2, **of_shop), within_s=20)
    real, sent = allocation.reserve, list[Claim]()

    async def reserve(db: Database, claims: Sequence[Claim], **rest: Any) -> list[Reserved]:
        sent.extend(claims)
        return await real(db, claims, **rest)

    monkeypatch.setattr(allocation, "reserve", reserve)
    passed = 60.0
    orders = [desk.order(1000 + n, 2000 + n, **of_shop) for n in range(50)]
    async with asyncio.TaskGroup() as group:
        for order in orders:
            group.create_task(allocator.allocate(order, within_s=20))
    looked_at = Counter(claim.x_id for claim in sent if claim.x_id < 40)
    assert looked_at == Counter(range(40))
    assert max(Counter(claim.binding_id for claim in sent).values()) == 2
