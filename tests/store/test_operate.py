from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.api.auth import new_key
from broker.errors import Conflict, Invalid, NotFound, Problem
from broker.flows.operate import apps, callers, numbers, pools
from broker.flows.operate.desk import Desk
from broker.flows.operate.fields import (
    AppChange,
    CallerChange,
    Closing,
    NewApp,
    NewCaller,
    NewKey,
    NewPool,
    NumberFilter,
    read,
)
from broker.store.allocation import Claim
from broker.store.bindings import ReleaseAsk, release
from broker.store.crypto import DataKey, Vault
from broker.store.registry import load
from tests.store.shop import Shop

_VAULT = Vault((DataKey(1, bytes(32)),), bytes(32))
_NEW = {"name": "food", "app_key": "k", "secret": "s3cret", "base_url": "https://platform.example.com"}


def desk_of(shop: Shop) -> Desk:
    """The operator's tools over the test's database."""
    return Desk(shop.db, _VAULT)


def pointers(problem: Problem) -> set[str]:
    """The places that a problem names."""
    return {error.pointer for error in problem.errors}


async def furnished(shop: Shop) -> Desk:
    """An app `food` with a caller `shop` and a pool `north`."""
    desk = desk_of(shop)
    await apps.create(desk, read(NewApp, _NEW))
    await callers.create(desk, "food", read(NewCaller, {"name": "shop"}))
    await pools.create(desk, "food", read(NewPool, {"name": "north", "area_code": "010"}))
    return desk


async def settle_states(shop: Shop) -> None:
    """Let the moment pass in which an allocation that began before a change may still commit."""
    await shop.run("UPDATE x_number SET state_since = state_since - interval '11 seconds'")


async def ended(shop: Shop, claim: Claim) -> None:
    """The release of a bound line, through the platform's answer."""
    assert await release(
        shop.db, [ReleaseAsk(claim.pool_id, claim.binding_id, claim.app_id)], reason="released", lease_s=8
    )
    assert await shop.end(claim)


async def test_an_app_is_created_and_changed_field_by_field(shop: Shop) -> None:
    """A change touches what it names and nothing else; the secret opens for instances and is never shown."""
    desk = desk_of(shop)
    await shop.run("UPDATE app SET secret_sealed = $1", _VAULT.seal("app", "secret", 0, "shop", "x"))
    made = await apps.create(desk, read(NewApp, {**_NEW, "rate": 10.0}))
    assert "s3cret" not in str(made)
    changed = await apps.change(desk, "food", read(AppChange, {"burst": 7, "policy": "spread"}))
    assert changed == {**made, "burst": 7, "policy": "spread"}
    assert (await apps.change(desk, "food", read(AppChange, {"rate": None})))["rate"] is None
    await apps.change(desk, "food", read(AppChange, {"secret": "n3w"}))
    registry = await load(shop.db, _VAULT)
    assert {app.name: app.secret for app in registry.apps.values()} == {"shop": "x", "food": "n3w"}
    assert (await apps.suspend(desk, "food", "arrears"))["state_reason"] == "arrears"
    assert (await apps.resume(desk, "food"))["state"] == "open"
    assert [app["name"] for app in await apps.every(desk)] == ["food", "shop"]


async def test_every_mistake_of_an_app_is_named_at_once() -> None:
    """Bad fields come back together, each with its pointer, and no value is repeated."""
    with pytest.raises(Invalid) as caught:
        read(
            NewApp,
            {**_NEW, "name": "Food", "base_url": "ftp://h", "cap": 0, "rate": 0.0, "default_ttl_s": 5, "color": 1},
        )
    assert pointers(caught.value) == {"/name", "/base_url", "/cap", "/rate", "/default_ttl_s", "/color"}
    assert "ftp" not in str(caught.value.errors)
    for address in ("https://h?x=1", "https://u@h", "https://h h", "https://", "https://h:99999", "https://h\n"):
        with pytest.raises(Invalid):
            read(NewApp, {**_NEW, "base_url": address})


async def test_what_is_taken_or_missing_is_said(shop: Shop) -> None:
    """A second app, caller or pool of a name is a conflict; an unknown app, caller or pool is not found."""
    desk = await furnished(shop)
    with pytest.raises(Conflict):
        await apps.create(desk, read(NewApp, _NEW))
    with pytest.raises(Conflict):
        await callers.create(desk, "food", read(NewCaller, {"name": "shop"}))
    with pytest.raises(Conflict):
        await pools.create(desk, "food", read(NewPool, {"name": "north", "area_code": "010"}))
    with pytest.raises(NotFound):
        await apps.change(desk, "none", read(AppChange, {"burst": 2}))
    with pytest.raises(NotFound):
        await callers.change(desk, "food", "none", CallerChange(weight=3))
    with pytest.raises(NotFound):
        await pools.close(desk, "food", "none")
    assert (await callers.change(desk, "food", "shop", CallerChange(weight=3)))["weight"] == 3
    assert (await pools.close(desk, "food", "north"))["state"] == "closed"
    assert (await pools.reopen(desk, "food", "north"))["state"] == "open"


async def test_a_caller_has_at_most_two_live_keys(shop: Shop) -> None:
    """Of many keys made at once two are; a revoked one makes room; lists show hints, never keys."""
    desk = await furnished(shop)

    async def make() -> Any:
        return await callers.create_key(desk, "food", "shop", read(NewKey, {"scopes": ["operate"]}), new_key())

    made = await asyncio.gather(*(make() for _ in range(8)), return_exceptions=True)
    good = [one for one in made if isinstance(one, dict)]
    assert 1 <= len(good) <= 2
    assert all(isinstance(one, Conflict) for one in made if not isinstance(one, dict))
    if len(good) == 1:
        good.append(await make())
    with pytest.raises(Conflict, match="revoke one"):
        await make()
    listed = await callers.keys(desk, "food", "shop")
    assert {row["hint"] for row in listed} == {one["hint"] for one in good}
    assert all(one["key"] not in str(listed) for one in good)
    await callers.revoke_key(desk, "food", "shop", good[0]["hint"])
    with pytest.raises(NotFound):
        await callers.revoke_key(desk, "food", "shop", good[0]["hint"])
    assert (await make())["scopes"] == ["operate"]


async def test_an_import_is_all_or_nothing(shop: Shop) -> None:
    """One bad line of each kind: nothing is imported and every mistake is named by line and column."""
    desk = await furnished(shop)
    await pools.create(desk, "food", read(NewPool, {"name": "south", "area_code": "0755"}))
    theirs = str(await shop.value("SELECT min(number) FROM x_number"))
    good = {"number": "+8617010000001", "pool": "north", "carrier": "V", "rent": "12.50"}
    assert await numbers.load(desk, "food", [good]) == {"added": 1, "changed": 0, "unchanged": 0}
    with pytest.raises(Invalid) as caught:
        await numbers.load(
            desk,
            "food",
            [
                {"number": "+8617010000002", "pool": "north"},
                {"number": "17010000003", "pool": "north"},
                {"number": "+8617010000002", "pool": "north"},
                {"number": "+8617010000004", "pool": "west"},
                {"number": "+8617010000005", "pool": "north", "area_code": "0755", "rent": "much"},
                {"number": "+8617010000006", "pool": "north", "area_code": "0755"},
            ],
        )
    assert pointers(caught.value) == {
        "/items/1/number", "/items/2/number", "/items/3/pool", "/items/4/rent", "/items/5/area_code",
    }  # fmt: skip
    with pytest.raises(Invalid) as caught:
        await numbers.load(
            desk,
            "food",
            [
                {"number": "+8617010000002", "pool": "north"},
                {"number": theirs, "pool": "north"},
                {"number": "+8617010000001", "pool": "south"},
            ],
        )
    assert [(error.pointer, error.detail) for error in caught.value.errors] == [
        ("/items/1/number", "belongs to another app"),
        ("/items/2/number", "is in another pool of this app"),
    ]
    assert len(await numbers.every(desk, "food", NumberFilter())) == 1


async def test_importing_again_is_harmless(shop: Shop) -> None:
    """The same lines again change nothing, new details are taken over, positions in the pool have no gaps."""
    desk = await furnished(shop)
    lines = [{"number": f"+861701000{place:04}", "pool": "north", "rent": "9.9"} for place in range(300)]
    assert (await numbers.load(desk, "food", lines[:200]))["added"] == 200
    assert await numbers.load(desk, "food", lines) == {"added": 100, "changed": 0, "unchanged": 200}
    lines[5] = {**lines[5], "carrier": "Unicom"}
    assert await numbers.load(desk, "food", lines) == {"added": 0, "changed": 1, "unchanged": 299}
    assert await shop.value(
        "SELECT array_agg(x_id ORDER BY x_id) = array(SELECT generate_series(0, 299)) FROM x_number"
        " JOIN pool ON pool.id = pool_id WHERE name = 'north'"
    )
    listed = await numbers.every(desk, "food", NumberFilter(pool="north"))
    assert [row["carrier"] for row in listed].count("Unicom") == 1
    assert {row["rent"] for row in listed} == {"9.90"}


async def test_imports_at_once_lose_nothing(shop: Shop) -> None:
    """Of imports into one pool at the same time each is done whole or refused whole."""
    desk = await furnished(shop)

    async def one(part: int) -> Any:
        return await numbers.load(
            desk, "food", [{"number": f"+86170{part:04}{place:04}", "pool": "north"} for place in range(50)]
        )

    done = await asyncio.gather(*(one(part) for part in range(6)), return_exceptions=True)
    assert all(isinstance(each, dict | Conflict) for each in done)
    added = sum(each["added"] for each in done if isinstance(each, dict))
    assert added >= 50
    assert len(await numbers.every(desk, "food", NumberFilter())) == added


async def test_a_frozen_number_keeps_its_lines_and_a_drained_one_becomes_releasable(shop: Shop) -> None:
    """Frozen: the old line lives. Draining: releasable after the last line and rest. Retire: not while a line lives."""
    await shop.test_clock()
    desk = desk_of(shop)
    claim = await shop.active(shop.claim(1, 2))
    x = str(await shop.value("SELECT number FROM x_number WHERE pool_id = $1 AND x_id = $2", claim.pool_id, claim.x_id))
    only = Closing(numbers=[x])
    (frozen,) = await numbers.freeze(desk, "shop", Closing(numbers=[x], reason="complaints"))
    assert (frozen["state"], frozen["state_reason"], frozen["live_lines"]) == ("frozen", "complaints", 1)
    assert (await numbers.reopen(desk, "shop", only))[0]["state"] == "open"
    with pytest.raises(Invalid, match="Nothing was changed"):
        await numbers.retire(desk, "shop", only)
    (draining,) = await numbers.drain(desk, "shop", only)
    await settle_states(shop)
    with pytest.raises(Conflict, match="lines live"):
        await numbers.retire(desk, "shop", only)
    assert (draining["releasable"], draining["live_lines"]) == (False, 1)
    await ended(shop, claim)
    (resting,) = await numbers.every(desk, "shop", NumberFilter(state="draining"))
    assert (resting["live_lines"], resting["releasable"]) == (0, False)
    assert resting["resting_until"] is not None
    await shop.advance(100_000)
    (free,) = await numbers.every(desk, "shop", NumberFilter(state="draining"))
    assert (free["releasable"], free["resting_until"]) == (True, None)
    assert (await numbers.retire(desk, "shop", only))[0]["state"] == "retired"
    assert (await numbers.retire(desk, "shop", only))[0]["state"] == "retired"


async def test_retiring_is_all_or_nothing(shop: Shop) -> None:
    """One number in use among several: none is retired; nor is one that was open until a moment ago."""
    desk = desk_of(shop)
    claim = await shop.active(shop.claim(1, 2))
    listed = await numbers.every(desk, "shop", NumberFilter())
    wanted = Closing(numbers=[row["number"] for row in listed])
    await numbers.drain(desk, "shop", wanted)
    with pytest.raises(Conflict):
        await numbers.retire(desk, "shop", wanted)
    await settle_states(shop)
    with pytest.raises(Conflict):
        await numbers.retire(desk, "shop", wanted)
    await ended(shop, claim)
    assert {row["state"] for row in await numbers.retire(desk, "shop", wanted)} == {"retired"}


async def test_numbers_of_another_app_are_out_of_reach(shop: Shop) -> None:
    """Freezing a number through another app is refused, pointing at it, and changes nothing."""
    desk = await furnished(shop)
    theirs = str(await shop.value("SELECT min(number) FROM x_number"))
    await numbers.load(desk, "food", [{"number": "+8617010000001", "pool": "north"}])
    with pytest.raises(Invalid) as caught:
        await numbers.freeze(desk, "food", Closing(numbers=["+8617010000001", theirs]))
    assert pointers(caught.value) == {"/numbers/1"}
    assert await shop.value("SELECT count(*) FROM x_number WHERE state <> 'open'") == 0
