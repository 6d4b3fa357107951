"""Taking in what the platform says of numbers and of apps: by a status that it pushes, or in answer to a call."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Final

import structlog

from broker.domain.number_status import (
    ACCOUNT_FROZEN,
    BLACKLISTED,
    MOST_CHARACTERS,
    NOT_OURS,
    Standing,
    Status,
    standing,
)
from broker.store import number_status as store
from broker.store.database import Database

log = structlog.get_logger()

#: How often a decision is made anew because another status came meanwhile.
_TRIES = 8
_STATUS: Final = "status"
_OPEN: Final = "open"


class Applied(Enum):
    """What a status brought about."""

    UNKNOWN_NUMBER = "unknown_number"  # it is no number of this app
    UNCHANGED = "unchanged"  # as it stood, or somebody else has closed it: kept and shown only
    CHANGED = "changed"  # it was closed, opened, or closed for another reason


async def apply_number_status(
    db: Database, app_id: int, number: str, status: str, cause: str, created: datetime
) -> Applied:
    """Take in one entry of a ``numStatus`` push (contract 6.7), as it stands there; again and in any order is harmless.

    ``created`` is the Created of the push's signature, with a time zone; ``cause`` is empty where there was none. What
    follows is decided on all statuses of the number (:func:`broker.domain.number_status.standing`), unless an operator
    or a result code has closed it. A number that refuses calls is evacuated, whoever closed it. The event
    ``number.status`` is emitted.

    Raises:
        DatabaseAway: it may have been kept or not: apply it again.
    """
    one = Status(created, status[:MOST_CHARACTERS], cause[:MOST_CHARACTERS])
    x = await store.note(db, app_id, number, one)
    if x is None:
        return Applied.UNKNOWN_NUMBER
    told = {"status": one.status, "cause": one.cause, "at": created.isoformat()}
    known, changed = await store.known(db, x), False
    for _ in range(_TRIES):
        stands = standing(known.statuses, since=known.opened_at)
        changed |= await store.turn(db, x, stands, by=_STATUS, told=told, count=known.count)
        decided, known = known.count, await store.known(db, x)
        if known.count == decided:
            break
    if stands.evacuate and known.state != _OPEN and await store.evacuate(db, x, stands.reason):
        log.warning("evacuation_begun", pool=x[0], x_id=x[1], reason=stands.reason)
    if changed:
        log.warning("number_turned", pool=x[0], x_id=x[1], state=stands.state, reason=stands.reason)
    return Applied.CHANGED if changed else Applied.UNCHANGED


async def heed_refusal(db: Database, code: str, x: tuple[int, int], parties: tuple[int, int | None]) -> None:
    """Close the X that a bind was refused for, if the result code says that it is the X; only an operator opens it.

    ``parties``: the keys of A and B. Of a blacklisted number the code does not say whether it is the X or a party: it
    is the X once pairs without a common party were refused on it, and on no other.

    Raises:
        DatabaseAway: nothing may have been done.
    """
    if code in NOT_OURS:
        to = Standing("suspended", f"result code {code}: it is not a number of this app")
    elif code == BLACKLISTED and await store.note_blacklisted(db, x, *parties):
        to = Standing("frozen", f"result code {code}: it is on the platform's blacklist")
    else:
        return
    if await store.turn(db, x, to, by="code", told={"code": code}):
        log.error("number_turned", pool=x[0], x_id=x[1], state=to.state, reason=to.reason)


async def heed_account(db: Database, code: str | None, app_id: int) -> None:
    """Suspend an app whose account the platform has frozen; only an operator opens it.

    Raises:
        DatabaseAway: nothing may have been done.
    """
    if code == ACCOUNT_FROZEN:
        name = await store.suspend_app(db, app_id, f"result code {code}: the account is frozen, usually for arrears")
        if name is not None:
            log.error("app_suspended", app=name, code=code)
