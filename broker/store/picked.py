"""Lines whose X the platform picks: claim without one, enter what was picked, look where an unknown one may be."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from broker.store.calls import BoundResult, CallKey
from broker.store.database import Database, DatabaseAway
from broker.store.statements import statements


class Claim(NamedTuple):
    """One binding without an X, ready to be written: the columns of ``claim_unpicked()`` in their order."""

    pool_id: int
    app_id: int
    caller_id: int
    line_id: UUID
    binding_id: UUID
    a_key: int
    a_sealed: bytes
    direction: str
    options: str | None
    line_ttl_s: int
    ttl_s: int
    chosen: str
    order_id: str | None
    user_data: str | None
    metadata: str | None
    key_hash: bytes | None
    key_token: int | None


class Claimed(NamedTuple):
    """What became of a claim: ``won``, ``busy``, ``limit``, ``closed`` or ``superseded``."""

    outcome: str
    created_at: datetime


async def claim(db: Database, wanted: Claim, *, most: int, lease_s: float) -> Claimed:
    """Write the claim unless A has ``most`` X already; what has not won leaves nothing behind."""
    row = await db.fetchrow(statements("picked")["claim"], lease_s, most, *wanted)
    if row is None:  # pragma: no cover - the function always returns one row
        raise DatabaseAway
    return Claimed(*row)


class Picked(NamedTuple):
    """The platform holds the line under ``subscription_id``, on the X ``number`` that it picked."""

    key: CallKey
    attempt: int
    subscription_id: str
    number: str


class PickedResult(NamedTuple):
    """``seen``: whose the number was: ``known``, ``elsewhere``, ``imported``, ``unfit``, or ``foreign``.

    A foreign one is another app's, and nothing was settled: ``bound`` is None. ``crowded``: our books have another
    line on the number.
    """

    seen: str
    bound: BoundResult | None
    crowded: bool


async def settle(db: Database, item: Picked, *, lease_s: float) -> PickedResult | None:
    """Make the line active with the number that the platform picked; None = the call was not ours any more."""
    key = item.key
    row = await db.fetchrow(
        statements("picked")["settle"], key.pool_id, key.line_id, key.no, key.token, item.attempt, item.subscription_id,
        item.number, lease_s,
    )  # fmt: skip
    if row is None:
        return None
    bound = BoundResult(row["line_state"], row["confirmed_at"]) if row["line_state"] is not None else None
    return PickedResult(row["seen"], bound, row["crowded"])


async def unbound(db: Database, pool_id: int, *, relaxed: bool, limit: int) -> Sequence[str]:
    """Return up to ``limit`` numbers in the pool's area, or all places, on which our books have nobody."""
    return [row["number"] for row in await db.fetch(statements("picked")["unbound"], pool_id, relaxed, limit)]
