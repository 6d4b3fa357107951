from __future__ import annotations

import time

import asyncpg
import pytest

from broker.store.migrate import pending
from tests.pg import Databases


async def test_fresh_database_is_migrated(database_url: str) -> None:
    """A test's database has every migration of the checkout."""
    assert await pending(database_url) == []


@pytest.mark.parametrize("turn", [1, 2])
async def test_databases_are_not_shared(database_url: str, turn: int) -> None:
    """What one test leaves in its database is not there for the next, even when its connection is still open."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"CREATE TABLE left_behind AS SELECT {turn} AS turn")
    assert await connection.fetchval("SELECT turn FROM left_behind") == turn
    connection.terminate()


def test_databases_come_quickly(databases: Databases) -> None:
    """Making ten databases in a row takes seconds at most; the measured time is printed."""
    started = time.perf_counter()
    urls = [databases.create() for _ in range(10)]
    taken_s = time.perf_counter() - started
    for url in urls:
        databases.drop(url)
    print(f"\none fresh database: {taken_s * 100:.1f} ms")  # noqa: T201
    assert len(set(urls)) == 10
    assert taken_s < 30
