"""Reading and releasing bindings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from broker.domain.phone import PhoneNumber
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.statements import statements


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding with its line, as order systems see it."""

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
    x_id: int
    x: str
    direction: str
    a: PhoneNumber
    b: PhoneNumber
    a_key: int
    b_key: int
    subscription_id: str | None


async def show(db: Database, vault: Vault, keys: Sequence[tuple[int, UUID]]) -> dict[tuple[int, UUID], Binding]:
    """Return those that exist, by (pool id, binding id)."""
    rows = await db.fetch(statements("bindings")["show"], [pool for pool, _ in keys], [row for _, row in keys])
    return {
        (row["pool_id"], row["id"]): Binding(
            pool_id=row["pool_id"],
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
            line_id=row["line_id"],
            x_id=row["x_id"],
            x=row["number"],
            direction=row["direction"],
            a_key=row["a_key"],
            b_key=row["b_key"],
            a=PhoneNumber(vault.open("line", "a", row["pool_id"], row["line_id"], row["a_sealed"])),
            b=PhoneNumber(vault.open("line", "b", row["pool_id"], row["line_id"], row["b_sealed"])),
            subscription_id=row["subscription_id"],
        )
        for row in rows
    }


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
    x: str
    subscription_id: str | None


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
