"""Deleting what has ended, in slices, and telling what is kept for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple
from uuid import UUID

from broker.domain.ids import date_of
from broker.store.database import Database
from broker.store.statements import statements

#: What is walked along: lines with what is on them, bindings whose line lives on, slots, notes of people and audits.
Kind = Literal["lines", "bindings", "slots", "audits"]
KINDS: tuple[Kind, ...] = ("lines", "bindings", "slots", "audits")

_SLICE_TIMEOUT_S = 10.0


class Slice(NamedTuple):
    """How many rows one slice deleted, and whether its walk goes on."""

    gone: int
    more: bool


@dataclass(frozen=True, slots=True)
class Walk:
    """How far a walk has come; ``began_at`` is ``None`` while none of the kind is under way."""

    kind: str
    every: timedelta
    due_at: datetime | None
    began_at: datetime | None
    ended_at: datetime | None
    gone: int
    gone_before: int
    gone_in_all: int


class AppTimes(NamedTuple):
    """For how many days an app keeps the past, what has ended, and events."""

    name: str
    retention_days: int
    ended_days: int
    event_days: int


class Size(NamedTuple):
    """A table with its partitions, the oldest of which begins at ``since``; rows as the statistics have them."""

    table: str
    rows: int
    bytes: int
    since: datetime | None


async def forget(db: Database, kind: Kind, *, limit: int) -> Slice | None:
    """Look at the next ``limit`` rows or so, and delete those not kept any more. ``None``: it is not our turn."""
    row = await db.fetchrow(statements("retention")["slice"], kind, limit, timeout_s=_SLICE_TIMEOUT_S)
    return Slice(row["gone"], row["more"]) if row is not None else None


async def behind(db: Database) -> dict[str, float]:
    """Return for each kind how many seconds ago its walk was due that has not come to its end; 0 = none is."""
    return {row["kind"]: row["behind_s"] for row in await db.fetch(statements("retention")["behind"])}


async def walks(db: Database) -> list[Walk]:
    """Return how far each walk has come."""
    return [Walk(**row) for row in await db.fetch(statements("retention")["walks"])]


async def apps(db: Database) -> list[AppTimes]:
    """Return what each app keeps."""
    return [AppTimes(*row) for row in await db.fetch(statements("retention")["apps"])]


async def sizes(db: Database, tables: Sequence[str]) -> list[Size]:
    """Return how large tables are."""
    return [Size(*row) for row in await db.fetch(statements("retention")["sizes"], list(tables))]


async def oldest(db: Database) -> dict[str, datetime]:
    """Return when the oldest line and binding were made that are there; nothing for a table that is empty."""
    row = await db.fetchrow(statements("retention")["oldest"])
    return {name: date_of(UUID(found)) for name, found in (row or {}).items() if found is not None}
