"""Migration files for tests, and looking at what they did."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg


def write(directory: Path, **files: str) -> Path:
    """Files named by keyword: ``m0001_first="CREATE …"`` becomes ``0001_first.sql``."""
    for name, text in files.items():
        (directory / f"{name.removeprefix('m')}.sql").write_text(text, encoding="utf-8")
    return directory


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for the length of the block."""
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def fetch(url: str, query: str) -> Any:
    """One value."""
    async with connected(url) as connection:
        return await connection.fetchval(query)
