"""Pools that become low or have nothing left: who notices, and how often it is told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson
import pytest

from broker.domain.level import Level, Room
from broker.flows.operate import pools
from broker.flows.operate.fields import PoolChange, read
from broker.metrics import Metrics
from broker.store import levels
from broker.store.allocation import Claim
from broker.store.database import Database
from broker.store.registry import Registry, load
from broker.workers.levels import Levels
from tests.contract.service import eventually
from tests.store.pairs import VAULT
from tests.store.shop import Shop, open_shop
from tests.store.stall import open_stall
from tests.store.test_operate import desk_of, ended

_COUNTED_AGAIN_S = 90


@dataclass
class Watched:
    """A shop of two pools of four X with one seat each, and two instances that watch it."""

    shop: Shop
    registry: Registry
    refusals: dict[int, dict[str, int]] = field(default_factory=dict)
    instances: list[Levels] = field(default_factory=list)
    #: What the instances take for the seconds since the machine began: nothing takes any time.
    ticks: Iterator[float] = field(default_factory=lambda: itertools.repeat(0.0))

    def seconds(self) -> float:
        """The next of them."""
        return next(self.ticks)

    @property
    def one(self) -> Levels:
        """The first instance."""
        return self.instances[0]

    async def configure(self, statement: str = "SELECT 1") -> None:
        """Change the pools and have everybody know it."""
        await self.shop.run(statement)
        self.registry = await load(self.shop.db, VAULT)

    async def count(self) -> None:
        """Let so much time pass that every pool is due, and have it counted."""
        await self.shop.advance(_COUNTED_AGAIN_S)
        while await self.one.count():
            pass

    async def heed(self, reason: str, pool: int | None = None) -> None:
        """Both instances refuse an order, and look."""
        known = self.refusals.setdefault(pool or self.shop.pool, {})
        known[reason] = known.get(reason, 0) + 1
        for one in self.instances:
            await one.heed()

    async def told(self) -> list[tuple[str, str, dict[str, Any]]]:
        """The events of pools: type, reason, data."""
        rows = await self.shop.db.fetch(
            "SELECT type, reason, data::text AS data FROM event WHERE type LIKE 'pool.%' ORDER BY id"
        )
        return [(row["type"], row["reason"], orjson.loads(row["data"])) for row in rows]

    async def kinds(self) -> list[tuple[str, str]]:
        """The same without data."""
        return [(kind, reason) for kind, reason, _ in await self.told()]

    async def shown(self) -> tuple[str | None, float | None]:
        """Level and percent of the first pool, as operators see them."""
        listed = await pools.every(desk_of(self.shop), "shop")
        return next((row["level"], row["left_percent"]) for row in listed if row["name"] == "pool-1")

    async def take(self, *places: int) -> list[Claim]:
        """One line on each X, of parties that have no other."""
        return [await self.shop.active(self.shop.claim(100 + 2 * x, 101 + 2 * x, x, cap=1)) for x in places]


@pytest.fixture
async def watched(database_url: str) -> AsyncIterator[Watched]:
    """A pool is low when 30 % are left."""
    db = Database(database_url, connections=6, timeout_s=20)
    await db.open()
    shop = await open_shop(db)
    await shop.test_clock()
    await shop.run("UPDATE app SET cap = 1, secret_sealed = $1", VAULT.seal("app", "secret", 0, "shop", "secret"))
    await shop.run("UPDATE pool SET low_percent = 30")
    made = Watched(shop, await load(db, VAULT))
    metrics = Metrics()
    made.instances += [
        Levels(db, metrics, lambda: made.registry, lambda pool: made.refusals.get(pool, {}), made.seconds)
        for _ in range(2)
    ]
    yield made
    await db.close()


async def test_each_worsening_is_told_once(watched: Watched) -> None:
    """Low at 25 %, exhausted at 0, each once; well again at 50 %, and then it may become low again."""
    lines = await watched.take(0, 1, 2)
    await watched.count()
    assert await watched.told() == [
        ("pool.low", "places", {"pool": "pool-1", "area_code": "0755", "left_percent": 25.0})
    ]
    assert await watched.shown() == ("low", 25.0)
    await watched.count()
    lines += await watched.take(3)
    await watched.count()
    await watched.count()
    assert await watched.kinds() == [("pool.low", "places"), ("pool.exhausted", "places")]
    assert await watched.shown() == ("exhausted", 0.0)
    for line in lines[:2]:
        await ended(watched.shop, line)
    await watched.count()
    assert await watched.shown() == ("ok", 50.0)
    await watched.shop.advance(100_000)
    await watched.take(0)
    await watched.count()
    assert await watched.kinds() == [("pool.low", "places"), ("pool.exhausted", "places"), ("pool.low", "places")]


async def test_the_busiest_party_counts(watched: Watched) -> None:
    """A courier behind three of four X may get one more; how many seats are free does not help him."""
    for x in range(3):
        await watched.shop.active(watched.shop.claim(1, 10 + x, x, cap=500))
    await watched.configure("UPDATE app SET cap = 500")
    await watched.count()
    assert await watched.kinds() == [("pool.low", "party")]
    assert await watched.shown() == ("low", 25.0)


async def test_what_is_closed_is_neither_room_nor_taken(watched: Watched) -> None:
    """Lines on a frozen X take nothing from the open ones; with no X open nothing is left."""
    await watched.take(0, 1)
    await watched.configure("UPDATE x_number SET state = 'frozen', closed_by = 'operator' WHERE x_id < 2")
    assert await levels.room(watched.shop.db, watched.shop.pool) == Room(1.0, 1.0)
    await watched.configure("UPDATE x_number SET state = 'frozen', closed_by = 'operator'")
    assert (await levels.room(watched.shop.db, watched.shop.pool)).places == 0


async def test_a_refusal_is_told_at_once_and_once(watched: Watched) -> None:
    """Of all instances that refuse, one tells; well again only when nothing was refused for ten minutes."""
    await watched.heed("a_busy")
    assert await watched.told() == [("pool.exhausted", "a_busy", {"pool": "pool-1", "area_code": "0755"})]
    await watched.count()
    assert await watched.shown() == ("exhausted", 100.0)
    await watched.heed("full")
    await watched.shop.advance(601)
    await watched.count()
    assert await watched.shown() == ("ok", 100.0)
    assert await watched.kinds() == [("pool.exhausted", "a_busy")]


async def test_what_says_nothing_of_the_pool_is_not_told(watched: Watched) -> None:
    """A certain extension that was taken; a pool that an operator has closed, or of which nobody wants to know."""
    await watched.heed("taken")
    await watched.configure("UPDATE pool SET state = 'closed' WHERE name = 'pool-1'")
    await watched.heed("not_open")
    desk = desk_of(watched.shop)
    changed = await pools.change(desk, "shop", "pool-2", read(PoolChange, {"low_percent": None}))
    assert (changed["low_percent"], changed["level"]) == (None, None)
    await watched.configure()
    await watched.heed("full", watched.shop.pools[1])
    await watched.count()
    assert await watched.told() == []
    assert await watched.shop.value("SELECT count(*) FROM pool_level") == 0
    typo_safe = await pools.change(desk, "shop", "pool-2", read(PoolChange, {"low_percent": 5}))
    assert typo_safe["low_percent"] == 5
    assert (await pools.change(desk, "shop", "pool-2", read(PoolChange, {"typo_safe": True})))["low_percent"] == 5


async def test_a_pool_is_counted_by_one_instance(watched: Watched, database_url: str) -> None:
    """Of many that ask at once one is given the pool; nobody decides on what another one has changed since."""
    await watched.count()
    await watched.shop.advance(_COUNTED_AGAIN_S)
    other = await asyncpg.connect(database_url)
    async with other.transaction():
        await other.execute("SELECT FROM pool_level FOR UPDATE")
        asked = [asyncio.create_task(levels.due(watched.shop.db, every_s=60, lately_s=600)) for _ in range(3)]

        async def waiting() -> bool:
            waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = $1"
            return bool(await watched.shop.value(waits, await watched.shop.value("SELECT current_database()")) == 3)

        await eventually(waiting, "all want the same pool")
    await other.close()
    (late,) = [due for due in await asyncio.gather(*asked) if due is not None]
    await watched.heed("full", late.pool_id)
    assert not await levels.note(watched.shop.db, late, late.level, Room(1.0, 1.0), again_s=60)
    assert (await levels.known(watched.shop.db, [late.pool_id]))[late.pool_id][0] is Level.EXHAUSTED


async def test_counting_has_a_share_of_the_time(watched: Watched) -> None:
    """After a pool that took ten seconds nothing is counted for two thousand, however many pools are due."""
    watched.ticks = itertools.count(100.0, 10.0)
    assert await watched.one.count()
    due = "SELECT count(*) FROM pool_level"
    assert await watched.shop.value(due) == 1
    watched.ticks = itertools.repeat(2100.0)
    assert not await watched.one.count()
    assert await watched.shop.value(due) == 1
    watched.ticks = itertools.repeat(2130.0)
    assert await watched.one.count()
    assert await watched.shop.value(due) == 2


async def test_places_are_counted_where_there_are_some(database_url: str) -> None:
    """Of extensions and whole X: what is free of all that is given out."""
    db = Database(database_url, connections=2, timeout_s=20)
    await db.open()
    stall = await open_stall(db, "axe", per_x=12)
    taken = [stall.want(party) for party in range(1, 13)]
    await stall.give(*taken)
    assert await levels.room(db, stall.pool) == Room(0.75, 1.0)
    await db.close()
