"""Idempotency records: whose request it is, and what the first answer was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from broker.store.database import Database
from broker.store.statements import statements


@dataclass(frozen=True, slots=True)
class KeyAsk:
    """A request with a key; ``busy_s`` is how long a twin is told to wait before it may take over."""

    app_id: int
    caller_id: int
    key_hash: bytes
    request_hash: bytes
    busy_s: float

    @property
    def row(self) -> tuple[int, int, bytes]:
        """The record's primary key."""
        return self.app_id, self.caller_id, self.key_hash


@dataclass(frozen=True, slots=True)
class Stored:
    """A kept answer."""

    status: int
    location: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class KeyState:
    """``token`` is set when the request is ours to carry out; ``made`` is the binding that an earlier try made."""

    token: int | None
    made: tuple[int, UUID] | None
    same: bool
    stored: Stored | None


async def begin(db: Database, asks: Sequence[KeyAsk]) -> list[KeyState]:
    """Register the requests or return what is known of them. No two of ``asks`` may name the same record."""
    rows = await db.fetch(
        statements("idempotency")["begin"],
        [a.app_id for a in asks],
        [a.caller_id for a in asks],
        [a.key_hash for a in asks],
        [a.request_hash for a in asks],
        [a.busy_s for a in asks],
    )
    states: dict[int, KeyState] = {}
    for row in rows:
        made = (row["made_pool"], row["made_id"]) if row["made_id"] is not None else None
        stored = Stored(row["status"], row["location"], row["body"]) if row["status"] is not None else None
        # No record to be seen and none of ours: a twin committed it a moment ago. It is being worked on.
        same = row["same"] is not False
        states[row["ord"]] = KeyState(row["token"], made, same, None if row["token"] is not None else stored)
    return [states[place] for place in range(1, len(asks) + 1)]


@dataclass(frozen=True, slots=True)
class Finish:
    """Keep this answer under the key."""

    ask: KeyAsk
    token: int
    answer: Stored


async def finish(db: Database, items: Sequence[Finish]) -> list[bool]:
    """Keep answers; False = the key is not ours any more, and the answer must not be sent."""
    rows = await db.fetch(
        statements("idempotency")["finish"],
        [i.ask.app_id for i in items],
        [i.ask.caller_id for i in items],
        [i.ask.key_hash for i in items],
        [i.token for i in items],
        [i.answer.status for i in items],
        [i.answer.location for i in items],
        [i.answer.body for i in items],
    )
    kept = {row["ord"] for row in rows}
    return [place in kept for place in range(1, len(items) + 1)]


async def forget(db: Database, ask: KeyAsk, token: int) -> None:
    """Let the next try carry the request out: nothing was kept."""
    await db.fetch(statements("idempotency")["forget"], ask.app_id, ask.caller_id, ask.key_hash, token)


async def sweep(db: Database, *, limit: int) -> int:
    """Delete a slice of records older than their day and return how many there were."""
    return len(await db.fetch(statements("idempotency")["sweep"], limit))
