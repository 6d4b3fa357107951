"""Clearing an X: every binding on it is released by itself, the way an order system releases it.

The platform's unbind by X alone would also end what we do not know of; it is never used. Here releases are committed;
the platform calls that they leave behind are taken over by a running instance.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import UUID

from broker.clock import boottime
from broker.domain.ids import public_id
from broker.errors import FieldError, Invalid
from broker.flows.operate.desk import Desk, Shown, app_id
from broker.store.bindings import ReleaseAsk, release
from broker.store.statements import statements

_REASON = "cleared"
_LOOK_S = 0.5
_LONG_S = 60.0
_LIVE = frozenset({"pending", "active"})
_OVER = frozenset({"released", "failed"})

#: Told how many of how many bindings have ended.
Progress = Callable[[int, int], None]


async def clear(desk: Desk, app: str, number: str, *, wait_s: float, told: Progress) -> list[Shown]:
    """Release every binding that is on the number now, and return how far each is after at most ``wait_s``.

    Repeating it is harmless. What is bound meanwhile stays: freeze the number first.

    Raises:
        NotFound: there is no such app.
        Invalid: the number is not of this app.
    """
    owner = await app_id(desk, app)
    sql = statements("operate")
    if await desk.db.fetchrow(sql["standing"], owner, number, timeout_s=_LONG_S) is None:
        wrong = FieldError("/number", "is not a number of this app")
        raise Invalid("Nothing was cleared; see errors.", errors=(wrong,))
    found = await desk.db.fetch(sql["bindings_on_number"], owner, number, timeout_s=_LONG_S)
    states = {(row["pool_id"], row["id"]): str(row["state"]) for row in found}
    deadline = boottime() + wait_s
    while True:
        for (pool_id, binding_id), state in states.items():
            if state in _LIVE:
                # The lease has ended before it began: whoever looks for calls without an owner sends this one.
                await release(desk.db, [ReleaseAsk(pool_id, binding_id, owner)], reason=_REASON, lease_s=0.0)
        states = await _states(desk, list(states))
        over = sum(state in _OVER for state in states.values())
        told(over, len(states))
        left_s = deadline - boottime()
        if over == len(states) or left_s <= 0:
            return [{"id": public_id(*key), "state": state} for key, state in states.items()]
        await asyncio.sleep(min(_LOOK_S, left_s))


def ended(bindings: list[Shown]) -> bool:
    """Tell whether all of them are over."""
    return all(binding["state"] in _OVER for binding in bindings)


async def _states(desk: Desk, keys: list[tuple[int, UUID]]) -> dict[tuple[int, UUID], str]:
    rows = await desk.db.fetch(
        statements("operate")["binding_states"], [pool for pool, _ in keys], [row for _, row in keys], timeout_s=_LONG_S
    )
    return {(row["pool_id"], row["id"]): row["state"] for row in rows}
