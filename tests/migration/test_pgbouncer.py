from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.store.migrate import migrate, pending
from tests.migration.files import fetch, write
from tests.pooler import pooled

_LIMIT_S = 30.0


@pytest.fixture
def pooled_url(empty_url: str) -> Iterator[str]:
    """The empty database behind a pooler, which may give every transaction another connection."""
    with pooled(empty_url) as url:
        yield url


async def test_behind_pgbouncer(pooled_url: str, empty_url: str, tmp_path: Path) -> None:
    """Migrations apply through a pooler in transaction mode, which may give every transaction another connection."""
    write(
        tmp_path,
        m0001_table="CREATE TABLE call (id int);",
        m0002_index="-- no-transaction\nCREATE INDEX CONCURRENTLY call_id ON call (id);",
        m0003_row="INSERT INTO call VALUES (1);",
    )
    async with asyncio.timeout(_LIMIT_S):
        assert len(await migrate(pooled_url, directory=tmp_path)) == 3
        assert await pending(pooled_url, directory=tmp_path) == []
    assert await fetch(empty_url, "SELECT count(*) FROM call") == 1
