"""What another system has bound, what an app in shadow predicts, and the way in and out, in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from broker.domain.drift import Theirs
from broker.store.database import Database
from broker.store.drift import Place
from broker.store.statements import statements

#: A switch ends every line of an app in one statement, a report compares all of them.
_LONG_S = 600.0


@dataclass(frozen=True, slots=True)
class Switched:
    """How far a switch has come: ``outcome`` as ``switch_shadow`` in the schema says."""

    outcome: str
    lines: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class State:
    """What an app is now."""

    app_id: int
    shadow: bool
    changed_at: datetime | None
    suspended: str | None


async def follow(db: Database, app_id: int, place: Place, shown: Sequence[Theirs]) -> None:
    """Write down what is bound on a place; what was there and is not shown has gone."""
    once = {one.subscription_id: one for one in shown}.values()
    await db.fetch(
        statements("shadow")["follow"], app_id, place.pool_id, place.x_id, place.extension,
        [one.subscription_id for one in once], [one.a_key for one in once], [one.b_key for one in once],
    )  # fmt: skip


async def forget(db: Database, app_id: int) -> None:
    """Forget what has gone and would not rest any more."""
    await db.fetch(statements("shadow")["forget"], app_id)


async def count(db: Database, counted: Mapping[tuple[int, str], int]) -> None:
    """Add to what apps in shadow refused and would have sent."""
    items = sorted(counted.items())
    await db.fetch(
        statements("shadow")["count"],
        [app_id for (app_id, _), _ in items], [what for (_, what), _ in items], [many for _, many in items],
    )  # fmt: skip


async def switch(db: Database, app: str, *, shadow: bool, settle_s: float) -> Switched:
    """Take an app into shadow or out of it, or begin to."""
    row = await db.fetchrow(statements("shadow")["switch"], app, shadow, settle_s, timeout_s=_LONG_S)
    return Switched(row["outcome"], row["lines"], row["wait_s"]) if row else Switched("none", 0, 0.0)


async def state(db: Database, app: str) -> State | None:
    """Return what an app is; None: there is none of this name."""
    row = await db.fetchrow(statements("shadow")["state"], app)
    if row is None:
        return None
    suspended = (row["state_reason"] or "suspended") if row["state"] == "suspended" else None
    return State(row["id"], row["shadow"], row["shadow_changed_at"], suspended)


async def report(db: Database, app_id: int) -> tuple[Mapping[str, int], Mapping[str, int], datetime | None]:
    """Return how predictions compare, what was counted, and when everything was looked at last."""
    sql = statements("shadow")
    compared = await db.fetchrow(sql["report"], app_id, timeout_s=_LONG_S)
    counted = {row["what"]: row["many"] for row in await db.fetch(sql["counts"], app_id)}
    followed = await db.fetchrow(sql["followed"], app_id)
    return dict(compared) if compared else {}, counted, followed["followed_at"] if followed else None
