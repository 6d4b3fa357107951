"""Makes the last caller of a line its temporary callee, where the app wants A to call back by dialling X."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog

from broker.clock import boottime
from broker.domain.change import Callee, LineChange
from broker.domain.phone import PhoneNumber, is_e164
from broker.errors import Conflict, Problem, Unavailable
from broker.flows.change import Changer, Plan, Stale, Wait
from broker.store import call_back
from broker.store.bindings import Binding
from broker.store.call_back import CallBack
from broker.store.crypto import Vault
from broker.store.database import Database, DatabaseAway

log = structlog.get_logger()

_SLICE = 50
#: Whoever took one and died, or met another change of the line, is followed so soon.
_LEASE_S = 3.0
_WITHIN_S = 2.0
#: What passes by itself: it is tried again while the caller is to be reached.
_PASSING = frozenset({"change_in_progress", "overloaded", "not_active"})


class CallBacks:
    """One slice at a time, on any instance."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        changer: Changer,
        show: Callable[[tuple[int, UUID]], Awaitable[Binding | None]],
    ) -> None:
        """``show`` reads a binding by (pool id, id)."""
        self._db = db
        self._vault = vault
        self._changer = changer
        self._show = show

    async def look(self) -> bool:
        """Set those that are due. True: there may be more."""
        taken = await call_back.take(self._db, limit=_SLICE, lease_s=_LEASE_S)
        for one in taken:
            if await self._set(one):
                await call_back.done(self._db, one)
        return len(taken) == _SLICE

    async def _set(self, one: CallBack) -> bool:
        """Return whether nothing is left to be done about it."""
        if one.left_s < 1:
            return True
        binding = await self._show((one.pool_id, one.binding_id))
        if binding is None or binding.state not in {"pending", "active"}:
            return True
        caller = self._vault.open("call", "caller", 0, one.call_id, one.caller_sealed)
        if binding.b is not None or not is_e164(caller) or PhoneNumber(caller) == binding.a:
            return True
        # Asked after the binding was read: who sets a later caller from here on makes what was read stale.
        if not await call_back.hold(self._db, one, lease_s=_LEASE_S):
            return True
        callee = Callee(PhoneNumber(caller), one.left_s)
        try:
            await self._changer.change(
                binding, Plan(line=LineChange(callee=callee)), Wait(boottime() + _WITHIN_S, wait=False)
            )
        except (Stale, DatabaseAway, Unavailable):
            return False
        except Conflict as conflict:
            return conflict.code not in _PASSING
        except Problem as problem:
            log.warning("call_back_refused", code=problem.code)
            return True
        return True
