"""Budgets of X numbers in the database: what was complained of and counted, and which X are over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from broker.domain.budget import Budget, Over, Use, words
from broker.store.database import Database
from broker.store.statements import statements

#: An X by its pool and position.
X = tuple[int, int]
FIRST: X = (0, -1)


@dataclass(frozen=True, slots=True)
class Standing:
    """An X, its budget and what counts for it; ``over`` as it was told last, ``closed_by`` is None when it is open.

    ``freezes``: what its app wants of an X over its budget.
    """

    x: X
    budget: Budget
    use: Use
    over: tuple[Over, ...]
    freezes: bool
    is_open: bool
    closed_by: str | None


async def standings(db: Database, *, after: X = FIRST, limit: int, number: str | None = None) -> list[Standing]:
    """Return X numbers that are or may be over a budget, in order; ``number``: only this one."""
    rows = await db.fetch(statements("budgets")["standings"], *after, limit, number)
    return [
        Standing(
            (row["pool_id"], row["x_id"]),
            Budget(row["complaint_budget"], row["complaint_days"], row["answer_floor"]),
            Use(row["complaints"], row["calls"] or 0.0, row["answered"] or 0.0),
            tuple(Over(one) for one in row["why"] or ()),
            row["over_budget"] == "freeze",
            row["state"] == "open",
            row["closed_by"],
        )
        for row in rows
    ]


async def keep(db: Database, found: Standing, over: Sequence[Over]) -> bool:
    """Keep which budgets the X is over and do what its app wants of it, unless it was judged meanwhile.

    Whether something was told.
    """
    use = found.use
    rate = round(use.answered / use.calls, 3) if use.calls else None
    told = {"over": list(over), "complaints": use.complaints} | ({} if rate is None else {"answer_rate": rate})
    row = await db.fetchrow(
        statements("budgets")["keep"],
        *found.x,
        list(found.over) or None,
        list(over) or None,
        found.freezes,
        words(found.budget, over) if over else None,
        orjson.dumps(told).decode(),
    )
    return bool(row and row["told"])


async def counts(db: Database) -> dict[tuple[int, Over], int]:
    """Return how many X are over each budget, by app and budget."""
    rows = await db.fetch(statements("budgets")["counts"])
    return {(row["app_id"], Over(row["why"])): row["many"] for row in rows}


async def hot(db: Database) -> dict[int, int]:
    """Return by pool the X that carry as many calls an hour as their app lets them, or more, as bitmaps."""
    masks: dict[int, int] = {}
    for row in await db.fetch(statements("budgets")["hot"]):
        masks[row["pool_id"]] = masks.get(row["pool_id"], 0) | 1 << row["x_id"]
    return masks


async def complain(db: Database, app_id: int, number: str, reason: str | None) -> bool:
    """Enter a complaint about an app's number; False = it is none of them."""
    row = await db.fetchrow(statements("budgets")["complain"], app_id, number, reason)
    return row is not None


async def forget(db: Database) -> None:
    """Forget complaints that count for nobody any more."""
    await db.fetch(statements("budgets")["forget"])
