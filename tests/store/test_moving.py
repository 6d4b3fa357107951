from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.errors import Conflict, Invalid, NotFound
from broker.flows.operate import clearing, numbers
from broker.flows.operate.fields import Closing, Move, NumberFilter, Numbers, read
from broker.store.crypto import DataKey, Vault
from broker.store.registry import load
from tests.store.shop import Shop
from tests.store.test_operate import desk_of, ended, furnished, pointers, settle_states

_VAULT = Vault((DataKey(1, bytes(32)),), bytes(32))


async def number_at(shop: Shop, x_id: int, pool: int | None = None) -> str:
    """The number in a place."""
    return str(
        await shop.value("SELECT number FROM x_number WHERE pool_id = $1 AND x_id = $2", pool or shop.pool, x_id)
    )


async def rows_of(shop: Shop, number: str) -> list[tuple[int, int, str]]:
    """Where a number is and was: (pool, position, state)."""
    found = await shop.db.fetch(
        "SELECT pool_id, x_id, state FROM x_number WHERE number = $1 ORDER BY pool_id, x_id", number
    )
    return [tuple(row) for row in found]


async def move(shop: Shop, number: str, to: str = "pool-2") -> dict[str, Any]:
    """Move a number of the shop; what is listed of it then."""
    (listed,) = await numbers.move(desk_of(shop), "shop", read(Move, {"number": number, "to": to}))
    return listed


async def test_a_number_that_anybody_uses_stays(shop: Shop) -> None:
    """Open, changed a moment ago, with a live line, with a rest: each is refused by name, and nothing moves."""
    await shop.test_clock()
    claim = await shop.active(shop.claim(1, 2))
    x = await number_at(shop, 0)
    with pytest.raises(Conflict, match="is open; freeze or drain it first"):
        await move(shop, x)
    await numbers.freeze(desk_of(shop), "shop", Closing(numbers=[x, await number_at(shop, 1)]))
    with pytest.raises(Conflict, match="a moment ago"):
        await move(shop, await number_at(shop, 1))
    await settle_states(shop)
    with pytest.raises(Conflict, match="1 lines live"):
        await move(shop, x)
    await ended(shop, claim)
    with pytest.raises(Conflict, match="rests"):
        await move(shop, x)
    assert await rows_of(shop, x) == [(shop.pool, 0, "frozen")]
    await shop.advance(100_000)
    assert (await move(shop, x))["pool"] == "pool-2"


async def test_a_moved_number_serves_there_and_its_past_stays_readable(shop: Shop) -> None:
    """It gets a new place, keeps state and details, is known once; its old line still finds its X; it can come back."""
    await shop.test_clock()
    desk = desk_of(shop)
    claim = await shop.active(shop.claim(1, 2))
    await ended(shop, claim)
    await shop.advance(100_000)
    x = await number_at(shop, 0)
    await shop.run("UPDATE x_number SET carrier = 'V', rent = 3 WHERE number = $1", x)
    await numbers.drain(desk, "shop", Closing(numbers=[x], reason="to the south"))
    await settle_states(shop)
    moved = await move(shop, x)
    assert (moved["pool"], moved["state"], moved["state_reason"]) == ("pool-2", "draining", "to the south")
    assert (moved["carrier"], moved["rent"]) == ("V", "3.00")
    assert await rows_of(shop, x) == [(shop.pools[0], 0, "moved"), (shop.pools[1], 4, "draining")]
    everything = await numbers.every(desk, "shop", NumberFilter())
    assert len(everything) == 8
    assert [row["pool"] for row in everything if row["number"] == x] == ["pool-2"]
    assert [row["number"] for row in await numbers.every(desk, "shop", NumberFilter(state="moved"))] == [x]
    assert await shop.value("SELECT number FROM show_bindings($1, $2)", [claim.pool_id], [claim.binding_id]) == x
    await numbers.reopen(desk, "shop", Numbers(numbers=[x]))
    await shop.run("UPDATE app SET secret_sealed = $1", _VAULT.seal("app", "secret", 0, "shop", "x"))
    registry = await load(shop.db, _VAULT)
    assert registry.pools[shop.pools[0]].numbers[0] == ""
    assert registry.pools[shop.pools[0]].open_mask == 0b1110
    assert registry.pools[shop.pools[1]].numbers[4] == x
    assert registry.pools[shop.pools[1]].open_mask == 0b11111
    await ended(shop, await shop.active(shop.claim(1, 2, x=4, pool=shop.pools[1])))
    assert await shop.reserve(shop.claim(3, 4)) == ["closed"]
    with pytest.raises(Invalid, match="Nothing was imported"):
        await numbers.load(desk, "shop", [{"number": x, "pool": "pool-1"}])
    assert (await numbers.load(desk, "shop", [{"number": x, "pool": "pool-2", "carrier": "W"}]))["changed"] == 1
    await shop.advance(100_000)
    await numbers.freeze(desk, "shop", Closing(numbers=[x]))
    await settle_states(shop)
    back = await move(shop, x, to="pool-1")
    assert (back["pool"], back["state"], back["carrier"]) == ("pool-1", "frozen", "W")
    assert await rows_of(shop, x) == [(shop.pools[0], 0, "frozen"), (shop.pools[1], 4, "moved")]


async def test_wrong_places_are_named(shop: Shop) -> None:
    """Numbers and pools of another app, the pool it is in, a retired number, an unknown app: refused."""
    desk = await furnished(shop)
    theirs = await number_at(shop, 0)
    with pytest.raises(Invalid) as caught:
        await numbers.move(desk, "food", read(Move, {"number": theirs, "to": "pool-2"}))
    assert pointers(caught.value) == {"/number", "/to"}
    with pytest.raises(Invalid) as caught:
        await move(shop, theirs, to="pool-1")
    assert pointers(caught.value) == {"/to"}
    with pytest.raises(Invalid):
        await move(shop, theirs, to="north")
    with pytest.raises(NotFound):
        await numbers.move(desk, "none", read(Move, {"number": theirs, "to": "north"}))
    await shop.run("UPDATE x_number SET state = 'retired' WHERE number = $1", theirs)
    with pytest.raises(Conflict, match="is retired"):
        await move(shop, theirs)


async def test_moves_and_imports_at_once_lose_no_number(shop: Shop) -> None:
    """Whatever wants the same place at the same time is done whole or refused whole: every number is known once."""
    desk = desk_of(shop)
    all_of_them = [row["number"] for row in await numbers.every(desk, "shop", NumberFilter(pool="pool-1"))]
    await numbers.freeze(desk, "shop", Closing(numbers=all_of_them))
    await settle_states(shop)

    async def load_some(part: int) -> Any:
        return await numbers.load(desk, "shop", [{"number": f"+861701234{part:04}", "pool": "pool-2"}])

    jobs = [move(shop, x) for x in all_of_them * 2] + [load_some(part) for part in range(8)]
    done = await asyncio.gather(*jobs, return_exceptions=True)
    assert all(isinstance(each, dict | Conflict | Invalid) for each in done)
    for x in all_of_them:
        assert len([row for row in await rows_of(shop, x) if row[2] != "moved"]) == 1
    while any(row["pool"] == "pool-1" for row in await numbers.every(desk, "shop", NumberFilter())):
        left = [row["number"] for row in await numbers.every(desk, "shop", NumberFilter(pool="pool-1"))]
        for x in left:
            await move(shop, x)


async def test_clearing_without_a_running_service_commits_the_releases(shop: Shop) -> None:
    """Each binding on the X and none beside it is released; calls wait for whoever takes them; again is harmless."""
    desk = desk_of(shop)
    first, second = await shop.active(shop.claim(1, 2)), await shop.active(shop.claim(3, 4))
    pending, beside = await shop.won(shop.claim(5, 6)), await shop.active(shop.claim(1, 2, x=1))
    x = await number_at(shop, 0)
    seen: list[tuple[int, int]] = []

    async def clear() -> list[dict[str, Any]]:
        return await clearing.clear(desk, "shop", x, wait_s=0.0, told=lambda over, of: seen.append((over, of)))

    bindings = await clear()
    assert [binding["state"] for binding in bindings] == ["releasing"] * 3
    assert not clearing.ended(bindings)
    for claim in (first, second):
        assert (await shop.calls_of(claim))[-1][:3] == (2, "unbind", "open")
        assert (await shop.row("binding", claim.binding_id))["reason"] == "cleared"
    assert await shop.calls_of(pending) == [(1, "bind", "open", 1)]
    assert (await shop.row("binding", beside.binding_id))["state"] == "active"
    claimed = await shop.db.fetch("SELECT line_id FROM claim_calls(10, interval '8 s') WHERE op = 'unbind'")
    assert {row["line_id"] for row in claimed} == {first.line_id, second.line_id}
    assert await clear() == bindings
    assert await shop.end(first, token=2)
    assert sorted(binding["state"] for binding in await clear()) == ["releasing", "releasing"]
    assert seen == [(0, 3), (0, 3), (0, 2)]
    assert clearing.ended([])
    with pytest.raises(Invalid):
        await clearing.clear(await furnished(shop), "food", x, wait_s=0.0, told=lambda _over, _of: None)
