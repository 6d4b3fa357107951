"""Complaints about X numbers, as operators hear of them."""

from __future__ import annotations

from broker.errors import FieldError, Invalid
from broker.flows import budgets as rules
from broker.flows.operate import numbers
from broker.flows.operate.desk import Desk, Shown, app_id
from broker.flows.operate.fields import Complaint
from broker.store import budgets


async def report(desk: Desk, app: str, wanted: Complaint) -> list[Shown]:
    """Enter a complaint; if the number is over its budget by that, what its app wants of it is done at once.

    Raises:
        NotFound: there is no such app.
        Invalid: it is no number of the app.
    """
    owner = await app_id(desk, app)
    if not await budgets.complain(desk.db, owner, wanted.number, wanted.reason):
        wrong = FieldError("/number", "is not a number of this app")
        raise Invalid("Nothing was entered; see errors.", errors=(wrong,))
    await rules.judge(desk.db, await budgets.standings(desk.db, limit=1, number=wanted.number))
    return await numbers.listed(desk, owner, [wanted.number])
