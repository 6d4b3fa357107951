"""Claiming places: whole X numbers, and extensions of X numbers, which exist as rows before anybody has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from broker.store.database import Database
from broker.store.statements import statements


class PlaceClaim(NamedTuple):
    """One binding that is to get a place: the columns of ``reserve_places()`` in their order.

    ``most``: how many X its A may have at a time in the app, None = any number. ``prefix``: how many leading X the pool
    needs, None where X numbers are given out by extensions. ``asked``: the one extension that will do.
    """

    most: int | None
    pool_id: int
    prefix: int | None
    asked: int | None
    app_id: int
    caller_id: int
    line_id: UUID
    binding_id: UUID
    a_key: int
    a_sealed: bytes
    callback_sealed: bytes | None
    direction: str
    options: str | None
    line_ttl_s: int
    ttl_s: int
    order_id: str | None
    user_data: str | None
    metadata: str | None
    key_hash: bytes | None
    key_token: int | None


@dataclass(frozen=True, slots=True)
class Given:
    """What became of a claim.

    ``outcome`` is ``won``, ``busy``, ``exhausted``, ``taken``, ``limit``, ``closed`` or ``superseded``. Of a winner:
    its place and why this one; ``first_fit`` is the X that the lowest-first rule would have gone up to, for whole X;
    ``number`` is the X itself: this process may not have heard of it yet.
    """

    outcome: str
    created_at: datetime
    x_id: int | None = None
    extension: int | None = None
    chosen: str | None = None
    first_fit: int | None = None
    number: str | None = None


async def reserve(db: Database, claims: Sequence[PlaceClaim], *, lease_s: float) -> list[Given]:
    """Claim all in one statement; the answers are in the order of ``claims``."""
    rows = await db.fetch(statements("places")["reserve"], lease_s, *zip(*claims, strict=True))
    found = {row["ord"]: Given(*tuple(row)[1:]) for row in rows}
    return [found[place] for place in range(1, len(claims) + 1)]


async def sight(db: Database, claims: Sequence[PlaceClaim]) -> list[Given]:
    """Read what :func:`reserve` would answer, without a claim: ``closed``, ``limit``, ``exhausted`` or ``open``."""
    rows = await db.fetch(
        statements("places")["sight"], [claim.most for claim in claims], [claim.pool_id for claim in claims],
        [claim.app_id for claim in claims], [claim.a_key for claim in claims],
    )  # fmt: skip
    found = {row["ord"]: Given(row["outcome"], row["seen_at"]) for row in rows}
    return [found[place] for place in range(1, len(claims) + 1)]


@dataclass(frozen=True, slots=True)
class PlaceRechoice:
    """A pending line whose binding needs another place, because the platform refused its bind on this one."""

    pool_id: int
    old_line: UUID
    no: int
    token: int
    bar_s: float
    outcome: str
    http: int | None
    code: str | None
    prefix: int | None
    line_id: UUID
    a_sealed: bytes
    callback_sealed: bytes | None


@dataclass(frozen=True, slots=True)
class Rechosen:
    """``won`` with the new place, ``superseded`` (not ours any more), ``released`` (nobody wants it), or why none."""

    outcome: str
    x_id: int | None = None
    extension: int | None = None
    first_fit: int | None = None
    number: str | None = None


async def rechoose(db: Database, item: PlaceRechoice, *, lease_s: float) -> Rechosen:
    """Give the line's binding another place; unless it is ``won`` or ``released``, nothing was changed."""
    try:
        row = await db.fetchrow(
            statements("places")["rechoose"],
            lease_s, item.pool_id, item.old_line, item.no, item.token, item.bar_s, item.outcome, item.http, item.code,
            item.prefix, item.line_id, item.a_sealed, item.callback_sealed,
        )  # fmt: skip
    except asyncpg.PostgresError as error:
        if error.sqlstate == "BB002":
            return Rechosen(str(error.detail))
        raise
    return Rechosen(*row) if row else Rechosen("superseded")


async def free_codes(db: Database, pool_id: int, asked: int, *, most: int) -> list[int]:
    """Return the extensions nearest to ``asked`` that are free somewhere in the pool."""
    rows = await db.fetch(statements("places")["free_codes"], pool_id, asked, most)
    return [row["extension"] for row in rows]


@dataclass(frozen=True, slots=True)
class PlaceCounts:
    """The places of a pool, each counted once: as ``not_open`` (its X is not) or ``not_in_use``, or by who is on it."""

    held: int = 0
    resting: int = 0
    free: int = 0
    not_open: int = 0
    not_in_use: int = 0

    @property
    def in_use(self) -> int:
        """Those that are, or might be, given out."""
        return self.held + self.resting + self.free


async def counts(db: Database, pools: Sequence[int]) -> dict[int, PlaceCounts]:
    """Count; reads all places of the pools. A pool of pairs has none."""
    rows = await db.fetch(statements("places")["counts"], list(pools))
    return {row["pool_id"]: PlaceCounts(*tuple(row)[1:]) for row in rows}
