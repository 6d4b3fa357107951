"""What the judgement needs from the database: how full the pools were, and who was behind what."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass, field
from typing import Any, Final

import asyncpg

from bench.check import WRONG_BOOKS
from bench.hammer.judge import Relation
from bench.hammer.kind import Kind
from bench.hammer.reach import Reachable
from bench.stack import Stack

_LOOK_S: Final = 0.1

#: Per way of allocating: how many places there are, how many nobody else may have now, and how many somebody has.
_PLACES: Final = """
SELECT count(*) AS places, count(*) FILTER (WHERE p.until > broker_now()) AS full,
       count(*) FILTER (WHERE p.until = 'infinity') AS held
FROM place AS p JOIN pool ON pool.id = p.pool_id JOIN app ON app.id = pool.app_id WHERE app.name = $1 AND p.in_use
"""
_PAIRS: Final = """
SELECT cardinality($1::bigint[]) * (SELECT count(*) FROM x_number AS x WHERE x.pool_id = pool.id) AS places,
       count(s.x_id) FILTER (WHERE s.until > broker_now()) AS full,
       count(s.x_id) FILTER (WHERE s.until = 'infinity') AS held
FROM pool JOIN app ON app.id = pool.app_id AND app.name = $2
LEFT JOIN slot AS s ON s.pool_id = pool.id AND s.party_key = ANY ($1) GROUP BY pool.id
"""
_PICKED: Final = """
SELECT (SELECT count(*) FROM x_number AS x JOIN pool ON pool.id = x.pool_id WHERE pool.app_id = app.id) AS places,
       count(DISTINCT l.x_id) AS full, count(DISTINCT l.x_id) AS held
FROM app LEFT JOIN line AS l ON l.app_id = app.id AND l.seat IS NOT NULL WHERE app.name = $1 GROUP BY app.id
"""
#: The end of a line is written into its history a moment after it was: its bindings know better.
_HISTORY: Final = """
SELECT h.line_id, h.x, h.extension, h.a_key, h.b_key, h.since,
       CASE WHEN h.why = 'changed' THEN h.until
            ELSE least(h.until, (SELECT max(b.ended_at) FROM binding AS b WHERE b.line_id = h.line_id)) END AS until
FROM held AS h JOIN app ON app.id = h.app_id WHERE app.name = $1
UNION ALL
SELECT l.id, coalesce(x.number, l.picked), l.extension, l.a_key, l.b_key, coalesce(l.parties_since, l.confirmed_at),
       NULL
FROM line AS l JOIN app ON app.id = l.app_id LEFT JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id
WHERE app.name = $1 AND l.seat IS NOT NULL AND l.confirmed_at IS NOT NULL
"""
_LIVE: Final = """
SELECT l.pool_id, l.id, x.number AS x, l.a_sealed, l.b_sealed
FROM line AS l JOIN app ON app.id = l.app_id JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id
WHERE app.name = $1 AND l.state = 'active'
"""

_PEERS: Final = """
SELECT p.pool_id, p.id, coalesce(x.number, l.picked) AS x, p.y, p.b_sealed
FROM peer AS p JOIN app ON app.id = p.app_id JOIN line AS l ON l.pool_id = p.pool_id AND l.id = p.line_id
LEFT JOIN x_number AS x ON x.pool_id = l.pool_id AND x.x_id = l.x_id WHERE app.name = $1 AND p.state = 'active'
"""


@dataclass(slots=True)
class Occupancy:
    """Shares of the places, looked at again and again: ``full`` is held or resting."""

    full: list[float] = field(default_factory=list)
    held: list[float] = field(default_factory=list)

    def told(self) -> dict[str, float]:
        """Return percentages."""
        if not self.full:
            return {}
        return {
            "looks": len(self.full),
            "full_min": round(100 * min(self.full), 1),
            "full_median": round(100 * statistics.median(self.full), 1),
            "held_median": round(100 * statistics.median(self.held), 1),
        }


class Evidence:
    """Reads the database of a broker that is hammered."""

    def __init__(self, stack: Stack, kind: Kind, app: str = "bench") -> None:
        """Nothing is read yet."""
        self._stack = stack
        self._kind = kind
        self._app = app

    async def watch(self, after_s: float, seconds: float) -> Occupancy:
        """Look how full the pools are, from so long after now until ``seconds`` after now."""
        seen = Occupancy()
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await asyncio.sleep(after_s)
        db = await asyncpg.connect(self._stack.database)
        try:
            while loop.time() < begin + seconds:
                row = await self._full(db)
                seen.full.append(row["full"] / row["places"])
                seen.held.append(row["held"] / row["places"])
                await asyncio.sleep(_LOOK_S)
        finally:
            await db.close()
        return seen

    async def _full(self, db: asyncpg.Connection[asyncpg.Record]) -> asyncpg.Record:
        if self._kind.pair:
            vault = self._stack.vault()
            keys = [vault.party_key(self._kind.courier(number)) for number in range(self._kind.couriers)]
            row = await db.fetchrow(_PAIRS, keys, self._app)
        else:
            row = await db.fetchrow(_PLACES if self._kind.rests else _PICKED, self._app)
        assert row is not None  # noqa: S101 - all of them count
        return row

    async def app_key(self) -> str:
        """Return the key of the app that is hammered."""
        return str((await self._read("SELECT app_key FROM app WHERE name = $1", self._app))[0]["app_key"])

    async def numbers(self) -> list[str]:
        """Return the X numbers of the app."""
        query = "SELECT x.number FROM x_number AS x JOIN pool ON pool.id = x.pool_id JOIN app ON app.id = pool.app_id"
        return [row["number"] for row in await self._read(f"{query} WHERE app.name = $1", self._app)]

    async def wrong_books(self) -> list[str]:
        """Return what the books of slots and places say that cannot be."""
        return [f"{row[0]}: pool {row[1]}, X {row[2]}" for row in await self._read(WRONG_BOOKS)]

    async def history(self) -> list[dict[str, Any]]:
        """Return who was and is behind which X."""
        return [dict(row) for row in await self._read(_HISTORY, self._app)]

    async def relations(self) -> set[Relation]:
        """Return the peers that are active."""
        vault = self._stack.vault()
        return {
            Relation(row["x"], row["y"], vault.open("peer", "b", row["pool_id"], row["id"], row["b_sealed"]))
            for row in await self._read(_PEERS, self._app)
        }

    async def reachable(self) -> list[Reachable]:
        """Return the lines that are active, with their parties."""
        vault = self._stack.vault()

        def party(row: asyncpg.Record, name: str) -> str | None:
            sealed = row[f"{name}_sealed"]
            return None if sealed is None else vault.open("line", name, row["pool_id"], row["id"], sealed)

        return [
            Reachable(row["x"], party(row, "a") or "", party(row, "b")) for row in await self._read(_LIVE, self._app)
        ]

    async def _read(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        db = await asyncpg.connect(self._stack.database)
        try:
            return list(await db.fetch(query, *arguments))
        finally:
            await db.close()
