"""Lines that another order of the same pair may share: what they are, and joining them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from broker.domain.options import CallOptions
from broker.domain.phone import PhoneNumber
from broker.store.allocation import Claim
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.statements import statements


@dataclass(frozen=True, slots=True)
class Line:
    """A line as far as sharing goes."""

    x_id: int
    state: str
    direction: str
    options: str | None
    joinable: bool
    changing: bool
    a: PhoneNumber
    b: PhoneNumber

    def fits(self, *, a: PhoneNumber, b: PhoneNumber, direction: str, options: str | None) -> bool:
        """Tell whether an order of these parties may share the line; with both directions, the roles do not matter."""
        if not self.joinable or self.changing or self.state not in {"pending", "active"}:
            return False
        if (self.direction, self.options) != (direction, options):
            return False
        found = CallOptions.from_text(options)
        either_way = direction == "both" and found == found.flipped()
        return (a, b) == (self.a, self.b) or (either_way and (a, b) == (self.b, self.a))


async def lines(db: Database, vault: Vault, keys: Sequence[tuple[int, UUID]]) -> dict[UUID, Line]:
    """Return those that exist, by id; ``keys`` are (pool id, line id)."""
    rows = await db.fetch(statements("allocation")["lines"], [pool for pool, _ in keys], [line for _, line in keys])
    found: dict[UUID, Line] = {}
    for row in rows:
        pool_id, line_id = keys[row["ord"] - 1]
        found[line_id] = Line(
            x_id=row["x_id"],
            state=row["state"],
            direction=row["direction"],
            options=row["options"],
            joinable=row["joinable"],
            changing=row["changing"],
            a=PhoneNumber(vault.open("line", "a", pool_id, line_id, row["a_sealed"])),
            b=PhoneNumber(vault.open("line", "b", pool_id, line_id, row["b_sealed"])),
        )
    return found


@dataclass(frozen=True, slots=True)
class Joined:
    """``outcome``: joined, gone (not shareable any more) or superseded (the idempotency key is a twin's)."""

    outcome: str
    created_at: datetime
    state: str | None
    expires_at: datetime | None
    subscription_id: str | None


async def join(db: Database, claims: Sequence[Claim]) -> list[Joined]:
    """Give each claim a binding on the line that it names; the answers are in the order of ``claims``."""
    columns = zip(
        *(
            (
                c.pool_id, c.line_id, c.app_id, c.caller_id, c.binding_id, c.a_key, c.b_key, c.direction, c.options,
                c.ttl_s, c.chosen, c.order_id, c.user_data, c.metadata, c.key_hash, c.key_token,
            )
            for c in claims
        ),
        strict=True,
    )  # fmt: skip
    rows = await db.fetch(statements("allocation")["join"], *columns)
    found = {
        row["ord"]: Joined(row["outcome"], row["created_at"], row["state"], row["expires_at"], row["subscription_id"])
        for row in rows
    }
    return [found[place] for place in range(1, len(claims) + 1)]
