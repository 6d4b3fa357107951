"""Reading who is, or was, behind an X."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import asyncpg

from broker.domain.phone import PhoneNumber
from broker.domain.reach import Behind
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.statements import statements


class By(StrEnum):
    """How a line is found."""

    PAIR = "pair"  # by the slot of the caller
    WHOLE = "whole"  # the one line of the X
    PLACE = "place"  # by the extension
    OWN = "own"  # by the caller as its A


@dataclass(frozen=True, slots=True)
class Spot:
    """An X number and what decides how calls through it go. ``routing`` counts in mode X."""

    x: str
    pool_id: int
    x_id: int
    mode: str
    routing: str
    retention_days: int
    extension_digits: int
    shadow: bool = False
    shadow_changed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A call that is coming in through an X of mode X; ``by`` is ``PAIR`` or ``WHOLE``."""

    by: By
    pool_id: int
    x_id: int
    caller: str = field(repr=False)


async def behind(
    db: Database, vault: Vault, spot: Spot, by: By, caller: str, *, extension: int = 0, at: datetime | None = None
) -> list[Behind]:
    """Return the lines that may decide about a call now, or those of now that did ``at`` a past moment."""
    rows = await db.fetch(
        statements("reach")["behind"], at, by.value, spot.pool_id, spot.x_id, extension, vault.party_key(caller)
    )
    return [_behind(row, vault, now=at is None) for row in rows]


async def behind_all(db: Database, vault: Vault, calls: Sequence[Call]) -> list[list[Behind]]:
    """Return for each call the lines that may decide about it now."""
    rows = await db.fetch(
        statements("reach")["behind_all"],
        [call.by.value for call in calls],
        [call.pool_id for call in calls],
        [call.x_id for call in calls],
        [vault.party_key(call.caller) for call in calls],
    )
    found: list[list[Behind]] = [[] for _ in calls]
    for row in rows:
        found[row["ord"] - 1].append(_behind(row, vault, now=True))
    return found


def _behind(row: asyncpg.Record, vault: Vault, *, now: bool) -> Behind:
    return Behind(
        pool_id=row["pool_id"],
        line_id=row["line_id"],
        # At a past moment it was bound, whatever it is now.
        state=row["state"] if now else "",
        direction=row["direction"],
        a=_opened(row, "a", vault),
        b=_opened(row, "b", vault) if row["b_sealed"] is not None else None,
        callee=_opened(row, "callee", vault) if row["callee_sealed"] is not None and now else None,
        callee_user_data=row["callee_user_data"],
        options=row["options"],
        over=row["over"],
        live=row["live"],
        ended=row["why"],
        bindings=tuple(row["bindings"] or ()),
        user_data=tuple(row["user_data"] or ()),
    )


async def behind_y(db: Database, vault: Vault, spot: Spot, caller: str, *, at: datetime | None = None) -> list[Behind]:
    """Return the lines of AXYB whose A may reach somebody by dialling this number as a Y, each with that B."""
    rows = await db.fetch(statements("reach")["behind_y"], at, spot.pool_id, spot.x, vault.party_key(caller))
    found = [
        Behind(
            pool_id=row["pool_id"],
            line_id=row["line_id"],
            state=row["state"] if at is None else "",
            direction=row["direction"],
            a=_opened(row, "a", vault),
            b=PhoneNumber(vault.open("peer", "b", row["pool_id"], row["peer_id"], row["b_sealed"])),
            over=row["over"],
            bindings=(row["binding_id"],),
        )
        for row in rows
    ]
    return [line for line in found if line.a.reveal() == caller]


async def was_behind(
    db: Database, vault: Vault, spot: Spot, by: By, caller: str, *, extension: int, at: datetime
) -> list[Behind]:
    """Return what is kept of lines that have ended, or changed their parties, since."""
    rows = await db.fetch(statements("reach")["was_behind"], at, by.value, spot.x, extension, vault.party_key(caller))
    return [
        Behind(
            pool_id=row["pool_id"],
            line_id=row["line_id"],
            state="",
            direction=row["direction"],
            a=_opened(row, "a", vault),
            b=_opened(row, "b", vault) if row["b_sealed"] is not None else None,
            bindings=tuple(row["bindings"]),
        )
        for row in rows
    ]


def _opened(row: asyncpg.Record, role: str, vault: Vault) -> PhoneNumber:
    return PhoneNumber(vault.open("line", role, row["pool_id"], row["line_id"], row[f"{role}_sealed"]))


async def spot_of(db: Database, x: str) -> Spot | None:
    """Return an X number of any app."""
    row = await db.fetchrow(statements("reach")["spot"], x)
    if row is None:
        return None
    return Spot(
        row["number"],
        row["pool_id"],
        row["x_id"],
        row["mode"],
        row["routing"],
        row["retention_days"],
        row["extension_digits"],
        row["shadow"],
        row["shadow_changed_at"],
    )


async def kept(db: Database, at: datetime, retention_days: int) -> tuple[bool, bool]:
    """Tell whether the moment has come, and whether what was then is still kept."""
    row = await db.fetchrow(statements("reach")["kept"], at, retention_days)
    return (bool(row["come"]), bool(row["kept"])) if row is not None else (True, False)


async def audit(db: Database, who: str, pool_id: int, line_id: UUID, bindings: Sequence[UUID]) -> None:
    """Write down who is about to see a number in clear."""
    await db.fetch(statements("reach")["audit"], who, pool_id, line_id, list(bindings))


async def tend(db: Database, *, ahead_weeks: int, limit: int) -> str | None:
    """Keep the history in order by one step; return what was done, None = there was nothing to do."""
    row = await db.fetchrow(statements("reach")["tend"], ahead_weeks, limit)
    return row["step"] if row is not None else None
