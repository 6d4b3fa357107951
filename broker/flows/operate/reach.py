"""Who is reached through an X number of any app."""

from __future__ import annotations

from broker.errors import NotFound
from broker.flows.operate.desk import Desk, Shown
from broker.flows.operate.fields import ReachAsk
from broker.flows.reach import Books, Question, tell
from broker.store.reach import spot_of


async def show(desk: Desk, asked: ReachAsk, *, reveal_to: str | None = None) -> Shown:
    """Return whom the caller reaches, or why nobody. ``reveal_to``: who sees the number in clear; noted first.

    Raises:
        NotFound: there is no such X.
    """
    spot = await spot_of(desk.db, asked.x)
    if spot is None:
        raise NotFound("There is no such X number.", code="number_not_found")
    question = Question(spot, asked.caller, asked.digits, asked.at)
    return await tell(Books(desk.db, desk.vault), question, reveal_to=reveal_to)
