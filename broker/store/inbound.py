"""Quotas of requests, and claims that count live bindings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from broker.domain.quota import Quota
from broker.store.database import Database
from broker.store.statements import statements


@dataclass(frozen=True, slots=True)
class Take:
    """``cost`` requests that are asked for now, and up to ``more`` ahead."""

    quota: Quota
    cost: int
    more: int


@dataclass(frozen=True, slots=True)
class Taken:
    """``granted`` 0: come back in ``wait_s``."""

    granted: int
    remaining: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class LiveLimit:
    """The most live bindings of an app or a caller."""

    whose: str
    owner_id: int
    most: int


@dataclass(frozen=True, slots=True)
class LiveClaim:
    """A binding that is about to be made in one of ``pools``, and the limits that it counts against."""

    binding_id: UUID
    pools: tuple[int, ...]
    limits: tuple[LiveLimit, ...]


async def take_requests(db: Database, asked: Sequence[Take]) -> list[Taken]:
    """Take requests of quotas on the database's clock; exact, whoever else takes of them."""
    rows = await db.fetch(
        statements("inbound")["take_requests"],
        [one.quota.whose for one in asked],
        [one.quota.owner_id for one in asked],
        [one.cost for one in asked],
        [one.more for one in asked],
        [one.quota.rate for one in asked],
        [one.quota.burst for one in asked],
    )
    by_place = {row["ord"]: Taken(row["granted"], row["remaining"], row["wait_s"]) for row in rows}
    return [by_place[place] for place in range(1, len(asked) + 1)]


async def claim_live(db: Database, claims: Sequence[LiveClaim]) -> list[LiveLimit | None]:
    """Count bindings that are about to be made; for each the limit that refuses it, or None."""
    flat = [(place, limit, claim) for place, claim in enumerate(claims) for limit in claim.limits]
    rows = await db.fetch(
        statements("inbound")["claim_live"],
        [limit.whose for _, limit, _ in flat],
        [limit.owner_id for _, limit, _ in flat],
        [limit.most for _, limit, _ in flat],
        [claim.binding_id for _, _, claim in flat],
        ["{" + ",".join(map(str, claim.pools)) + "}" for _, _, claim in flat],
    )
    refused: list[LiveLimit | None] = [None] * len(claims)
    for row in rows:
        place, limit, _ = flat[row["ord"] - 1]
        refused[place] = limit
    return refused


async def drop_claims(db: Database, claims: Sequence[LiveClaim]) -> list[None]:
    """Take claims back of which no binding came."""
    flat = [(limit, claim.binding_id) for claim in claims for limit in claim.limits]
    await db.fetch(
        statements("inbound")["drop_claims"],
        [limit.whose for limit, _ in flat],
        [limit.owner_id for limit, _ in flat],
        [binding_id for _, binding_id in flat],
    )
    return [None] * len(claims)


async def count_live(db: Database, *, limit: int) -> bool:
    """Count a slice of existing bindings in; False: nothing is due."""
    row = await db.fetchrow(statements("inbound")["count_live"], limit)
    return bool(row and row["more"])
