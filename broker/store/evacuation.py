"""Moving the bindings of an X to others, in the database."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import asyncpg

from broker.domain.ids import new_id
from broker.domain.phone import PhoneNumber
from broker.store.allocation import LockMode
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.statements import statements


@dataclass(frozen=True, slots=True)
class Evacuation:
    """An X that this process works on for a while. ``why`` is operator or status."""

    pool_id: int
    x_id: int
    app_id: int
    why: str


@dataclass(frozen=True, slots=True)
class Due:
    """A line to be moved, and the newest binding on it."""

    line_id: UUID
    binding_id: UUID


@dataclass(frozen=True, slots=True)
class NewLine:
    """The successor of a line: its parties in the line's own roles; of a pair the X that was chosen.

    ``prefix`` and ``most`` as in a :class:`broker.store.places.PlaceClaim`; ``overlap_s``: how long both X reach them.
    """

    pool_id: int
    old: UUID
    id: UUID
    a: PhoneNumber
    b: PhoneNumber | None
    callback: PhoneNumber | None
    x_id: int | None
    cap: int
    prefix: int | None
    most: int | None
    chosen: str
    overlap_s: float


@dataclass(frozen=True, slots=True)
class Begun:
    """``outcome`` won: the bind (no 1, token 1) of a line on this X is ours to send. Else why nothing was done."""

    outcome: str
    x_id: int | None = None
    extension: int | None = None
    number: str = ""
    ttl_s: int = 0


async def take(db: Database, owner: UUID, *, lease_s: float) -> list[Evacuation]:
    """Return the evacuations that are this process's to go on with."""
    rows = await db.fetch(statements("evacuation")["take"], owner, lease_s)
    return [Evacuation(*row) for row in rows]


async def tend(db: Database, one: Evacuation, *, retry_s: float) -> tuple[str, int]:
    """Take in what became of its lines; return its state and how many lines are moving."""
    row = await db.fetchrow(statements("evacuation")["tend"], one.pool_id, one.x_id, retry_s)
    return (row["state"], row["moving"]) if row else ("done", 0)


async def lines(db: Database, one: Evacuation, *, limit: int) -> list[Due]:
    """Return the lines that are to move next, the most urgent first."""
    return [Due(*row) for row in await db.fetch(statements("evacuation")["lines"], one.pool_id, one.x_id, limit)]


async def waits(db: Database, one: Evacuation, line_id: UUID, reason: str, *, retry_s: float) -> None:
    """Write down why a line cannot move now."""
    await db.fetch(statements("evacuation")["waits"], one.pool_id, one.x_id, line_id, reason, retry_s)


async def begin(db: Database, vault: Vault, to: NewLine, *, mode: LockMode, lease_s: float) -> Begun:
    """Reserve the successor of a line."""

    def sealed(role: str, party: PhoneNumber | None) -> bytes | None:
        return vault.seal("line", role, to.pool_id, to.id, party.reveal()) if party is not None else None

    try:
        row = await db.fetchrow(
            statements("evacuation")["begin_line"],
            mode.value, lease_s, to.pool_id, to.old, vault.party_key(to.a.reveal()),
            vault.party_key(to.b.reveal()) if to.b is not None else None, new_id(), to.id, sealed("a", to.a),
            sealed("b", to.b), sealed("callback", to.callback), to.x_id, to.cap, to.prefix, to.most, to.chosen,
            to.overlap_s,
        )  # fmt: skip
    except asyncpg.exceptions.LockNotAvailableError:
        return Begun("busy")
    except asyncpg.PostgresError as error:
        if error.sqlstate == "BB001":
            return Begun("busy")
        raise
    if row is None or row["outcome"] != "won":
        return Begun(row["outcome"] if row else "over")
    return Begun("won", row["x_id"], row["extension"], row["number"], row["ttl_s"])
