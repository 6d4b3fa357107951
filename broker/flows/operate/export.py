"""Everything that the platform told of an app in a time, a slice after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

from broker.flows.operate.desk import Desk, Shown, app_id
from broker.flows.operate.fields import ExportFilter
from broker.flows.shown import Opened
from broker.store import told
from broker.store.told import BEGINNING, END, NEWEST, Sought, Table

#: Rows of one look into the database.
_SLICE = 1000


async def everything(
    desk: Desk, app: str, table: Table, asked: ExportFilter, *, reveal_to: str | None = None
) -> AsyncIterator[list[Shown]]:
    """Yield slices of rows as they are shown, newest first. ``reveal_to``: who sees numbers in clear; noted first.

    Raises:
        NotFound: there is no such app.
    """
    owner, before = await app_id(desk, app), NEWEST
    bindings = None if asked.order_id is None else await told.bindings_of_order(desk.db, owner, asked.order_id)
    while True:
        sought = Sought(
            owner, _SLICE, before, asked.since or BEGINNING, asked.until or END, bindings=bindings, x=asked.x
        )
        rows = await told.page(desk.db, table, sought)
        if reveal_to is not None and rows:
            await told.audit(desk.db, reveal_to, owner, table, rows)
        yield [Opened(table, row, desk.vault, may_see=reveal_to is not None).shape() for row in rows]
        if len(rows) < _SLICE:
            return
        before = datetime.fromisoformat(rows[-1]["at"]), UUID(rows[-1]["id"])
