"""Notifications that were kept and had no effect: what could not be read, and what a defect of ours stopped."""

from __future__ import annotations

from uuid import UUID

from broker.flows.operate.desk import Desk, Shown, app_id, shown
from broker.flows.operate.fields import NoticeFilter
from broker.store.statements import statements

_SLICE = 1000
_STATES = ["new", "unreadable", "stuck"]


async def every(desk: Desk, app: str, wanted: NoticeFilter) -> list[Shown]:
    """Return what is kept of an app, newest first; without a state: all that has no effects yet.

    Raises:
        NotFound: there is no such app.
    """
    await app_id(desk, app)
    states = [wanted.state] if wanted.state is not None else _STATES
    return shown(await desk.db.fetch(statements("inbox")["list"], app, states, wanted.limit))


async def replay(desk: Desk, app: str, notice: UUID | None) -> Shown:
    """Have a running instance take up again what was set aside, or one of it; no effect ever comes twice.

    Raises:
        NotFound: there is no such app.
    """
    await app_id(desk, app)
    again = 0
    # What was set aside before now: what cannot be read even so comes back while this goes on.
    (row,) = await desk.db.fetch(statements("inbox")["left"], app)
    while again < row["number"]:
        rows = await desk.db.fetch(statements("inbox")["replay"], app, notice, min(_SLICE, row["number"] - again))
        if not rows:
            break
        again += len(rows)
    return {"app": app, "replayed": again}
