"""Keeping X numbers within their budgets: what is over is reported or frozen, and let go once it is within again."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from broker.domain.budget import over
from broker.store import budgets
from broker.store.budgets import Standing
from broker.store.database import Database

log = structlog.get_logger()


async def judge(db: Database, found: Iterable[Standing]) -> None:
    """Do what is to be done about each X; nothing where it stands as it should.

    Raises:
        DatabaseAway: nothing may have been done.
    """
    for one in found:
        now = over(one.budget, one.use, one.over)
        frozen = one.closed_by == "budget"
        if now == one.over and frozen == bool(now and one.freezes and (frozen or one.is_open)):
            continue
        if await budgets.keep(db, one, now):
            log.warning("number_budget", pool=one.x[0], x_id=one.x[1], over=[why.value for why in now])
