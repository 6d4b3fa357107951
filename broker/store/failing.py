"""Platform calls that keep failing: what was tried, and which of them are dead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import orjson

from broker.store.bindings import ReleaseAsk
from broker.store.calls import CallKey
from broker.store.database import Database
from broker.store.statements import statements

#: What became of a call by its latest failure; None: it is not ours any more.
Standing = Literal["open", "dead"] | None
Try = Mapping[str, object]


async def note(
    db: Database, key: CallKey, tries: Sequence[Try], *, failing_s: float, most: int, patience_s: float
) -> Standing:
    """Note tries that failed, the first of them ``failing_s`` ago.

    With ``most`` of them in all, over at least ``patience_s``, the call is dead.
    """
    kept = orjson.dumps(list(tries)).decode()
    row = await db.fetchrow(
        statements("failing")["note"], key.pool_id, key.line_id, key.no, key.token, kept, failing_s, most, patience_s
    )
    return row["state"] if row is not None else None


async def note_crash(db: Database, key: CallKey, one: Try, *, most: int, pause_s: float) -> Standing:
    """Note that our own code failed on it.

    Nobody tries it for ``pause_s``, twice as long each time; after ``most`` times it is dead.
    """
    kept = orjson.dumps(one).decode()
    row = await db.fetchrow(
        statements("failing")["note_crash"], key.pool_id, key.line_id, key.no, key.token, kept, most, pause_s
    )
    return row["state"] if row is not None else None


async def dead(db: Database) -> dict[int, int]:
    """Return how many calls of each app are dead."""
    return {row["app_id"]: row["many"] for row in await db.fetch(statements("failing")["dead"])}


async def sweep(db: Database, *, limit: int) -> int:
    """Forget a slice of what was settled more than a day ago; return how many."""
    return len(await db.fetch(statements("failing")["sweep"], limit))


async def overdue(db: Database, *, limit: int) -> list[ReleaseAsk]:
    """Return pending bindings whose clients have gone, by the policies of their apps."""
    rows = await db.fetch(statements("failing")["overdue"], limit)
    return [ReleaseAsk(row["pool_id"], row["binding_id"], row["app_id"]) for row in rows]
