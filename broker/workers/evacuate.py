"""Evacuation: the bindings of an X move to others, the new line bound before the old one is let go of.

One process at a time works on an X, for as long as its lease lasts; all there is to know is in the database, so any
other one goes on where it ended. The most urgent first: an order is called about soonest after it was bound, so the
lines with the youngest orders go first. Their binds leave in a lane of their own, behind those of new orders.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog

from broker.clock import boottime
from broker.crashpoints import crashpoint
from broker.domain.ids import new_id
from broker.flows.allocators import Allocators
from broker.flows.calls import Dispatch, PlatformCall
from broker.flows.order import BindOrder
from broker.store import bindings
from broker.store import evacuation as store
from broker.store.allocation import LockMode
from broker.store.bindings import Binding
from broker.store.calls import CallKey
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.evacuation import Begun, Due, Evacuation, NewLine
from broker.store.registry import Registry

log = structlog.get_logger()

LEASE_S = 10.0
#: Lines of one X that move at a time: those whose binds wait hold an X each.
IN_FLIGHT = 32
#: How often an X that others were quicker to take is chosen anew.
_CHOICES = 16
#: A line that is being changed can be moved a moment later.
_CHANGING_S = 2.0
#: Why a line waits, by what its claim came to.
_WAITS = {
    "exhausted": "pool_exhausted", "closed": "pool_exhausted", "full": "pool_exhausted", "barred": "busy",
    "taken": "extension_taken", "limit": "party_limit",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Times:
    """In seconds: ``overlap_s`` between the move and the unbind of the old line, ``retry_s`` until another try."""

    lease_s: float
    overlap_s: float
    retry_s: float


class Evacuator:
    """Works on the open evacuations of all apps."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        registry: Callable[[], Registry],
        allocators: Allocators,
        dispatch: Dispatch,
        *,
        times: Times,
    ) -> None:
        """``registry()`` returns the newest configuration."""
        self._db = db
        self._vault = vault
        self._registry = registry
        self._allocators = allocators
        self._dispatch = dispatch
        self._times = times
        self._owner = new_id()
        #: Lines begun to move, or that had to wait, by what their claims came to.
        self.outcomes: Counter[str] = Counter()

    async def look(self) -> None:
        """Do a slice of every evacuation that is this process's."""
        if self._dispatch.leaving:
            return
        for one in await store.take(self._db, self._owner, lease_s=LEASE_S):
            if one.app_id in self._registry().apps:
                await self._slice(one)

    async def _slice(self, one: Evacuation) -> None:
        state, moving = await store.tend(self._db, one, retry_s=self._times.retry_s)
        if state != "open":
            if state != "stopping":
                log.info("evacuation_ended", pool=one.pool_id, x_id=one.x_id, state=state)
            return
        room = IN_FLIGHT - moving
        app = self._registry().apps[one.app_id]
        if room <= 0 or app.suspended is not None or app.gated:
            return
        due = await store.lines(self._db, one, limit=room)
        keys = [(one.pool_id, line.binding_id) for line in due]
        shown = await bindings.show(self._db, self._vault, keys) if keys else {}
        for line in due:
            binding = shown.get((one.pool_id, line.binding_id))
            # Somebody has moved it since: it is looked for again.
            if binding is not None and binding.line_id == line.line_id:
                await self._move(one, line, binding)

    async def _move(self, one: Evacuation, line: Due, binding: Binding) -> None:
        """Reserve another X for the line and have its bind sent; or write down why not."""
        asked_at = boottime()
        to, begun = await self._claim(one, line, binding)
        self.outcomes[begun.outcome] += 1
        if begun.outcome != "won":
            if begun.outcome != "over":
                reason = _WAITS.get(begun.outcome, begun.outcome)
                wait_s = _CHANGING_S if reason in {"changing", "busy"} else self._times.retry_s
                await store.waits(self._db, one, line.line_id, reason, retry_s=wait_s)
            return
        crashpoint("in_evacuation")
        self._dispatch.start(
            PlatformCall(
                key=CallKey(one.pool_id, to.id, 1, 1),
                op="bind",
                app_id=one.app_id,
                caller_id=binding.caller_id,
                x_id=begun.x_id,
                x=begun.number,
                extension=begun.extension,
                a=to.a,
                b=to.b,
                a_key=self._vault.party_key(to.a.reveal()),
                b_key=self._vault.party_key(to.b.reveal()) if to.b is not None else None,
                callback=to.callback,
                direction=binding.direction,
                ttl_s=begun.ttl_s,
                options=binding.options.flipped() if binding.flipped else binding.options,
                lease_until=asked_at + self._times.lease_s,
                # The youngest first here, too.
                urgency=boottime() + (binding.as_of - binding.created_at).total_seconds(),
                moves=True,
            )
        )

    async def _claim(self, one: Evacuation, line: Due, binding: Binding) -> tuple[NewLine, Begun]:
        order = self._order(binding)
        pool = order.pools[0]
        avoid = 1 << one.x_id
        to = NewLine(
            pool_id=one.pool_id, old=line.line_id, id=new_id(), a=order.a, b=order.b, callback=binding.callback,
            x_id=None, cap=order.app.cap, prefix=None, most=order.mode.x_per_party, chosen="evacuated",
            overlap_s=self._times.overlap_s,
        )  # fmt: skip
        begun = Begun("exhausted")
        for _ in range(_CHOICES):
            if order.b is not None:
                choice = await self._allocators.pairs.pick(order, avoid=avoid)
                if choice is None:
                    return to, Begun("exhausted")
                to = replace(to, x_id=choice.x)
            else:
                to = replace(to, prefix=self._allocators.places.prefix(pool))
            begun = await store.begin(self._db, self._vault, to, mode=LockMode.TRY, lease_s=self._times.lease_s)
            match begun.outcome:
                case "busy" | "barred":
                    await asyncio.sleep(random.uniform(0.002, 0.02))  # noqa: S311 - jitter
                case "full" | "closed" if to.x_id is not None:
                    avoid |= 1 << to.x_id
                case _:
                    break
        return to, begun

    def _order(self, binding: Binding) -> BindOrder:
        """Return the order that the binding's line would be, in the line's own roles."""
        registry = self._registry()
        pool = registry.pools[binding.pool_id]
        a, b, a_key, b_key = binding.a, binding.b, binding.a_key, binding.b_key
        if binding.flipped and b is not None and b_key is not None:
            a, b, a_key, b_key = b, a, b_key, a_key
        return BindOrder(
            app=pool.app, caller_id=binding.caller_id, a=a, b=b, a_key=a_key, b_key=b_key, pools=(pool,),
            ttl_s=binding.ttl_s, direction=binding.direction, policy=pool.app.policy, options=binding.options,
            callback=binding.callback,
        )  # fmt: skip
