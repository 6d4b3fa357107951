"""Keeping the tables of notifications in order."""

from __future__ import annotations

from datetime import datetime

from broker.domain.ids import date_of, dated_id, new_id
from broker.store import inbox
from broker.store.inbox import Arrived
from tests.store.shop import Shop

_DAY = 86_400


async def _steps(shop: Shop) -> list[str]:
    steps = []
    while (step := await inbox.tend(shop.db, ahead=2, limit=100)) is not None:
        steps.append(step)
        assert len(steps) < 200, "it never comes to its end"
    return steps


async def _now(shop: Shop) -> datetime:
    found: datetime = await shop.value("SELECT date_trunc('second', broker_now())")
    return found


async def _keep(shop: Shop, at: datetime) -> list[bool]:
    row = Arrived(at, dated_id(at, bytes(10)), shop.app_id, "cdr", b"sealed")
    return await inbox.keep(shop.db, [row, row], lease_s=10)


async def _places(shop: Shop, table: str) -> dict[str, int]:
    rows = await shop.db.fetch(f"SELECT tableoid::regclass::text AS place, count(*) AS n FROM {table} GROUP BY 1")  # noqa: S608
    return {row["place"]: row["n"] for row in rows}


async def test_partitions_are_made_ahead_and_take_what_was_there(shop: Shop) -> None:
    """Days of the inbox and weeks of the rest, from the one before on; rows move there, and stay once what they are."""
    at = await _now(shop)
    assert await _keep(shop, at) == [True, False]
    assert await _places(shop, "inbox") == {"inbox_rest": 1}
    assert await _steps(shop) == ["made"] * 4 * 4
    assert await _places(shop, "inbox") == {f"inbox_{at:%Y%m%d}": 1}
    assert await _keep(shop, at) == [False, False]


async def test_kept_as_long_as_is_asked_for(shop: Shop) -> None:
    """The inbox keeps a week; calls, records and messages what their app says, in whole weeks."""
    await shop.test_clock()
    await _steps(shop)
    at = await _now(shop)
    await _keep(shop, at)
    await _cdr(shop, at)
    await shop.advance(20 * _DAY)
    assert "dropped" in await _steps(shop)
    assert (await _places(shop, "inbox"), sum((await _places(shop, "cdr")).values())) == ({}, 1)
    await shop.advance(80 * _DAY)
    assert "dropped" in await _steps(shop)
    assert await _places(shop, "cdr") == {}


async def test_an_app_that_keeps_less_than_others(shop: Shop) -> None:
    """Its rows go while the partition stays for those that keep more."""
    await shop.test_clock()
    await _steps(shop)
    await shop.run(
        "INSERT INTO app (name, mode, app_key, secret_sealed, base_url) VALUES ('long', 'axb', 'k', '', 'http://h')"
    )
    await shop.run("UPDATE app SET retention_days = 20 WHERE id = $1", shop.app_id)
    await _cdr(shop, await _now(shop))
    await shop.advance(30 * _DAY)
    assert "swept" in await _steps(shop)
    assert await _places(shop, "cdr") == {}


async def test_odd_times(shop: Shop) -> None:
    """What says that it is of 1970, or of a time to come, is kept by when it came, and then goes, too."""
    await shop.test_clock()
    at = await _now(shop)
    for year in (1970, 2099):
        await _keep(shop, at.replace(year=year))
        await _cdr(shop, at.replace(year=year))
    await _steps(shop)
    assert (await _places(shop, "inbox"), await _places(shop, "cdr")) == ({"inbox_rest": 2}, {"cdr_rest": 2})
    await shop.advance(120 * _DAY)
    await _steps(shop)
    assert (await _places(shop, "inbox"), await _places(shop, "cdr")) == ({}, {"cdr_rest": 1})


async def _cdr(shop: Shop, at: datetime) -> None:
    await shop.run(
        "INSERT INTO cdr (at, id, app_id, bindings, talk_s, recorded, received_at)"
        " VALUES ($1, $2, $3, '{}', 0, false, broker_now())", at, new_id(), shop.app_id,
    )  # fmt: skip


async def test_an_id_finds_its_row(shop: Shop) -> None:
    """An id holds the millisecond of what it is of."""
    at = await _now(shop)
    assert date_of(dated_id(at, bytes(range(10)))) == at
