"""The two statements of allocation: what the parties may not get, and the claim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

import asyncpg

from broker.domain.choice import PartyView
from broker.store.database import Database
from broker.store.statements import statements


class LockMode(StrEnum):
    """How ``reserve`` locks parties; ``OFF`` exists to prove that the unique key alone keeps the books right."""

    TRY = "try"
    WAIT = "wait"
    OFF = "off"


class Claim(NamedTuple):
    """One binding with the X chosen for it, ready to be written: the columns of ``reserve()`` in their order.

    A tuple, because a frozen dataclass of so many fields costs three times as much to make. ``lines_seen``: how many
    live lines of the pair were seen and found unfit to be shared, by A's slots or by B's; if there are more by now, the
    claim is ``busy``. None: it is to have a line of its own anyway. ``at_once``: nobody has to be asked, so what is won
    is active.
    """

    pool_id: int
    x_id: int
    cap: int
    app_id: int
    caller_id: int
    line_id: UUID
    binding_id: UUID
    a_key: int
    b_key: int
    a_sealed: bytes
    b_sealed: bytes
    direction: str
    options: str | None
    joinable: bool
    line_ttl_s: int
    ttl_s: int
    chosen: str
    order_id: str | None
    user_data: str | None
    metadata: str | None
    key_hash: bytes | None
    key_token: int | None
    lines_seen: int | None
    seen_by_a: bool
    at_once: bool | None = None


@dataclass(frozen=True, slots=True)
class Reserved:
    """What became of a claim: ``won``, ``busy``, ``barred``, ``full``, ``closed`` or ``superseded``."""

    outcome: str
    created_at: datetime


class BatchTorn(Exception):
    """Some claims of the batch (``places``) lost a slot while it ran; nothing of it was written."""

    def __init__(self, places: frozenset[int]) -> None:
        """Name the claims, counted from 0."""
        super().__init__("slots taken meanwhile")
        self.places = places


class LocksBusy(Exception):
    """The parties stayed locked for the whole wait."""


async def histories(db: Database, wanted: Iterable[tuple[int, int]]) -> dict[tuple[int, int], PartyView]:
    """Return a view for each (pool id, party key)."""
    pairs = list(wanted)
    views = {pair: PartyView() for pair in pairs}
    rows = await db.fetch(
        statements("allocation")["histories"], [pool for pool, _ in pairs], [party for _, party in pairs]
    )
    for pool_id, party_key, x, counterpart, live, held, until_s, line_id in rows:
        view = views[pool_id, party_key]
        if live:
            view.live |= 1 << x
            view.live_with[x] = counterpart, line_id
            continue
        if held:
            view.resting[x] = counterpart
        view.left[x] = until_s
        view.last_with[x] = counterpart
    return views


async def reserve(db: Database, claims: Sequence[Claim], *, mode: LockMode, lease_s: float) -> list[Reserved]:
    """Claim all in one statement; the answers are in the order of ``claims``.

    Raises:
        BatchTorn: without locks, when others took slots meanwhile; or two claims want the same party on the same X.
        LocksBusy: only with ``LockMode.WAIT``.
    """
    # What no claim has is no array: the driver looks at every element of every array.
    columns = [None if column.count(None) == len(claims) else column for column in zip(*claims, strict=True)]
    try:
        rows = await db.fetch(statements("allocation")["reserve"], mode.value, lease_s, *columns)
    except asyncpg.exceptions.LockNotAvailableError:
        raise LocksBusy from None
    except asyncpg.PostgresError as error:
        if error.sqlstate == "BB001":
            places = frozenset(int(place) - 1 for place in str(error.detail).split(","))
            raise BatchTorn(places) from None
        raise
    found = {row["ord"]: Reserved(row["outcome"], row["created_at"]) for row in rows}
    return [found[place] for place in range(1, len(claims) + 1)]


@dataclass(frozen=True, slots=True)
class Rechoice:
    """A pending line whose bindings need another X, because the platform refused its bind on this one."""

    pool_id: int
    old_line: UUID
    no: int
    token: int
    bar_s: float
    outcome: str
    http: int | None
    code: str | None
    x_id: int
    cap: int
    line_id: UUID
    a_sealed: bytes
    b_sealed: bytes
    chosen: str


async def rechoose(db: Database, item: Rechoice, *, mode: LockMode, lease_s: float) -> str:
    """Return ``won``, ``superseded`` (not ours any more), ``released`` (nobody wants it), or why not this X."""
    try:
        row = await db.fetchrow(
            statements("allocation")["rechoose"],
            mode.value, lease_s, item.pool_id, item.old_line, item.no, item.token, item.bar_s, item.outcome, item.http,
            item.code, item.x_id, item.cap, item.line_id, item.a_sealed, item.b_sealed,
            item.chosen,
        )  # fmt: skip
    except asyncpg.exceptions.LockNotAvailableError:
        return "busy"
    except asyncpg.PostgresError as error:
        if error.sqlstate in {"BB001", "BB002"}:
            return str(error.detail) if error.sqlstate == "BB002" else "busy"
        raise
    return str(row["outcome"]) if row else "superseded"
