"""A shop in a fresh database: one app, a caller, pools of numbers, and words for what the tests do with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from bench.check import WRONG_BOOKS
from broker.domain.ids import new_id
from broker.domain.modes import MODES
from broker.store import allocation, calls
from broker.store.allocation import Claim, LockMode
from broker.store.calls import Bound, BoundResult, CallKey, Ended
from broker.store.database import Database
from broker.store.statements import statements

LEASE_S = 8.0
TTL_S = 3600
QUARANTINE_S = 600

_APP = """
INSERT INTO app (name, mode, app_key, secret_sealed, base_url, quarantine_s, cap, sample_share)
VALUES ('shop', 'axb', 'key', 'sealed', 'http://127.0.0.1:1', $1, 500, 0) RETURNING id
"""
_POOLS = """
INSERT INTO pool (app_id, name, area_code) SELECT $1, 'pool-' || g, '0755' FROM generate_series(1, $2::integer) AS g
RETURNING id
"""
_NUMBERS = """
INSERT INTO x_number (pool_id, x_id, number)
SELECT p, x, '+86' || (10000000000 + p::bigint * 100000 + x)
FROM unnest($1::integer[]) AS p, generate_series(0, $2::integer - 1) AS x
"""

_TABLES = ("line", "binding", "slot", "platform_call", "idempotency")


@dataclass(slots=True)
class Shop:
    """One app with pools; ``claim`` describes, ``reserve`` claims, ``bound`` and ``ended`` do what settling does."""

    db: Database
    app_id: int
    caller_id: int
    pools: tuple[int, ...]

    @property
    def pool(self) -> int:
        """The first pool."""
        return self.pools[0]

    def claim(
        self,
        a: int,
        b: int,
        x: int = 0,
        *,
        pool: int | None = None,
        cap: int = 500,
        ttl_s: int = TTL_S,
        lines_seen: int | None = None,
        options: str | None = None,
    ) -> Claim:
        """A claim of a new binding for parties ``a`` and ``b``."""
        return Claim(
            pool_id=pool or self.pool,
            x_id=x,
            cap=cap,
            app_id=self.app_id,
            caller_id=self.caller_id,
            line_id=new_id(),
            binding_id=new_id(),
            a_key=a,
            b_key=b,
            a_sealed=b"sealed a",
            b_sealed=b"sealed b",
            direction="both",
            options=options,
            joinable=True,
            line_ttl_s=MODES["axb"].platform_ttl(ttl_s),
            ttl_s=ttl_s,
            chosen="pack:unused_coolest",
            order_id="order-1",
            user_data="their words",
            metadata='{"k": 1}',
            key_hash=None,
            key_token=None,
            lines_seen=lines_seen,
            seen_by_a=True,
        )

    async def reserve(self, *claims: Claim, mode: LockMode = LockMode.TRY, lease_s: float = LEASE_S) -> list[str]:
        """Reserve in one batch; the outcomes."""
        done = await allocation.reserve(self.db, claims, mode=mode, lease_s=lease_s)
        return [result.outcome for result in done]

    async def won(self, claim: Claim, *, lease_s: float = LEASE_S) -> Claim:
        """Reserve one that must win."""
        assert await self.reserve(claim, lease_s=lease_s) == ["won"]
        return claim

    async def active(self, claim: Claim) -> Claim:
        """Reserve and confirm one."""
        await self.won(claim)
        assert await self.bind(claim) is not None
        return claim

    async def bind(self, claim: Claim, *, no: int = 1, token: int = 1) -> BoundResult | None:
        """Settle the bind call of a line as done, as its dispatcher does."""
        item = Bound(key_of(claim, no=no, token=token), 1, "sub-" + claim.line_id.hex, plain=no == token == 1)
        (result,) = await calls.settle_bound(self.db, [item], lease_s=LEASE_S)
        return result

    async def end(self, claim: Claim, *, no: int = 2, token: int = 1, rest_s: float = QUARANTINE_S) -> bool:
        """Settle the unbind call of a line; whether it was still ours to settle."""
        (at,) = await calls.settle_ended(self.db, [ended(claim, no=no, token=token, rest_s=rest_s)])
        return at is not None

    async def value(self, query: str, *args: Any) -> Any:
        """The first column of the first row."""
        row = await self.db.fetchrow(query, *args)
        return row[0] if row else None

    async def run(self, statement: str, *args: Any) -> None:
        """Run a statement."""
        await self.db.fetch(statement, *args)

    async def row(self, table: str, row_id: UUID) -> Mapping[str, Any]:
        """A line or binding by its id."""
        found = await self.db.fetchrow(f"SELECT * FROM {table} WHERE id = $1", row_id)  # noqa: S608 - our own words
        assert found is not None
        return dict(found)

    async def calls_of(self, claim: Claim) -> list[tuple[int, str, str, int]]:
        """The platform calls of a line: (no, op, state, token)."""
        rows = await self.db.fetch(
            "SELECT no, op, state, token FROM every_call WHERE line_id = $1 ORDER BY no", claim.line_id
        )
        return [tuple(row) for row in rows]

    async def slots_of(self, claim: Claim) -> dict[int, float | None]:
        """Per party of a line: seconds until the rest on its X ends, None while it is live."""
        rows = await self.db.fetch(
            """
            SELECT party_key, CASE WHEN until <> 'infinity' THEN extract(epoch FROM until - broker_now()) END
            FROM slot WHERE line_id = $1
            """,
            claim.line_id,
        )
        return {party: None if left is None else float(left) for party, left in rows}

    async def counts(self) -> dict[str, int]:
        """Rows of every table that a claim writes to."""
        return {table: await self.value(f"SELECT count(*) FROM {table}") for table in _TABLES}  # noqa: S608

    async def contents(self) -> str:
        """Everything in the tables that a claim writes to, as text to be compared."""
        return json.dumps(
            [
                await self.value(f"SELECT coalesce(jsonb_agg(t ORDER BY t::text), '[]')::text FROM {table} AS t")  # noqa: S608
                for table in _TABLES
            ]
        )

    async def wrong_books(self) -> list[str]:
        """What is wrong in the books."""
        return [f"{wrong}: {where}" for wrong, *where in await self.db.fetch(WRONG_BOOKS)]

    async def test_clock(self) -> None:
        """From now on ``broker_now()`` moves with :meth:`advance`."""
        await self.run(statements("testclock")["install"])

    async def advance(self, seconds: float) -> None:
        """Let business time pass."""
        await self.run(statements("testclock")["advance"], seconds)


async def open_shop(db: Database, *, pools: int = 2, numbers: int = 4) -> Shop:
    """Furnish an empty database."""
    app = await db.fetchrow(_APP, QUARANTINE_S)
    assert app is not None
    caller = await db.fetchrow("INSERT INTO caller (app_id, name) VALUES ($1, 'caller') RETURNING id", app["id"])
    assert caller is not None
    made = await db.fetch(_POOLS, app["id"], pools)
    ids = tuple(int(row["id"]) for row in made)
    await db.fetch(_NUMBERS, list(ids), numbers)
    return Shop(db, app["id"], caller["id"], ids)


def key_of(claim: Claim, *, no: int = 1, token: int = 1) -> CallKey:
    """The key of a line's platform call."""
    return CallKey(claim.pool_id, claim.line_id, no, token)


def ended(claim: Claim, *, no: int = 2, token: int = 1, rest_s: float = QUARANTINE_S, state: str = "released") -> Ended:
    """What settling a line's end says."""
    return Ended(
        key=key_of(claim, no=no, token=token), attempt=1, state=state, reason="released", rest_s=rest_s,
        outcome="done", http=200, code="0",
    )  # fmt: skip


def with_key(claim: Claim, key_hash: bytes, token: int) -> Claim:
    """The same claim under an idempotency key."""
    return claim._replace(key_hash=key_hash, key_token=token)
