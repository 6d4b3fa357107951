"""Events are written with what they tell, and get their positions in an order that never skips one."""

from __future__ import annotations

import asyncio
import random
from datetime import datetime
from uuid import UUID

import asyncpg

from broker.domain.events import Event
from broker.domain.ids import new_id
from broker.store import bindings, events, webhooks
from broker.store.bindings import ReleaseAsk
from tests.store.shop import LEASE_S, Shop

_EMIT = "SELECT emit_event($1, 'call.started', $2, $3, $4::text::jsonb)"


async def _feed(shop: Shop, after: int = 0) -> list[Event]:
    while await events.place(shop.db, limit=100):
        pass
    return await events.read(shop.db, shop.app_id, after, span=10_000)


def _ends(told: list[Event]) -> list[datetime]:
    return [event.expires_at for event in told if event.expires_at is not None]


async def _emit(connection: asyncpg.Connection, shop: Shop, binding_id: UUID, data: str = "{}") -> None:
    await connection.execute(_EMIT, shop.app_id, shop.pool, binding_id, data)


async def test_the_life_of_a_binding_is_told(shop: Shop) -> None:
    """Confirmed, given a longer life, released: an event each, with the X and the order system's own words."""
    claim = await shop.active(shop.claim(1, 2))
    await shop.run("SELECT change_own($1, $2, '{ttl_s}', 7200, NULL, NULL)", claim.pool_id, claim.binding_id)
    await bindings.release(
        shop.db, [ReleaseAsk(claim.pool_id, claim.binding_id, shop.app_id)], reason="released", lease_s=LEASE_S
    )
    assert await shop.end(claim)
    told = await _feed(shop)
    assert [event.type for event in told] == ["binding.active", "binding.renewed", "binding.released"]
    assert [event.pos for event in told] == [1, 2, 3]
    number = await shop.value("SELECT number FROM x_number WHERE pool_id = $1 AND x_id = 0", claim.pool_id)
    assert {event.x for event in told} == {number}
    assert {(event.binding_id, event.order_id, event.user_data) for event in told} == {
        (claim.binding_id, "order-1", "their words")
    }
    assert _ends(told[:2]) == sorted(set(_ends(told[:2])))
    assert told[2].reason == "released"


async def test_a_refused_bind_is_told_once(shop: Shop) -> None:
    """What fails is told with its reason."""
    claim = await shop.won(shop.claim(1, 2))
    await shop.run("UPDATE binding SET state = 'failed', reason = 'capacity' WHERE id = $1", claim.binding_id)
    await shop.run("UPDATE binding SET user_data = 'again' WHERE id = $1", claim.binding_id)
    assert [(event.type, event.reason) for event in await _feed(shop)] == [("binding.failed", "capacity")]


async def test_a_stand_in_tells_nothing(shop: Shop) -> None:
    """A row that holds another line for a binding is no order's."""
    claim = await shop.won(shop.claim(1, 2))
    await shop.run("UPDATE binding SET moves = id WHERE id = $1", claim.binding_id)
    await shop.bind(claim)
    assert await _feed(shop) == []


async def test_what_the_trigger_tells_is_told_once(shop: Shop) -> None:
    """Who calls emit_event() for what the binding's own trigger tells adds nothing."""
    claim = await shop.active(shop.claim(1, 2))
    await shop.run(
        "SELECT emit_event($1, 'binding.active', $2, $3, '{}')", shop.app_id, claim.pool_id, claim.binding_id
    )
    assert len(await _feed(shop)) == 1


async def test_an_app_can_do_without(shop: Shop) -> None:
    """With event_days 0 nothing is written."""
    await shop.run("UPDATE app SET event_days = 0")
    claim = await shop.active(shop.claim(1, 2))
    await shop.run(_EMIT, shop.app_id, claim.pool_id, claim.binding_id, "{}")
    assert await shop.value("SELECT count(*) FROM event") == 0


async def test_a_late_commit_is_not_skipped(shop: Shop, database_url: str) -> None:
    """Two real transactions: the one that drew its id first commits last, and is read after the other, not never."""
    early, late = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    first, second = new_id(), new_id()
    transaction = late.transaction()
    await transaction.start()
    await _emit(late, shop, first)
    await _emit(early, shop, second)
    assert [event.binding_id for event in await _feed(shop)] == [second]
    assert await shop.value("SELECT cardinality(gap_first) FROM event_clock") == 1
    await transaction.commit()
    assert [event.binding_id for event in await _feed(shop, after=1)] == [first]
    assert [(event.pos, event.binding_id) for event in await _feed(shop)] == [(1, second), (2, first)]
    assert await shop.value("SELECT cardinality(gap_first) FROM event_clock") == 0
    await early.close()
    await late.close()


async def test_a_rolled_back_event_leaves_no_gap_for_ever(shop: Shop, database_url: str) -> None:
    """The id of a transaction that was undone is forgotten when everything of its time is over."""
    one, other = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    transaction = one.transaction()
    await transaction.start()
    await _emit(one, shop, new_id())
    await _emit(other, shop, new_id())
    assert len(await _feed(shop)) == 1
    await transaction.rollback()
    await events.place(shop.db, limit=100)
    assert await shop.value("SELECT cardinality(gap_first) FROM event_clock") == 0
    assert len(await _feed(shop)) == 1
    await one.close()
    await other.close()


async def test_a_binding_is_in_order_though_xids_are_not(shop: Shop, database_url: str) -> None:
    """A transaction that had its xid before it waited for the binding comes after the one that it waited for."""
    claim = await shop.active(shop.claim(1, 2))
    waiting, holding = await asyncpg.connect(database_url), await asyncpg.connect(database_url)
    older, younger = waiting.transaction(), holding.transaction()
    await older.start()
    await waiting.execute("SELECT pg_current_xact_id()")
    await younger.start()
    extend = "UPDATE binding SET expires_at = expires_at + interval '1 hour', version = version + 1 WHERE id = $1"
    await holding.execute(extend, claim.binding_id)
    blocked = asyncio.create_task(waiting.execute(extend, claim.binding_id))
    while not await shop.value("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        pass
    await younger.commit()
    await blocked
    await older.commit()
    ends = _ends(await _feed(shop))
    assert ends == sorted(ends)
    assert len(set(ends)) == 3
    await waiting.close()
    await holding.close()


async def test_every_event_has_one_position(shop: Shop, database_url: str) -> None:
    """Writers that commit late or not at all and three who place at once: each event once, positions without holes."""
    chance = random.Random(7)  # noqa: S311 - the same run each time
    written: dict[UUID, list[int]] = {new_id(): [] for _ in range(8)}

    async def write(binding_id: UUID) -> None:
        connection = await asyncpg.connect(database_url)
        for n in range(25):
            transaction = connection.transaction()
            await transaction.start()
            for _ in range(chance.randrange(1, 4)):
                await _emit(connection, shop, binding_id, f'{{"n": {n}}}')
            await asyncio.sleep(chance.choice((0, 0, 0.02)))
            if chance.random() < 0.3:
                await transaction.rollback()
            else:
                await transaction.commit()
                written[binding_id].append(n)
        await connection.close()

    done = asyncio.Event()

    async def place() -> None:
        while not done.is_set():
            await events.place(shop.db, limit=chance.choice((1, 3, 50)))

    placing = [asyncio.create_task(place()) for _ in range(3)]
    await asyncio.gather(*(write(binding_id) for binding_id in written))
    done.set()
    await asyncio.gather(*placing)
    told = await _feed(shop)
    assert len(told) == await shop.value("SELECT count(*) FROM event")
    assert [event.pos for event in told] == list(range(1, len(told) + 1))
    for binding_id, numbers in written.items():
        seen = [event.data["n"] for event in told if event.binding_id == binding_id]
        assert seen == sorted(seen)
        assert set(seen) == set(numbers)


async def test_days_are_made_and_dropped(shop: Shop) -> None:
    """Events go into partitions of their days; what no app keeps is dropped, and the feed says how far it is gone."""
    await shop.test_clock()
    while await events.tend(shop.db, days_ahead=2, slice_=100):
        pass
    await shop.active(shop.claim(1, 2))
    assert len(await _feed(shop)) == 1
    assert await shop.value("SELECT count(*) FROM event_rest") == 0
    await shop.advance(9 * 86400)
    await shop.active(shop.claim(3, 4, x=1))
    assert len(await _feed(shop)) == 2
    while await events.tend(shop.db, days_ahead=2, slice_=100):
        pass
    assert [event.pos for event in await events.read(shop.db, shop.app_id, 0, span=100)] == [2]
    assert await events.feed(shop.db, shop.app_id) == events.Feed(upto=2, swept=1)
    assert await shop.value("SELECT count(*) FROM event") == 1


async def test_dead_letters_go_with_their_events(shop: Shop) -> None:
    """A dead letter whose event is kept no more is forgotten; a later one, and what waits, stays."""
    await shop.run("INSERT INTO event_feed (app_id, upto, swept) VALUES ($1, 9, 5)", shop.app_id)
    await shop.run(
        "INSERT INTO webhook (app_id, name, url, secret_sealed, at_position) VALUES ($1, 'w', 'https://w', 'x', 9)",
        shop.app_id,
    )
    await shop.run(
        "INSERT INTO webhook_parked (webhook_id, pos, state, attempts, due_at)"
        " SELECT w.id, v.pos, v.state, 1, now() FROM webhook AS w,"
        " (VALUES (4, 'waiting'), (5, 'dead'), (6, 'dead')) AS v (pos, state)"
    )
    await webhooks.bury(shop.db)
    assert await shop.value("SELECT array_agg(pos ORDER BY pos) FROM webhook_parked") == [4, 6]
