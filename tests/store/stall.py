"""A stall in a shop: an app whose X numbers are given out as places, and words for what the tests do with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from broker.domain.ids import new_id
from broker.domain.modes import MODES
from broker.store import calls, places
from broker.store.calls import CallKey, Ended
from broker.store.database import Database
from broker.store.places import Given, PlaceClaim, PlaceRechoice, Rechosen
from tests.store.shop import LEASE_S, QUARANTINE_S, TTL_S, Shop

_APP = """
INSERT INTO app (name, mode, app_key, secret_sealed, base_url, quarantine_s, extension_digits, extensions_per_x,
                 sample_share)
VALUES ('stall-' || $1, $1, 'stall-' || $1, 'sealed', 'http://127.0.0.1:1', $2, $3, $4, 0) RETURNING id
"""
_POOL = "INSERT INTO pool (app_id, name, area_code, routing) VALUES ($1, 'stall', '0755', $2) RETURNING id"
_NUMBERS = """
INSERT INTO x_number (pool_id, x_id, number)
SELECT $1::integer, x, '+86' || (10000000000 + $1::bigint * 100000 + x) FROM generate_series(0, $2::integer - 1) AS x
"""
_CALLER = "INSERT INTO caller (app_id, name) VALUES ($1, 'orders') RETURNING id"


@dataclass(slots=True)
class Stall(Shop):
    """One pool of places in a mode."""

    mode: str = "ax"

    def want(
        self,
        a: int,
        *,
        most: int | None = None,
        prefix: int | None = None,
        asked: int | None = None,
        pool: int | None = None,
        ttl_s: int = TTL_S,
        key: tuple[bytes, int] | None = None,
    ) -> PlaceClaim:
        """A claim of a place for party ``a``; of whole X, by the lowest first unless ``prefix`` is given."""
        whole = self.mode != "axe"
        return PlaceClaim(
            most=most,
            pool_id=pool or self.pool,
            prefix=prefix or 0 if whole else None,
            asked=asked,
            app_id=self.app_id,
            caller_id=self.caller_id,
            line_id=new_id(),
            binding_id=new_id(),
            a_key=a,
            a_sealed=b"sealed a",
            callback_sealed=None,
            direction="both",
            options=None,
            line_ttl_s=MODES[self.mode].platform_ttl(ttl_s),
            ttl_s=ttl_s,
            order_id="order-1",
            user_data="their words",
            metadata='{"k": 1}',
            key_hash=key[0] if key else None,
            key_token=key[1] if key else None,
        )

    async def give(self, *claims: PlaceClaim) -> list[Given]:
        """Reserve in one batch."""
        return await places.reserve(self.db, claims, lease_s=LEASE_S)

    async def outcomes(self, *claims: PlaceClaim) -> list[str]:
        """Reserve in one batch; the outcomes."""
        return [given.outcome for given in await self.give(*claims)]

    async def given(self, claim: PlaceClaim) -> Given:
        """Reserve one that must win."""
        (given,) = await self.give(claim)
        assert given.outcome == "won", given
        return given

    async def where(self, claim: PlaceClaim) -> tuple[int, int]:
        """Reserve one that must win; its X and extension."""
        given = await self.given(claim)
        assert given.x_id is not None
        assert given.extension is not None
        return given.x_id, given.extension

    async def leave(self, claim: PlaceClaim, *, rest_s: float = QUARANTINE_S) -> None:
        """End a pending line as a release does: its place rests."""
        call = CallKey(claim.pool_id, claim.line_id, 1, 1)
        (at,) = await calls.settle_ended(self.db, [Ended(call, 1, "released", "released", rest_s, "done", 200, "0")])
        assert at is not None

    async def again(self, claim: PlaceClaim, *, bar_s: float = 60.0, token: int = 1) -> tuple[Rechosen, UUID]:
        """The platform refused the bind; the new place and line."""
        item = PlaceRechoice(
            pool_id=claim.pool_id, old_line=claim.line_id, no=1, token=token, bar_s=bar_s, outcome="refused", http=403,
            code="1", prefix=claim.prefix, line_id=new_id(), a_sealed=b"sealed a", callback_sealed=None,
        )  # fmt: skip
        return await places.rechoose(self.db, item, lease_s=LEASE_S), item.line_id

    async def place(self, x: int, extension: int, pool: int | None = None) -> dict[str, Any]:
        """A place: its row, with the seconds that it rests yet (None = held)."""
        row = await self.db.fetchrow(
            """
            SELECT *, CASE WHEN until <> 'infinity' AND until <> '-infinity'
                           THEN extract(epoch FROM until - broker_now())::float END AS rests_s
            FROM place WHERE pool_id = $1 AND x_id = $2 AND extension = $3
            """,
            pool or self.pool, x, extension,
        )  # fmt: skip
        assert row is not None
        return dict(row)


async def open_stall(
    db: Database, mode: str, *, numbers: int = 4, digits: int = 2, per_x: int = 3, routing: str = "pair"
) -> Stall:
    """Open a stall: one app, one pool, numbers."""
    app = (await db.fetch(_APP, mode, QUARANTINE_S, digits, per_x))[0]["id"]
    pool = (await db.fetch(_POOL, app, routing))[0]["id"]
    await db.fetch(_NUMBERS, pool, numbers)
    caller = (await db.fetch(_CALLER, app))[0]["id"]
    return Stall(db, app, caller, (pool,), mode)


async def open_second_pool(stall: Stall) -> int:
    """One more pool of the same app, with as many numbers."""
    query = "INSERT INTO pool (app_id, name, area_code) VALUES ($1, 'annex', '010') RETURNING id"
    pool = (await stall.db.fetch(query, stall.app_id))[0]["id"]
    await stall.db.fetch(_NUMBERS, pool, 4)
    return int(pool)
