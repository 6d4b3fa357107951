"""Very many live pairs of an app in mode X, put into its books by COPY: as if they had been bound one by one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from rich.progress import Progress

from broker.domain.ids import new_id
from broker.store.crypto import Vault

POOLS, NUMBERS, CAP = 20, 500, 500
_SLICE = 20_000
_TTL_S = 86_400
_A, _B, _STRANGER = 13_000_000_000, 15_000_000_000, 18_000_000_000
_COLUMNS = {
    "line": ("pool_id", "id", "app_id", "x_id", "seat", "state", "direction", "calls", "ttl_s", "a_key", "b_key",
             "confirmed_at", "expires_at", "sweep_at", "a_sealed", "b_sealed", "subscription_id"),
    "slot": ("pool_id", "x_id", "party_key", "counterpart_key", "until", "line_id"),
    "binding": ("pool_id", "id", "app_id", "caller_id", "line_id", "state", "ttl_s", "created_at", "expires_at"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class LivePairs:
    """``live`` pairs over the numbers of pools of their own; pair ``n`` is on a known X."""

    app_id: int
    caller_id: int
    vault: Vault
    live: int
    pools: list[int] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)

    def ends(self, n: int) -> tuple[str, str]:
        """Return the two parties of a pair."""
        return f"+86{_A + n}", f"+86{_B + n}"

    def x(self, n: int) -> str:
        """Return the X of a pair."""
        return self.numbers[n % len(self.numbers)]

    def stranger(self, n: int) -> str:
        """Return somebody who is bound nowhere."""
        return f"+86{_STRANGER + n}"

    async def load(self, db: asyncpg.Connection[Any], progress: Progress) -> None:
        """Make the pools, and fill them slice by slice."""
        rows = await db.fetch(
            "INSERT INTO pool (app_id, name, area_code) SELECT $2, 'bench-' || g, '0755'"
            " FROM generate_series(1, $1::integer) AS g RETURNING id", POOLS, self.app_id,
        )  # fmt: skip
        self.pools.extend(row["id"] for row in rows)
        await db.execute(
            "INSERT INTO x_number (pool_id, x_id, number) SELECT p, x, '+86' || (17000000000 + p::bigint * 100000 + x)"
            " FROM unnest($1::integer[]) AS p, generate_series(0, $2::integer - 1) AS x", self.pools, NUMBERS,
        )  # fmt: skip
        found = await db.fetch(
            "SELECT number FROM x_number WHERE pool_id = ANY ($1) ORDER BY pool_id, x_id", self.pools
        )
        self.numbers.extend(row["number"] for row in found)
        task = progress.add_task(f"{self.live:,} bindings", total=self.live)
        for first in range(0, self.live, _SLICE):
            count = min(_SLICE, self.live - first)
            lines, own, other, bindings = zip(*self._rows(first, count), strict=True)
            async with db.transaction():
                for table, records in (("line", lines), ("slot", own + other), ("binding", bindings)):
                    await db.copy_records_to_table(table, records=records, columns=_COLUMNS[table], timeout=120)
            progress.advance(task, count)
        await db.execute("VACUUM ANALYZE")

    def _rows(self, first: int, count: int) -> Iterator[tuple[tuple[Any, ...], ...]]:
        """The rows of lines, slots and bindings."""
        now = datetime.now(UTC)
        # asyncpg's word for infinity.
        ends, forever = now + timedelta(seconds=_TTL_S), datetime.max  # noqa: DTZ901
        width = POOLS * NUMBERS
        for n in range(first, first + count):
            pool, x, line = self.pools[n % width // NUMBERS], n % NUMBERS, new_id()
            a, b = self.ends(n)
            a_key, b_key = self.vault.party_key(a), self.vault.party_key(b)
            yield (
                (pool, line, self.app_id, x, n // width, "active", "both", 1, _TTL_S, a_key, b_key, now, ends, ends,
                 self.vault.seal("line", "a", pool, line, a), self.vault.seal("line", "b", pool, line, b),
                 f"local-{line.hex}"),
                (pool, x, a_key, b_key, forever, line),
                (pool, x, b_key, a_key, forever, line),
                (pool, line, self.app_id, self.caller_id, line, "active", _TTL_S, now, ends),
            )  # fmt: skip
