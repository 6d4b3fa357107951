"""Events in the database: giving them positions, reading a feed, keeping them for as long as apps want."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from broker.domain.events import Event
from broker.store.database import Database
from broker.store.statements import statements

_LONG_S = 60.0


@dataclass(frozen=True, slots=True)
class Feed:
    """How far an app's feed goes: positions ``swept`` + 1 to ``upto`` can be read."""

    upto: int = 0
    swept: int = 0


async def place(db: Database, *, limit: int) -> int | None:
    """Give up to ``limit`` committed events their positions; how many, or None while another instance is at it."""
    row = await db.fetchrow(statements("events")["place"], limit)
    return int(row["placed"]) if row else None


async def feeds(db: Database) -> Mapping[int, Feed]:
    """Return how far each app's feed goes."""
    rows = await db.fetch(statements("events")["feeds"])
    return {row["app_id"]: Feed(row["upto"], row["swept"]) for row in rows}


async def feed(db: Database, app_id: int) -> Feed:
    """Return how far an app's feed goes."""
    row = await db.fetchrow(statements("events")["feed"], app_id)
    return Feed(row["upto"], row["swept"]) if row else Feed()


async def read(
    db: Database,
    app_id: int,
    after: int,
    *,
    span: int,
    types: Sequence[str] | None = None,
    binding_id: UUID | None = None,
) -> list[Event]:
    """Return what is asked for of the ``span`` positions after ``after``, in order."""
    rows = await db.fetch(statements("events")["read"], app_id, after, span, types, binding_id)
    return [event_of(row) for row in rows]


async def tend(db: Database, *, days_ahead: int, slice_: int) -> bool:
    """Do one step of keeping events; whether there was one to do."""
    row = await db.fetchrow(statements("events")["tend"], days_ahead, slice_, timeout_s=_LONG_S)
    return row is not None and row["step"] is not None


def event_of(row: Any) -> Event:
    """Return the event that a row tells of."""
    fields = {name: row[name] for name in Event.__slots__}
    fields["data"] = orjson.loads(fields["data"] or "{}")
    fields["metadata"] = None if fields["metadata"] is None else orjson.loads(fields["metadata"])
    return Event(**fields)
