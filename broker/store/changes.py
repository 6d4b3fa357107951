"""Changing bindings and their lines: begin, settle, or move to another X."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

import asyncpg

from broker.domain.change import LineChange
from broker.domain.ids import new_id
from broker.domain.phone import PhoneNumber
from broker.store.allocation import LockMode
from broker.store.bindings import Binding
from broker.store.calls import CallKey
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.statements import statements
from broker.store.wanted import wanted_text


@dataclass(frozen=True, slots=True)
class OwnChange:
    """What changes of the binding itself; ``given`` names the fields that do: ttl_s, user_data, metadata."""

    given: frozenset[str] = frozenset()
    ttl_s: int | None = None
    user_data: str | None = None
    metadata: str | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """``outcome``: changed, begun (call ``no`` is ours to send), over, stale, changing, shared, barred, limit or busy.

    ``renewal_s``: the lifetime that the modify gives the line as well, since it would end before the binding's new one.
    """

    outcome: str
    no: int | None
    renewal_s: int | None = None


async def begin(
    db: Database, vault: Vault, binding: Binding, own: OwnChange, change: LineChange | None, *, mates: Iterable[UUID],
    mode: LockMode, lease_s: float, most_x: int | None = None,
) -> Begun:  # fmt: skip
    """Change ``binding``, and begin the modify of its line if there is a ``change``.

    ``mates``: bindings of the line for which its parties may change, too; with others on it, it is ``shared``.
    ``most_x``: how many X the new party may have at a time (``limit``), in a mode that says so.
    """
    party = change.party if change is not None else None
    try:
        row = await db.fetchrow(
            statements("changes")["begin"],
            mode.value, lease_s, binding.app_id, binding.pool_id, binding.id, binding.version, list(mates),
            list(own.given),
            own.ttl_s, own.user_data, own.metadata,
            _wanted(vault, binding, change) if change is not None else None,
            vault.party_key(party.reveal()) if party is not None else None,
            most_x,
        )  # fmt: skip
    except asyncpg.exceptions.LockNotAvailableError:
        return Begun("busy", None)
    return Begun(row["outcome"], row["no"], row["renewal_s"]) if row else Begun("over", None)


@dataclass(frozen=True, slots=True)
class Changed:
    """Settle a modify: ``done`` True, False (refused for ``reason``), or None (given up, the line is released).

    ``subscription_id``: the line was bound anew, and is called that now; ``gap_ms``: for so long nobody was behind X.
    """

    key: CallKey
    attempt: int
    done: bool | None
    reason: str | None
    rest_s: float
    bar_s: float
    outcome: str
    http: int | None
    code: str | None
    subscription_id: str | None = None
    gap_ms: int | None = None


async def settle(db: Database, item: Changed, *, lease_s: float) -> str | None:
    """Return the line's state (``releasing``: the unbind call no + 1, token 1 is ours); None = not ours any more."""
    key = item.key
    row = await db.fetchrow(
        statements("changes")["settle"],
        key.pool_id, key.line_id, key.no, key.token, item.attempt, item.done, item.reason, item.rest_s, item.bar_s,
        item.outcome, item.http, item.code, lease_s, item.subscription_id, item.gap_ms,
    )  # fmt: skip
    return row["line_state"] if row else None


@dataclass(frozen=True, slots=True)
class Move:
    """A binding that is to have another X: its new line, all of it."""

    x_id: int
    cap: int
    line_id: UUID
    a: PhoneNumber
    b: PhoneNumber
    direction: str
    options: str | None
    joinable: bool
    line_ttl_s: int
    chosen: str


async def move(
    db: Database, vault: Vault, binding: Binding, own: OwnChange, to: Move, *, mode: LockMode, lease_s: float
) -> str:
    """Reserve another X for ``binding``, which goes there when the platform has confirmed it.

    Returns ``won`` (the new line's bind, no 1, token 1, is ours to send), ``over``, ``stale``, ``changing``, or why not
    this X.
    """
    a, b = to.a.reveal(), to.b.reveal()
    try:
        row = await db.fetchrow(
            statements("changes")["move"],
            mode.value, lease_s, binding.app_id, binding.pool_id, binding.id, binding.version, list(own.given),
            own.ttl_s, own.user_data, own.metadata, new_id(), to.x_id, to.cap, to.line_id,
            vault.party_key(a), vault.party_key(b),
            vault.seal("line", "a", binding.pool_id, to.line_id, a),
            vault.seal("line", "b", binding.pool_id, to.line_id, b),
            to.direction, to.options, to.joinable, to.line_ttl_s, to.chosen,
        )  # fmt: skip
    except asyncpg.exceptions.LockNotAvailableError:
        return "busy"
    except asyncpg.PostgresError as error:
        if error.sqlstate in {"BB001", "BB002"}:
            return str(error.detail) if error.sqlstate == "BB002" else "busy"
        raise
    return str(row["outcome"]) if row else "over"


def _wanted(vault: Vault, binding: Binding, change: LineChange) -> str:
    a, b = binding.a, binding.b
    if binding.flipped and b is not None:
        a, b, change = b, a, change.flipped()
    return wanted_text(vault, binding.pool_id, binding.line_id, change, a=a, b=b)
