"""Statements through pgbouncer in transaction mode, where each transaction may get another server connection (P13)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from broker.store.database import Database
from tests.pooler import pooled
from tests.store.shop import open_shop


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    """The test's database behind a pooler."""
    with pooled(database_url) as url:
        yield url


async def test_every_statement_gets_its_own_answer(pooled_url: str) -> None:
    """Many different statements at once through two server connections: each answer belongs to its question."""
    db = Database(pooled_url, connections=8, timeout_s=20, statement_cache=0)
    await db.open()
    try:

        async def ask(number: int) -> None:
            for turn in range(20):
                row = await db.fetchrow(f"SELECT $1::integer AS given, {number} AS asked", turn)
                assert row is not None
                assert (row["given"], row["asked"]) == (turn, number)

        await asyncio.gather(*(ask(number) for number in range(16)))
    finally:
        await db.close()


async def test_claims_go_through_a_pooler(pooled_url: str) -> None:
    """Claims, settling and releases work through the pooler: advisory locks end with their transaction."""
    db = Database(pooled_url, connections=6, timeout_s=20, statement_cache=0)
    await db.open()
    try:
        shop = await open_shop(db, numbers=40)
        claims = [shop.claim(a=number, b=1000 + number, x=number % 40) for number in range(120)]
        outcomes = await asyncio.gather(*(shop.reserve(claim) for claim in claims))
        won = [claim for claim, outcome in zip(claims, outcomes, strict=True) if outcome == ["won"]]
        assert len(won) > 60
        assert {outcome[0] for outcome in outcomes} <= {"won", "busy"}
        await asyncio.gather(*(shop.bind(claim) for claim in won))
        assert await shop.value("SELECT count(*) FROM line WHERE state = 'active'") == len(won)
        assert await shop.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
        assert await shop.wrong_books() == []
    finally:
        await db.close()
