"""Claiming places: whole X numbers and extensions."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broker.store.database import Database
from tests.store.stall import Stall, open_stall

_A, _B, _C, _D, _E = 11, -22, 33, 2**63 - 1, 55


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    """Eight connections."""
    db = Database(database_url, connections=8, timeout_s=20)
    await db.open()
    yield db
    await db.close()


@pytest.fixture
async def ax(db: Database) -> Stall:
    """Four whole X numbers."""
    return await open_stall(db, "ax")


@pytest.fixture
async def axe(db: Database) -> Stall:
    """Four X numbers of three extensions each."""
    return await open_stall(db, "axe")


async def test_a_winner_is_written_whole(axe: Stall) -> None:
    """A won claim leaves a pending line on its place, its binding and one open bind call."""
    claim = axe.want(_A)
    x, extension = await axe.where(claim)
    line, binding = await axe.row("line", claim.line_id), await axe.row("binding", claim.binding_id)
    assert (line["state"], line["x_id"], line["extension"], line["seat"]) == ("pending", x, extension, extension)
    assert (line["a_key"], line["b_key"], line["calls"], line["joinable"]) == (_A, None, 1, False)
    assert (binding["state"], binding["line_id"], binding["expires_at"]) == ("pending", claim.line_id, None)
    assert (binding["order_id"], binding["user_data"], binding["metadata"]) == ("order-1", "their words", '{"k": 1}')
    held = await axe.place(x, extension)
    assert (held["line_id"], held["party_key"], held["rests_s"]) == (claim.line_id, _A, None)
    assert await axe.wrong_books() == []


async def test_extensions_of_the_first_x_that_has_any(axe: Stall) -> None:
    """An X after the other is filled, in one batch or many; then nothing is left."""
    first = await axe.give(*[axe.want(100 + n) for n in range(5)])
    assert [given.x_id for given in first] == [0, 0, 0, 1, 1]
    rest = await axe.give(*[axe.want(200 + n) for n in range(9)])
    assert [given.outcome for given in rest] == ["won"] * 7 + ["exhausted"] * 2
    assert len({(given.x_id, given.extension) for given in (*first, *rest[:7])}) == 12
    assert await axe.wrong_books() == []
