"""A whole X of one party: ended by us, once, whoever was down; its temporary callee; the five X of an A."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bench.check import WRONG_BOOKS
from broker.domain.change import Callee, LineChange
from broker.domain.phone import PhoneNumber
from broker.errors import Conflict
from broker.store import calls
from tests.emulator.support import Emulated
from tests.workers.sole import Sole, sole, world

A, A2, B, STRANGER = "+8613900000001", "+8613900000002", "+8613900000003", "+8613900000009"

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def emu(database_url: str, tmp_path: Path) -> AsyncIterator[Emulated]:
    """An emulator with an AX app, and a database that knows it."""
    async with world(database_url, tmp_path, "ax") as running:
        yield running


@pytest.fixture
async def one(database_url: str, emu: Emulated) -> AsyncIterator[Sole]:
    """One instance with short times."""
    async with sole(database_url, emu) as running:
        yield running


async def _unbinds(emu: Emulated) -> int:
    return sum(row["op"] == "unbind" for row in await emu.ledger())


def _callee(number: str, ttl_s: int = 600) -> LineChange:
    return LineChange(callee=Callee(PhoneNumber(number), ttl_s))


async def test_expires_once_after_everybody_was_down(database_url: str, emu: Emulated) -> None:
    """The platform's AX bindings last for ever: what ran out while nobody ran is ended by one unbind."""
    async with sole(database_url, emu) as gone:
        made = [await gone.take(a, ttl_s=60) for a in (A, A2)]
        stays = await gone.take(B, ttl_s=0)
        assert [row["ttl_s"] for row in await gone.rows("SELECT ttl_s FROM line")] == [0, 0, 0]
        await gone.db.fetch("UPDATE binding SET expires_at = broker_now() - interval '1 day' WHERE ttl_s > 0")
        await gone.db.fetch("UPDATE line SET sweep_at = broker_now() - interval '1 day' WHERE sweep_at IS NOT NULL")
        await gone.drain(0.0)
    async with sole(database_url, emu) as one, sole(database_url, emu) as two:
        swept = await asyncio.gather(*(calls.sweep(each.db, limit=10, grace_s=1.0) for each in (one, two)))
        assert sum(each.expired for each in swept) == 2
        await asyncio.gather(one.rescue(), two.rescue())
        await asyncio.gather(one.idle(), two.idle())
        shown = [await one.show(each) for each in made]
        assert [(each.state, each.reason) for each in shown] == [("released", "expired")] * 2
        assert (await one.show(stays)).state == "active"
        assert await _unbinds(emu) == 2
        assert [held["a"] for held in await emu.bindings()] == [B]
        rest = await one.rows("SELECT until > broker_now() + interval '1 hour' AS rests FROM place WHERE line_id = $1",
                              shown[0].line_id)  # fmt: skip
        assert rest == [{"rests": True}]
        assert await one.rows(WRONG_BOOKS) == []


@pytest.mark.parametrize("kind", ["drop_answer", "late_commit", "reset"])
async def test_a_callee_whose_answer_is_lost(one: Sole, kind: str) -> None:
    """Setting a callee is repeated until it is certain, and the newest one holds."""
    made = await one.take(A)
    x = (await one.show(made)).x or ""
    await one.emu.fault(interface="callee", kind=kind, count=1, ms=50)
    first = await one.change(made, _callee(STRANGER))
    assert first.callee == PhoneNumber(STRANGER)
    assert (await one.change(made, _callee(B))).callee == PhoneNumber(B)
    assert (await one.emu.call(A, x))[0] == B


async def test_a_new_a_never_reaches_the_callee_of_the_old_one(one: Sole) -> None:
    """The platform keeps a callee when A changes: it is ended first."""
    made = await one.take(A)
    x = (await one.show(made)).x or ""
    await one.change(made, _callee(B))
    assert (await one.emu.call(A, x))[0] == B
    changed = await one.change(made, LineChange(a=PhoneNumber(A2)))
    assert changed.a == PhoneNumber(A2)
    assert (await one.emu.call(A2, x))[0] is None
    assert (await one.emu.call(STRANGER, x))[0] == A2


async def test_no_sixth_x_by_a_change(one: Sole) -> None:
    """A change of A counts the new A's X numbers, too."""
    await one.db.fetch("INSERT INTO x_number (pool_id, x_id, number) SELECT id, 3 + n, '+861700000099' || n"
                       " FROM pool, generate_series(0, 3) AS n")  # fmt: skip
    await one.emu.numbers(*(f"+86170000001{n}" for n in ("01", "02", "03")), *(f"+861700000099{n}" for n in range(4)))
    await one.reload()
    for _ in range(5):
        await one.take(A)
    other = await one.take(A2)
    with pytest.raises(Conflict) as refused:
        await one.take(A)
    assert refused.value.code == "party_limit"
    with pytest.raises(Conflict) as refused:
        await one.change(other, LineChange(a=PhoneNumber(A)))
    assert refused.value.code == "party_limit"
    assert (await one.show(other)).a == PhoneNumber(A2)
    assert sorted(held["a"] for held in await one.emu.bindings()) == [A] * 5 + [A2]


async def test_an_x_on_its_way_counts(one: Sole) -> None:
    """An X that a change under way gives to A is one of A's five."""
    await one.db.fetch("INSERT INTO x_number (pool_id, x_id, number) SELECT id, 3 + n, '+861700000099' || n"
                       " FROM pool, generate_series(0, 3) AS n")  # fmt: skip
    await one.emu.numbers(*(f"+86170000001{n}" for n in ("01", "02", "03")), *(f"+861700000099{n}" for n in range(4)))
    await one.reload()
    for _ in range(4):
        await one.take(A)
    other = await one.take(A2)
    await one.emu.fault(interface="modify", kind="delay", ms=1500, when="before", count=1)
    await one.change(other, LineChange(a=PhoneNumber(A)), wait=False)
    with pytest.raises(Conflict) as refused:
        await one.take(A)
    assert refused.value.code == "party_limit"
    await one.idle()
    assert [held["a"] for held in await one.emu.bindings()] == [A] * 5


async def test_an_x_that_this_process_has_not_heard_of(one: Sole) -> None:
    """The database gives out what was imported a moment ago: no order fails over it."""
    for n in range(3):
        await one.take(f"+861390000010{n}")
    (last,) = await one.rows("SELECT pool_id, max(x_id) AS x_id FROM x_number GROUP BY pool_id")
    spare = "+8617075509999"
    await one.db.fetch(
        "INSERT INTO x_number (pool_id, x_id, number) VALUES ($1, $2, $3)", last["pool_id"], last["x_id"] + 1, spare
    )
    made = await one.take(A, wait=False)
    assert (await one.show(made)).x == spare
    assert await one.rows(WRONG_BOOKS) == []
