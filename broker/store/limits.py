"""The outbound limit in the database, and what the platform has refused to any instance."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from broker.store.database import Database
from broker.store.statements import statements


@dataclass(frozen=True, slots=True)
class Slots:
    """Granted send slots: slot k (from 0) starts max(0, first_s + k * every_s) seconds after the answer.

    A slot is void ``late_s`` after its start. ``mark`` proves, when slots are given back, that nobody took any since.
    """

    first_s: float
    every_s: float
    granted: int
    late_s: float = 0.05
    mark: datetime | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """What an app may send: calls a second, and calls at once."""

    rate: float
    burst: int


async def take_slots(
    db: Database,
    app_id: int,
    *,
    want: int,
    limit: Limit,
    horizon_s: float,
    slice_s: float | None = None,
    ahead_s: float = 0.0,
    interface: str = "",
    own_rate: float | None = None,
    kept: float = 0.0,
) -> Slots:
    """Ask for send slots within the horizon, near the limit at most for those of the next ``slice_s`` at a time.

    Far below the limit ``ahead_s`` worth more than wanted are given.

    ``interface`` with ``own_rate``: for a call to an interface that has a limit of its own, too.
    ``kept`` is the part of the burst that is left to others.
    """
    row = await db.fetchrow(
        statements("limits")["take_slots"],
        app_id, want, limit.rate, limit.burst, horizon_s, slice_s, ahead_s, interface, own_rate, kept,
    )  # fmt: skip
    if row is None:  # pragma: no cover - the function always returns one row
        return Slots(horizon_s, 0.0, 0)
    return Slots(row["at_s"], row["every_s"], row["granted"], row["late_s"], row["tat"])


async def give_back(db: Database, app_id: int, slots: Slots, unused: int) -> bool:
    """Return the last ``unused`` ones, unless somebody has taken slots since."""
    row = await db.fetchrow(statements("limits")["give_back"], app_id, slots.mark, unused, slots.every_s)
    return bool(row and row["given"])


@dataclass(frozen=True, slots=True)
class Stop:
    """Nothing is to be sent for an app (0: for any app) for ``left_s``; None: until its access data change."""

    app_id: int
    reason: str
    access: str
    left_s: float | None


async def stops(db: Database, egress: str) -> list[Stop]:
    """Return what is in force for calls that leave from ``egress``."""
    rows = await db.fetch(statements("limits")["stops"], egress)
    return [Stop(row["app_id"], row["reason"], row["access"], row["left_s"]) for row in rows]


async def stop_for_flow(db: Database, app_id: int, pause_s: float) -> None:
    """Have every instance pause and then go at half its pace."""
    await db.fetchrow(statements("limits")["stop_for_flow"], app_id, pause_s)


async def stop_source(db: Database, egress: str, pause_s: float) -> None:
    """Have every instance behind the address stop."""
    await db.fetchrow(statements("limits")["stop_source"], egress, pause_s)


async def note_bad_digest(db: Database, app_id: int, access: str) -> bool:
    """Count a refused signature; True = it was the second one in a row, of whichever instances."""
    row = await db.fetchrow(statements("limits")["note_bad_digest"], app_id, access)
    return bool(row and row["shut"])


async def digest_passed(db: Database, app_id: int, access: str) -> None:
    """Forget a single refusal: the access data are right."""
    await db.fetchrow(statements("limits")["digest_passed"], app_id, access)
