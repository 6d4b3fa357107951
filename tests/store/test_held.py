"""What is kept of who was behind which X."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from broker.domain.change import LineChange
from broker.domain.phone import PhoneNumber
from broker.store import reach
from broker.store.database import Database
from tests.store.pairs import VAULT, A, B, C, Pairs, b_becomes
from tests.store.shop import Shop, open_shop

_WEEK_S = 7 * 86_400
_HELD = "SELECT tableoid::regclass::text AS part, * FROM held ORDER BY until, since"


@pytest.fixture
async def pairs(database_url: str) -> AsyncIterator[Pairs]:
    """A shop on the test clock, with orders of real phones."""
    db = Database(database_url, connections=4, timeout_s=20)
    await db.open()
    shop = await open_shop(db)
    await shop.test_clock()
    yield Pairs(shop)
    await db.close()


async def _held(shop: Shop) -> list[dict[str, Any]]:
    return [dict(row) for row in await shop.db.fetch(_HELD)]


def _parties(row: dict[str, Any]) -> tuple[str, str]:
    a, b = (VAULT.open("line", role, row["pool_id"], row["line_id"], row[f"{role}_sealed"]) for role in "ab")
    return a, b


async def _now(shop: Shop) -> datetime:
    found: datetime = await shop.value("SELECT broker_now()")
    return found


async def test_a_bind_and_its_confirmation_write_nothing(pairs: Pairs) -> None:
    """Nothing is written for what lives, nor for what joins it or leaves others behind on it."""
    claim = await pairs.active()
    joined = await pairs.joined(claim)
    await pairs.release(joined)
    assert await _held(pairs.shop) == []


async def test_a_release_writes_one_row(pairs: Pairs) -> None:
    """From the confirmation of the bind to that of the unbind, with the parties and the binding."""
    claim = await pairs.active()
    line = await pairs.shop.row("line", claim.line_id)
    await pairs.shop.advance(100)
    await pairs.release(claim)
    await pairs.shop.advance(5)
    before = await _now(pairs.shop)
    assert await pairs.end(claim, 2)
    (row,) = await _held(pairs.shop)
    assert _parties(row) == (A, B)
    assert row["since"] == line["confirmed_at"]
    assert before <= row["until"] <= await _now(pairs.shop)
    assert (row["why"], row["bindings"], row["direction"]) == ("released", [claim.binding_id], "both")
    assert row["x"] == await pairs.shop.value(
        "SELECT number FROM x_number WHERE pool_id = $1 AND x_id = 0", claim.pool_id
    )


async def test_an_expiry_ends_at_its_own_time(pairs: Pairs) -> None:
    """However late the sweep comes, what the platform ended by itself ended when it said."""
    claim = await pairs.active(ttl_s=60)
    line = await pairs.shop.row("line", claim.line_id)
    await pairs.shop.advance(500)
    assert (await pairs.sweep()).expired == 1
    (row,) = await _held(pairs.shop)
    assert (row["why"], row["until"]) == ("expired", line["expires_at"])


async def test_in_mode_x_it_ends_with_its_last_binding(pairs: Pairs) -> None:
    """The line's own time is nobody's there: the longest of its bindings counts."""
    await pairs.shop.run("UPDATE app SET mode = 'x'")
    claim = await pairs.active(ttl_s=60)
    longer = await pairs.joined(claim, ttl_s=90)
    ends = (await pairs.shop.row("binding", longer.binding_id))["expires_at"]
    await pairs.shop.advance(3000)
    await pairs.sweep()
    await pairs.end(claim, 2) if await pairs.open_calls(claim) else None
    (row,) = await _held(pairs.shop)
    assert (row["why"], row["until"]) == ("expired", ends)
    assert sorted(row["bindings"]) == sorted([claim.binding_id, longer.binding_id])


@pytest.mark.parametrize("change", [b_becomes(C), LineChange(direction="a_to_b")], ids=["party", "direction"])
async def test_a_change_writes_one_row_and_begins_the_next(pairs: Pairs, change: LineChange) -> None:
    """The parties before are kept until the change, those after begin there; a renewal writes nothing."""
    claim = await pairs.active()
    no = await pairs.begun(claim, change)
    assert await _held(pairs.shop) == []
    await pairs.settle(claim, no, done=True)
    (row,) = await _held(pairs.shop)
    assert (_parties(row), row["why"], row["direction"]) == ((A, B), "changed", "both")
    line = await pairs.shop.row("line", claim.line_id)
    assert row["until"] == line["parties_since"]
    no = await pairs.begun(claim, LineChange(ttl_s=7200))
    await pairs.settle(claim, no, done=True)
    await pairs.release(claim)
    await pairs.end(claim, 4)
    _, last = await _held(pairs.shop)
    assert (last["since"], last["why"]) == (row["until"], "released")
    assert _parties(last) == (A, C if change.b is not None else B)


async def test_a_refused_change_and_a_failed_bind_write_nothing(pairs: Pairs) -> None:
    """Who was never behind X is in no history."""
    claim = await pairs.active()
    no = await pairs.begun(claim, LineChange(b=PhoneNumber(C)))
    await pairs.settle(claim, no, done=False)
    other = await pairs.shop.won(pairs.claim(A, C, 1))
    await pairs.end(other, 1, state="failed", reason="platform_refused")
    assert await _held(pairs.shop) == []


async def test_a_move_keeps_the_line_that_it_leaves(pairs: Pairs) -> None:
    """The old X is kept under the binding that has another one now."""
    claim = await pairs.active()
    moved, new = await pairs.move(claim, 1)
    assert moved == "won"
    assert await pairs.shop.bind(new) is not None
    ((no, op),) = await pairs.open_calls(claim)
    assert op == "unbind"
    await pairs.end(claim, no, token=await _token(pairs.shop, no))
    (row,) = await _held(pairs.shop)
    assert (row["line_id"], row["why"], row["bindings"]) == (claim.line_id, "moved", [claim.binding_id])


async def _token(shop: Shop, no: int) -> int:
    token: int = await shop.value("SELECT token FROM platform_call WHERE no = $1 AND op = 'unbind'", no)
    return token


async def _tend(shop: Shop, ahead: int = 1) -> list[str]:
    steps = []
    while (step := await reach.tend(shop.db, ahead_weeks=ahead, limit=2)) is not None:
        steps.append(step)
    return steps


async def test_weeks_have_partitions_made_ahead(pairs: Pairs) -> None:
    """Rows go to their week; those from before the partition was made move into it; nothing is lost in between."""
    shop = pairs.shop

    async def one(x: int) -> None:
        claim = await pairs.active(x=x)
        await pairs.release(claim)
        assert await pairs.end(claim, 2)

    await one(0)
    assert [row["part"] for row in await _held(shop)] == ["held_rest"]
    assert await _tend(shop) == ["made", "made"]
    assert await _tend(shop) == []
    monday = await _now(shop)
    monday -= timedelta(days=monday.weekday())
    this, following = [f"held_{monday + timedelta(weeks=n):%Y%m%d}" for n in (0, 1)]
    assert [row["part"] for row in await _held(shop)] == [this]
    await shop.advance(_WEEK_S)
    await one(1)
    assert [row["part"] for row in await _held(shop)] == [this, following]
    await shop.advance(_WEEK_S)
    await one(2)
    assert [row["part"] for row in await _held(shop)] == [this, following, "held_rest"]


async def test_what_is_old_goes(pairs: Pairs) -> None:
    """A week that no app keeps is dropped whole; an app that keeps less has its rows deleted slice by slice."""
    shop = pairs.shop
    brief = await shop.value(
        "INSERT INTO app (name, mode, app_key, secret_sealed, base_url, retention_days)"
        " VALUES ('brief', 'axb', 'k2', 's', 'http://h', 1) RETURNING id"
    )
    await shop.run("UPDATE app SET retention_days = 15 WHERE id <> $1", brief)
    await _tend(shop)
    for n in range(6):
        await shop.run(
            "INSERT INTO held (pool_id, line_id, app_id, x, direction, a_key, since, until, why, a_sealed)"
            " VALUES (1, gen_random_uuid(), $1, '+861', 'both', 1, broker_now(), broker_now(), 'released', 's')",
            brief if n < 5 else shop.app_id,
        )
    assert "swept" not in await _tend(shop)
    # A week and the day that it is kept longer are over, and not those of the other app.
    await shop.advance(_WEEK_S + 2 * 86_400)
    assert (await _tend(shop)).count("swept") == 3
    assert [row["app_id"] for row in await _held(shop)] == [shop.app_id]
    await shop.advance(_WEEK_S - 2 * 86_400)
    assert "dropped" not in await _tend(shop)
    assert len(await _held(shop)) == 1
    await shop.advance(_WEEK_S + 2 * 86_400)
    steps = await _tend(shop)
    assert "dropped" in steps
    assert "swept" not in steps
    assert await _held(shop) == []
