"""The connection pool, with a deadline on everything.

Statements run in autocommit, one flight each. Any number of them may be in flight, bounded by the pool.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import asyncpg
import structlog

from broker.errors import Unavailable

log = structlog.get_logger()

#: How often a statement is run that deadlocks undo.
_DEADLOCKS = 5

#: Server said: shutting down, read only, out of connections; or the connection itself went.
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.InFailedSQLTransactionError,
    asyncpg.exceptions.CannotConnectNowError,
)


class DatabaseAway(Unavailable):
    """The database did not answer in time or is gone; whether a statement took effect is unknown."""

    default_code = "database_unavailable"
    title = "The database is not available"


async def _keep_as_it_is(_connection: Any) -> None:
    """No session state is ever set, so nothing has to be reset: saves a round trip per use."""


class Database:
    """An asyncpg pool whose every wait has an end."""

    def __init__(self, dsn: str, *, connections: int, timeout_s: float, statement_cache: int = 200) -> None:
        """Describe the pool; ``timeout_s`` bounds acquiring and each statement, ``statement_cache`` 0 suits poolers."""
        self._dsn = dsn
        self._connections = connections
        self._timeout_s = timeout_s
        self._statement_cache = statement_cache
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self.flights = 0
        self.away = 0
        self.reachable = False

    @property
    def in_use(self) -> int:
        """How many connections are at work."""
        return self._pool.get_size() - self._pool.get_idle_size() if self._pool is not None else 0

    async def open(self) -> None:
        """Connect.

        Raises:
            DatabaseAway: if the server does not answer.
        """
        try:
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=1,
                max_size=self._connections,
                command_timeout=self._timeout_s,
                timeout=self._timeout_s,
                statement_cache_size=self._statement_cache,
                max_inactive_connection_lifetime=0,
                reset=_keep_as_it_is,
            )
        except _AWAY as error:
            raise DatabaseAway(f"cannot connect to the database: {type(error).__name__}") from error
        self.reachable = True

    async def close(self) -> None:
        """Close all connections, politely for a moment, then at once."""
        if self._pool is None:
            return
        try:
            await asyncio.wait_for(self._pool.close(), self._timeout_s)
        except TimeoutError:
            self._pool.terminate()

    async def fetch(self, statement: str, *args: Any, timeout_s: float | None = None) -> list[asyncpg.Record]:
        """Run one statement and return its rows; one that a deadlock undid is run again.

        Raises:
            DatabaseAway: if there is no connection or no answer in time, or deadlocks do not end.
        """
        for attempt in range(_DEADLOCKS):
            try:
                return await self._fetch(statement, args, timeout_s or self._timeout_s)
            except asyncpg.exceptions.DeadlockDetectedError:
                log.warning("deadlock", attempt=attempt)
                await asyncio.sleep(random.uniform(0.001, 0.05) * (attempt + 1))  # noqa: S311 - jitter
        raise DatabaseAway("the statement met deadlock after deadlock")

    async def _fetch(self, statement: str, args: Sequence[Any], timeout_s: float) -> list[asyncpg.Record]:
        if self._pool is None:
            raise DatabaseAway
        self.flights += 1
        try:
            async with self._pool.acquire(timeout=timeout_s) as connection:
                rows: list[asyncpg.Record] = await connection.fetch(statement, *args, timeout=timeout_s)
        except _AWAY as error:
            self.reachable = False
            self.away += 1
            if isinstance(error, asyncpg.PostgresError):
                await self._pool.expire_connections()
            log.warning("database_away", error=type(error).__name__, sqlstate=getattr(error, "sqlstate", None))
            raise DatabaseAway from error
        self.reachable = True
        return rows

    async def fetchrow(self, statement: str, *args: Any, timeout_s: float | None = None) -> asyncpg.Record | None:
        """Run one statement and return its first row."""
        rows = await self.fetch(statement, *args, timeout_s=timeout_s)
        return rows[0] if rows else None

    async def many(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement for each of ``rows`` in one transaction: for set-up work, not for the hot path."""
        if self._pool is None:
            raise DatabaseAway
        async with self._pool.acquire(timeout=self._timeout_s) as connection:
            await connection.executemany(statement, rows, timeout=60)
