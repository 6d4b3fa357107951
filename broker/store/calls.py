"""Platform calls in the database: take over, keep, settle. Every statement is for many calls at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from broker.store.database import Database
from broker.store.statements import statements


@dataclass(frozen=True, slots=True)
class CallKey:
    """Which call, and the token that proves it is ours."""

    pool_id: int
    line_id: UUID
    no: int
    token: int


@dataclass(frozen=True, slots=True)
class ClaimedCall:
    """A call taken over from an owner whose lease ended."""

    key: CallKey
    attempt: int
    op: str
    app_id: int
    x_id: int | None
    number: str | None
    direction: str
    ttl_s: int
    a_key: int
    b_key: int | None
    a_sealed: bytes
    b_sealed: bytes | None
    options: str | None
    subscription_id: str | None
    line_state: str
    wanted: str | None
    created_at: datetime
    extension: int | None
    callback_sealed: bytes | None
    caller_id: int


@dataclass(frozen=True, slots=True)
class Bound:
    """Settle: the platform holds the line under this subscription. ``plain``: the call needs no row any more."""

    key: CallKey
    attempt: int
    subscription_id: str
    plain: bool = False


@dataclass(frozen=True, slots=True)
class BoundResult:
    """``line_state`` is ``active``, or ``releasing`` if an unbind call (no + 1, token 1) is now ours to send."""

    line_state: str
    confirmed_at: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """Settle: the platform does not hold the line. ``state`` is ``released`` or ``failed``."""

    key: CallKey
    attempt: int
    state: str
    reason: str
    rest_s: float
    outcome: str
    http: int | None
    code: str | None


@dataclass(frozen=True, slots=True)
class Extension:
    """Renew: keep the call for ``lease_s`` from now; note the last answer, if there was one."""

    key: CallKey
    attempt: int
    lease_s: float
    http: int | None = None
    code: str | None = None


async def claim(db: Database, *, limit: int, lease_s: float) -> list[ClaimedCall]:
    """Take over up to ``limit`` calls whose lease has ended."""
    rows = await db.fetch(statements("calls")["claim"], limit, lease_s)
    return [
        ClaimedCall(
            key=CallKey(row["pool_id"], row["line_id"], row["no"], row["token"]),
            attempt=row["attempt"],
            op=row["op"],
            app_id=row["app_id"],
            x_id=row["x_id"],
            number=row["number"],
            direction=row["direction"],
            ttl_s=row["ttl_s"],
            a_key=row["a_key"],
            b_key=row["b_key"],
            a_sealed=row["a_sealed"],
            b_sealed=row["b_sealed"],
            options=row["options"],
            subscription_id=row["subscription_id"],
            line_state=row["line_state"],
            wanted=row["wanted"],
            created_at=row["created_at"],
            extension=row["extension"],
            callback_sealed=row["callback_sealed"],
            caller_id=row["caller_id"],
        )
        for row in rows
    ]


async def extend(db: Database, items: Sequence[Extension]) -> list[str | None]:
    """Renew leases and return the lines' states; None = somebody else owns the call now."""
    rows = await db.fetch(
        statements("calls")["extend"],
        *_keys([i.key for i in items]),
        [i.lease_s for i in items],
        [i.attempt for i in items],
        [i.http for i in items],
        [i.code for i in items],
    )
    states = {row["ord"]: row["line_state"] for row in rows}
    return [states.get(place) for place in range(1, len(items) + 1)]


async def settle_bound(db: Database, items: Sequence[Bound], *, lease_s: float) -> list[BoundResult | None]:
    """Make lines active; None = the call was not ours any more and nothing was changed."""
    rows = await db.fetch(
        statements("calls")["settle_bound"],
        *_keys([i.key for i in items]),
        [i.attempt for i in items],
        [i.subscription_id for i in items],
        lease_s,
        [i.plain for i in items],
    )
    found = {row["ord"]: BoundResult(row["line_state"], row["confirmed_at"]) for row in rows}
    return [found.get(place) for place in range(1, len(items) + 1)]


async def settle_ended(db: Database, items: Sequence[Ended]) -> list[datetime | None]:
    """End lines and return when; None = the call was not ours any more and nothing was changed."""
    rows = await db.fetch(
        statements("calls")["settle_ended"],
        *_keys([i.key for i in items]),
        [i.attempt for i in items],
        [i.state for i in items],
        [i.reason for i in items],
        [i.rest_s for i in items],
        [i.outcome for i in items],
        [i.http for i in items],
        [i.code for i in items],
    )
    found: dict[int, datetime] = {row["ord"]: row["ended_at"] for row in rows}
    return [found.get(place) for place in range(1, len(items) + 1)]


async def date_back(db: Database, key: CallKey, age_s: float | None) -> None:
    """End a line earlier whose time at the platform began up to ``age_s`` ago; None: when its call was made."""
    await db.fetch(statements("calls")["date_back"], key.pool_id, key.line_id, key.no, age_s)


async def end_unbound(db: Database, key: CallKey) -> bool:
    """Report the bindings of a line that was never bound released, while the line keeps its X; False = not ours."""
    row = await db.fetchrow(statements("calls")["end_unbound"], key.pool_id, key.line_id, key.no, key.token)
    return bool(row and row["ours"])


class Swept(NamedTuple):
    """Bindings that expired or were withdrawn, and lines whose renewal was begun."""

    expired: int
    withdrawn: int
    renewed: int


async def sweep(db: Database, *, limit: int, grace_s: float) -> Swept:
    """Look at a slice of the lines whose time has come."""
    row = await db.fetchrow(statements("calls")["sweep"], limit, grace_s)
    return Swept(row["expired"], row["withdrawn"], row["renewed"]) if row else Swept(0, 0, 0)


def _keys(keys: Sequence[CallKey]) -> tuple[list[int], list[UUID], list[int], list[int]]:
    return [k.pool_id for k in keys], [k.line_id for k in keys], [k.no for k in keys], [k.token for k in keys]
