from __future__ import annotations

import pytest

from broker.domain.choice import Policy
from broker.store.crypto import DataKey, SealBroken, Vault
from broker.store.registry import hash_key, load, version
from tests.store.shop import Shop

_VAULT = Vault((DataKey(1, bytes(32)),), bytes(32))


async def _seal(shop: Shop) -> None:
    await shop.run("UPDATE app SET secret_sealed = $1", _VAULT.seal("app", "secret", 0, "shop", "their secret"))


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE app SET rate = 5",
        "UPDATE app SET state = 'suspended'",
        "INSERT INTO app (name, mode, app_key, secret_sealed, base_url) VALUES ('b', 'ax', 'k2', 's', 'http://h')",
        "DELETE FROM app WHERE name = 'spare'",
        "INSERT INTO caller (app_id, name) SELECT min(id), 'new' FROM app",
        "UPDATE caller SET weight = 5",
        "DELETE FROM caller WHERE name = 'spare'",
        "INSERT INTO api_key (key_hash, caller_id, place, hint) SELECT sha256('b'), min(id), 2, 'b' FROM caller",
        "UPDATE api_key SET revoked_at = clock_timestamp()",
        "DELETE FROM api_key",
        "INSERT INTO pool (app_id, name, area_code) SELECT min(id), 'new', '010' FROM app",
        "UPDATE pool SET state = 'closed'",
        "DELETE FROM pool WHERE name = 'spare'",
        "INSERT INTO x_number (pool_id, x_id, number) SELECT min(id), 99, '+8699' FROM pool",
        "UPDATE x_number SET state = 'frozen' WHERE x_id = 0",
        "DELETE FROM x_number WHERE x_id = 3",
        "INSERT INTO tone (app_id, name, duration_ms, content) SELECT min(id), 'b.wav', 1, 'c' FROM app",
        "UPDATE tone SET state = 'approved'",
        "DELETE FROM tone",
    ],
)
async def test_every_change_of_the_configuration_raises_the_version(shop: Shop, change: str) -> None:
    """Inserting, changing or deleting an app, caller, key, pool, number or tone moves config_version."""
    await shop.run(
        "INSERT INTO api_key (key_hash, caller_id, place, hint) SELECT sha256('a'), min(id), 1, 'a' FROM caller"
    )
    await shop.run("INSERT INTO caller (app_id, name) VALUES ($1, 'spare')", shop.app_id)
    await shop.run("INSERT INTO pool (app_id, name, area_code) VALUES ($1, 'spare', '020')", shop.app_id)
    await shop.run(
        "INSERT INTO app (name, mode, app_key, secret_sealed, base_url) VALUES ('spare', 'x', 'k', 's', 'http://h')"
    )
    await shop.run("INSERT INTO tone (app_id, name, duration_ms, content) SELECT min(id), 'a.wav', 1, 'c' FROM app")
    before = await version(shop.db)
    await shop.run(change)
    assert await version(shop.db) > before


async def test_bindings_do_not_raise_the_version(shop: Shop) -> None:
    """What the hot path writes never makes instances reload."""
    before = await version(shop.db)
    claim = await shop.active(shop.claim(1, 2))
    await shop.end(claim, no=1)
    assert await version(shop.db) == before


async def test_load_reads_everything(shop: Shop) -> None:
    """A snapshot has apps with opened secrets and tones, keys by hash, pools with numbers by position and a mask."""
    await _seal(shop)
    await shop.run(
        "INSERT INTO api_key (key_hash, caller_id, place, hint) VALUES ($1, $2, 1, '…live'), ($3, $2, 2, '…old')",
        hash_key("live key"),
        shop.caller_id,
        hash_key("revoked key"),
    )
    await shop.run("UPDATE api_key SET revoked_at = clock_timestamp() WHERE place = 2")
    await shop.run("UPDATE x_number SET state = 'draining' WHERE pool_id = $1 AND x_id = 1", shop.pool)
    await shop.run("UPDATE pool SET state = 'closed' WHERE id = $1", shop.pools[1])
    await shop.run(
        "INSERT INTO tone (app_id, name, state, duration_ms, content) VALUES"
        " ($1, 'a.wav', 'approved', 1, 'c'), ($1, 'b.wav', 'draft', 1, 'c')",
        shop.app_id,
    )
    registry = await load(shop.db, _VAULT)
    app = registry.apps[shop.app_id]
    assert app.tones == {"a.wav": "approved", "b.wav": "draft"}
    assert (app.secret, app.policy, app.cap, app.suspended) == ("their secret", Policy.PACK, 500, None)
    assert "their secret" not in repr(app)
    key = registry.key("live key")
    assert key is not None
    assert (key.caller_id, key.app) == (shop.caller_id, app)
    assert key.scopes == {"bind", "read"}
    assert registry.key("revoked key") is None
    assert registry.key("unknown") is None
    pool, closed = (registry.pools[pool_id] for pool_id in shop.pools)
    assert pool.open_mask == 0b1101
    assert (pool.open, closed.open) == (True, False)
    assert len(pool.numbers) == 4
    assert registry.our_numbers == {*pool.numbers, *closed.numbers}
    assert registry.app_pools[app.id] == (pool, closed)


async def test_numbers_with_gaps_keep_their_positions(shop: Shop) -> None:
    """A deleted number leaves a hole that is never handed out: the others keep their bits."""
    await _seal(shop)
    await shop.run("DELETE FROM x_number WHERE pool_id = $1 AND x_id IN (0, 2)", shop.pool)
    pool = (await load(shop.db, _VAULT)).pools[shop.pool]
    assert pool.open_mask == 0b1010
    assert pool.numbers[0] == pool.numbers[2] == ""


async def test_a_suspended_app_says_why(shop: Shop) -> None:
    """The reason of a suspension is read, with a word for those without one."""
    await _seal(shop)
    await shop.run("UPDATE app SET state = 'suspended'")
    assert (await load(shop.db, _VAULT)).apps[shop.app_id].suspended == "suspended"
    await shop.run("UPDATE app SET state_reason = 'unpaid'")
    assert (await load(shop.db, _VAULT)).apps[shop.app_id].suspended == "unpaid"


async def test_wrong_data_keys_are_named_as_the_cause(shop: Shop) -> None:
    """If the data keys do not open an app's secret, the error names the app and the setting."""
    await _seal(shop)
    with pytest.raises(SealBroken, match=r"app shop: .*BROKER_DATA_KEYS"):
        await load(shop.db, Vault((DataKey(1, b"x" * 32),), bytes(32)))
