"""Reading and releasing bindings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import asyncpg

from broker.domain.change import LineChange, other_way
from broker.domain.options import CallOptions
from broker.domain.phone import PhoneNumber
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.statements import statements
from broker.store.wanted import read_wanted


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding with its line, as its order sees it: A, B, direction and tones are the order's, whatever the line's.

    ``shared``: other live bindings are on its line. ``pending``: the change that is under way.
    ``moving``: to another X. ``as_of``: when it was read, by the clock of its times.
    ``change_failed``: why the last one was not made. ``version`` rises with every change. ``b`` is None on a sole
    line; ``extension`` is what that has of its X, 0 = all of it. ``x`` is None while the platform has not picked one.
    ``gap_ms``: how long nobody was behind X while the line was last bound anew.
    """

    pool_id: int
    id: UUID
    app_id: int
    state: str
    reason: str | None
    ttl_s: int
    created_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None
    order_id: str | None
    user_data: str | None
    metadata: str | None
    line_id: UUID
    x_id: int | None
    x: str | None
    direction: str
    a: PhoneNumber
    b: PhoneNumber | None
    a_key: int
    b_key: int | None
    options: CallOptions
    subscription_id: str | None
    version: int
    flipped: bool
    shared: bool
    joinable: bool
    pending: LineChange | None
    change_failed: str | None
    moving: bool
    as_of: datetime
    extension: int | None = None
    picked: str | None = None
    callback: PhoneNumber | None = None
    callee: PhoneNumber | None = None
    callee_until: datetime | None = None
    callee_user_data: str | None = None
    gap_ms: int | None = None
    caller_id: int = 0

    @property
    def parties(self) -> frozenset[str]:
        """The phones behind X, in clear."""
        return frozenset(party.reveal() for party in (self.a, self.b) if party is not None)


async def show(db: Database, vault: Vault, keys: Sequence[tuple[int, UUID]]) -> dict[tuple[int, UUID], Binding]:
    """Return those that exist, by (pool id, binding id)."""
    rows = await db.fetch(statements("bindings")["show"], [pool for pool, _ in keys], [row for _, row in keys])
    return {(row["pool_id"], row["id"]): _binding(row, vault) for row in rows}


def _binding(row: asyncpg.Record, vault: Vault) -> Binding:
    pool_id, line_id = row["pool_id"], row["line_id"]
    a = PhoneNumber(vault.open("line", "a", pool_id, line_id, row["a_sealed"]))
    b = _party(row, "b", vault)
    a_key, b_key, direction = row["a_key"], row["b_key"], row["direction"]
    options = CallOptions.from_text(row["options"])
    pending = read_wanted(vault, pool_id, line_id, row["wanted"]) if row["wanted"] is not None else None
    if row["flipped"] and b is not None:
        a, b, a_key, b_key, direction, options = b, a, b_key, a_key, other_way(direction), options.flipped()
        pending = pending.flipped() if pending is not None else None
    return Binding(
        pool_id=pool_id,
        id=row["id"],
        app_id=row["app_id"],
        state=row["state"],
        reason=row["reason"],
        ttl_s=row["ttl_s"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        ended_at=row["ended_at"],
        order_id=row["order_id"],
        user_data=row["user_data"],
        metadata=row["metadata"],
        line_id=line_id,
        x_id=row["x_id"],
        x=row["number"] or row["picked"],
        direction=direction,
        a=a,
        b=b,
        a_key=a_key,
        b_key=b_key,
        options=options,
        subscription_id=row["subscription_id"],
        version=row["version"],
        flipped=row["flipped"],
        shared=row["shared"],
        joinable=row["joinable"],
        pending=pending,
        change_failed=row["change_failed"],
        moving=row["moving"],
        as_of=row["as_of"],
        extension=row["extension"],
        picked=row["picked"],
        callback=_party(row, "callback", vault),
        callee=_party(row, "callee", vault),
        callee_until=row["callee_until"],
        callee_user_data=row["callee_user_data"],
        gap_ms=row["gap_ms"],
        caller_id=row["caller_id"],
    )


def _party(row: asyncpg.Record, role: str, vault: Vault) -> PhoneNumber | None:
    sealed = row[f"{role}_sealed"]
    return PhoneNumber(vault.open("line", role, row["pool_id"], row["line_id"], sealed)) if sealed else None


@dataclass(frozen=True, slots=True)
class ReleaseAsk:
    """Release this binding of this app."""

    pool_id: int
    binding_id: UUID
    app_id: int


@dataclass(frozen=True, slots=True)
class Releasing:
    """The release has begun. ``to_send``: the unbind call is ours; else the bind's settling sends it."""

    line_id: UUID
    no: int
    to_send: bool
    x: str | None
    subscription_id: str | None


async def release_later(db: Database, ask: ReleaseAsk, grace_s: int) -> bool:
    """Release the last binding of a line and leave the line alone for ``grace_s``; False = nothing was done."""
    row = await db.fetchrow(statements("bindings")["release_later"], ask.pool_id, ask.binding_id, ask.app_id, grace_s)
    return bool(row and row["done"])


async def release(db: Database, asks: Sequence[ReleaseAsk], *, reason: str, lease_s: float) -> list[Releasing | None]:
    """Begin releases; None = there was nothing pending or active to release."""
    rows = await db.fetch(
        statements("bindings")["release"],
        [a.pool_id for a in asks],
        [a.binding_id for a in asks],
        [a.app_id for a in asks],
        reason,
        lease_s,
    )
    found = {
        row["ord"]: Releasing(
            line_id=row["line_id"],
            no=row["no"],
            to_send=row["line_state"] == "active",
            x=row["number"],
            subscription_id=row["subscription_id"],
        )
        for row in rows
    }
    return [found.get(place) for place in range(1, len(asks) + 1)]
