"""Asking for the bindings of numbers to move to others, and how far that has come."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import orjson

from broker.errors import Conflict, FieldError, Invalid
from broker.flows.operate.desk import Desk, Shown, app_id
from broker.store.statements import statements

_LONG_S = 60.0


async def check(desk: Desk, owner: int) -> None:
    """Refuse where the broker cannot say which X a binding gets.

    Raises:
        Conflict: the platform picks the X of this app's mode.
    """
    row = await desk.db.fetchrow(statements("drift")["mode_of"], owner)
    if row is not None and row["mode"] == "axyb":
        raise Conflict(
            "Nothing was changed: in mode axyb the platform picks the X, so bindings cannot be moved off one. Freeze "
            "it without evacuating; they end by their own time, or are ended with `broker numbers clear`."
        )


async def begin(desk: Desk, owner: int, numbers: Sequence[str], reason: str | None) -> None:
    """Have the bindings of closed numbers move; any instance does it. Those that move already go on."""
    await desk.db.fetch(statements("evacuation")["begin"], owner, list(numbers), reason, timeout_s=_LONG_S)


async def progress(desk: Desk, app: str, number: str | None = None) -> list[Shown]:
    """Return how far the newest evacuation of a number has come; without a number, every one that is open.

    Raises:
        NotFound: there is no such app.
        Invalid: the number is not of this app, or was never evacuated.
    """
    owner = await app_id(desk, app)
    rows = await desk.db.fetch(statements("evacuation")["progress"], owner, number, timeout_s=_LONG_S)
    if number is not None and not rows:
        wrong = FieldError("/number", "is not a number of this app that was ever evacuated")
        raise Invalid("There is nothing to show; see errors.", errors=(wrong,))
    return [_shown(row) for row in rows]


def over(evacuations: Sequence[Shown]) -> bool:
    """Tell whether none of them is under way any more."""
    return all(one["state"] != "open" for one in evacuations)


def _shown(row: asyncpg.Record) -> Shown:
    return dict(row) | {"waiting_for": orjson.loads(row["waiting_for"])}
