"""What was counted of calls that came after their binding had ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from broker.domain.cooldown import BINS, Cohort
from broker.store.database import Database
from broker.store.statements import statements


@dataclass(slots=True)
class Learned:
    """What is known of one pool: days of its sample, and calls by age after all other releases."""

    cohorts: list[Cohort] = field(default_factory=list)
    outside: list[int] = field(default_factory=lambda: [0] * BINS)


async def of_pools(db: Database, pools: Sequence[int]) -> dict[int, Learned]:
    """Return what the last 90 days taught of each pool."""
    found = {pool_id: Learned() for pool_id in pools}
    for row in await db.fetch(statements("learned")["cohorts"], list(pools)):
        learned = found[row["pool_id"]]
        if row["outside"]:
            learned.outside = [known + new for known, new in zip(learned.outside, row["calls"], strict=True)]
        else:
            learned.cohorts.append(Cohort(row["rest_s"], row["passed_s"], row["releases"], tuple(row["calls"])))
    return found


async def forget(db: Database, *, limit: int) -> int:
    """Forget a slice of what is too old to be of use; return how much."""
    row = await db.fetchrow(statements("learned")["forget"], limit)
    return int(row["gone"]) if row else 0
