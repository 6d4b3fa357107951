"""What ``auto_explain`` says of the statements of a test, also of those inside functions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from broker.store.database import Database


class Watched(Database):
    """A database of one connection that notes what ``auto_explain`` says of each statement."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self.said: list[str] = []
        connection.add_log_listener(lambda _, message: self.said.append(message.message))

    async def fetch(self, statement: str, *args: Any, timeout_s: float | None = None) -> list[asyncpg.Record]:
        """Run a statement."""
        rows: list[asyncpg.Record] = await self.connection.fetch(statement, *args, timeout=timeout_s)
        return rows

    async def watch(self) -> None:
        """From now on every statement is explained."""
        for setting in (
            "auto_explain.log_min_duration = 0",
            "auto_explain.log_nested_statements = on",
            "auto_explain.log_analyze = on",
            "auto_explain.log_timing = off",
            "auto_explain.log_buffers = on",
            "auto_explain.log_format = json",
            "client_min_messages = log",
        ):
            await self.connection.execute(f"SET {setting}")

    def plans(self) -> Iterator[dict[str, Any]]:
        """What was said since the last look."""
        said, self.said = self.said, []
        for message in said:
            _, found, plan = message.partition("plan:\n")
            if found:
                yield json.loads(plan)


@asynccontextmanager
async def watched(url: str, tables: Iterable[str]) -> AsyncIterator[Watched]:
    """A connection whose statistics of ``tables`` come when the test says so."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("LOAD 'auto_explain'")
        for table in tables:
            await connection.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
        yield Watched(connection)
    finally:
        await connection.close()


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)
