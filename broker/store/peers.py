"""Peers in the database: who has which Y under a line whose X the platform picked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg

from broker.domain.ids import new_id
from broker.domain.phone import PhoneNumber
from broker.store.calls import CallKey
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.statements import statements

#: Peers that one binding has at a time, at most.
MOST_PEERS: Final = 1000


@dataclass(frozen=True, slots=True)
class Peer:
    """A B and its Y; ``found``: the platform made it by itself. ``ttl_s`` 0 = as long as the line."""

    pool_id: int
    id: UUID
    app_id: int
    binding_id: UUID
    line_id: UUID
    state: str
    reason: str | None
    b: PhoneNumber
    y: str | None
    tone: str | None
    ttl_s: int
    found: bool
    created_at: datetime
    expires_at: datetime | None
    ended_at: datetime | None


class Added(NamedTuple):
    """``made`` (call ``no`` is ours to send, or, if None, it waits), ``there`` (another one of this B), or why not.

    ``over``, ``pending``: the binding; ``releasing``: B's last peer; ``limit``: too many.
    """

    outcome: str
    id: UUID | None
    line_id: UUID | None
    no: int | None
    subscription_id: str | None


async def add(
    db: Database, vault: Vault, binding: tuple[int, UUID], *, app_id: int, b: PhoneNumber, ttl_s: int, tone: str | None,
    lease_s: float,
) -> Added:  # fmt: skip
    """Enter a peer for ``b``, cut to the life that the binding has left, and begin its call if its turn has come."""
    (pool_id, binding_id), peer_id, number = binding, new_id(), b.reveal()
    row = await db.fetchrow(
        statements("peers")["add"], app_id, pool_id, binding_id, peer_id, vault.party_key(number),
        vault.seal("peer", "b", pool_id, peer_id, number), ttl_s, tone, MOST_PEERS, lease_s,
    )  # fmt: skip
    return Added(*row) if row else Added("over", None, None, None, None)


class Dropping(NamedTuple):
    """Call ``no`` of the line is ours to send."""

    line_id: UUID
    no: int
    subscription_id: str | None


async def drop(db: Database, peer: Peer, *, lease_s: float) -> Dropping | None:
    """Begin the end of a peer; None = it has ended, or the call of the line that is under way sees to it."""
    row = await db.fetchrow(statements("peers")["drop"], peer.app_id, peer.pool_id, peer.id, lease_s)
    return Dropping(*row) if row else None


class Outcome(NamedTuple):
    """What became of a peer's call: ``there`` (B has ``y``), or not, for ``reason``."""

    key: CallKey
    attempt: int
    there: bool
    y: str | None
    reason: str | None
    outcome: str
    http: int | None
    code: str | None


class SettledPeer(NamedTuple):
    """``seen``: whose the Y is; ``foreign`` = another app's, and nothing was settled.

    ``no`` and ``op``: the line's next call, if it has one, which is ours to send.
    """

    line_state: str
    peer_state: str | None
    seen: str | None
    no: int | None
    op: str | None


async def settle(db: Database, item: Outcome, *, lease_s: float) -> SettledPeer | None:
    """Write the outcome; None = the call was not ours any more."""
    key, *rest = item
    row = await db.fetchrow(
        statements("peers")["settle"], key.pool_id, key.line_id, key.no, key.token, *rest, lease_s
    )  # fmt: skip
    return SettledPeer(*row) if row else None


async def of_call(db: Database, vault: Vault, key: CallKey) -> Peer | None:
    """Return the peer that a call is about; None = it has ended."""
    row = await db.fetchrow(statements("peers")["of_call"], key.line_id, key.no)
    return _peer(row, vault) if row else None


async def one(db: Database, vault: Vault, row_key: tuple[int, UUID]) -> Peer | None:
    """Return a peer by (pool id, id)."""
    row = await db.fetchrow(statements("peers")["one"], *row_key)
    return _peer(row, vault) if row else None


async def of_binding(db: Database, vault: Vault, binding: tuple[int, UUID]) -> list[Peer]:
    """Return the peers of a binding, those that live first, the newest first; no more than live at a time."""
    rows = await db.fetch(statements("peers")["of_binding"], *binding, MOST_PEERS)
    return [_peer(row, vault) for row in rows]


async def note(
    db: Database, vault: Vault, binding: tuple[int, UUID], *, app_id: int, found: Sequence[tuple[str, str]]
) -> int:
    """Enter those of ``found`` (B, Y) that are new: the platform made them by itself; return how many."""
    pool_id, binding_id = binding
    ids = [new_id() for _ in found]
    row = await db.fetchrow(
        statements("peers")["note"], app_id, pool_id, binding_id, ids, [vault.party_key(b) for b, _ in found],
        [vault.seal("peer", "b", pool_id, row_id, b) for row_id, (b, _) in zip(ids, found, strict=True)],
        [y for _, y in found], MOST_PEERS,
    )  # fmt: skip
    return int(row["new"]) if row else 0


async def sweep(db: Database, *, limit: int) -> int:
    """End a slice of the peers whose time is over; return how many."""
    row = await db.fetchrow(statements("peers")["sweep"], limit)
    return int(row["gone"]) if row else 0


def _peer(row: asyncpg.Record, vault: Vault) -> Peer:
    return Peer(
        pool_id=row["pool_id"],
        id=row["id"],
        app_id=row["app_id"],
        binding_id=row["binding_id"],
        line_id=row["line_id"],
        state=row["state"],
        reason=row["reason"],
        b=PhoneNumber(vault.open("peer", "b", row["pool_id"], row["id"], row["b_sealed"])),
        y=row["y"],
        tone=row["tone"],
        ttl_s=row["ttl_s"],
        found=row["found"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        ended_at=row["ended_at"],
    )
