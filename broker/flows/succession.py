"""Give an order's binding a successor in a sibling app: the new one first, then the end of the old one.

What is wanted is written down before the new binding is claimed, so that the old one ends whoever dies in between, and
stands if nothing comes of the new one. Every instance looks after what has been left (:meth:`Successions.look_after`).
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from uuid import UUID

from broker.clock import boottime
from broker.crashpoints import crashpoint
from broker.domain.ids import new_id
from broker.errors import Conflict, Problem
from broker.flows.allocators import Claims
from broker.flows.bind import Accepted, bind
from broker.flows.calls import Dispatch
from broker.flows.order import BindOrder
from broker.store import successions as store
from broker.store.bindings import Binding
from broker.store.database import Database, DatabaseAway
from broker.store.registry import Key, Registry
from broker.store.successions import Succession

#: A claim is committed, or never will be, so long after its request's deadline.
_GRACE_S = 10.0
_SLICE = 200


class Successions:
    """Carries out what replaces a binding by one of another app."""

    def __init__(self, db: Database, allocator: Claims, dispatch: Dispatch, *, lease_s: float) -> None:
        """Take the parts that bind."""
        self._db = db
        self._allocator = allocator
        self._dispatch = dispatch
        self._lease_s = lease_s

    async def made(self, old: tuple[int, UUID], key_hash: bytes) -> tuple[int, UUID] | None:
        """Return the binding (pool id, id) that an earlier try of the same request made."""
        return await store.made(self._db, old, key_hash)

    async def replace(
        self, old: Binding, order: BindOrder, *, key_hash: bytes | None, deadline: float, wait: bool
    ) -> Accepted:
        """Bind ``order`` and end ``old`` once that is active; at the deadline (boottime) both may still stand.

        Raises:
            Conflict: another binding is about to replace it, or it has ended.
            Problem: nothing was accepted; the old binding stands.
        """
        item = Succession(
            old_pool=old.pool_id, old_id=old.id, old_app=old.app_id, new_id=new_id(),
            pools=tuple(pool.id for pool in order.pools), key_hash=key_hash,
            within_s=max(deadline - boottime(), 0.0) + _GRACE_S,
        )  # fmt: skip
        match await store.begin(self._db, item):
            case "busy":
                raise Conflict("Another binding is about to replace it.", code="change_in_progress", retry_after_s=1)
            case "over":
                raise Conflict("The binding has ended, or is about to.", code="binding_ended")
        crashpoint("after_intent")
        try:
            accepted = await bind(
                replace(order, binding_id=item.new_id), self._allocator, self._dispatch,
                lease_s=self._lease_s, deadline=deadline, wait=wait,
            )  # fmt: skip
        except Problem:
            with contextlib.suppress(DatabaseAway):
                await store.forget(self._db, item)
            raise
        if accepted.outcome is not None:
            crashpoint("after_outcome")
            with contextlib.suppress(DatabaseAway):  # it will be looked after
                await store.settle(self._db, limit=1, old_id=old.id)
        return accepted

    async def look_after(self) -> bool:
        """Settle what has been decided since; True: there may be more."""
        settled = await store.settle(self._db, limit=_SLICE)
        if not settled:
            await store.sweep(self._db, limit=_SLICE)
        return settled >= _SLICE


def sibling(registry: Registry, key: Key, name: str) -> Key | None:
    """Return the caller's key in another app of the same owner; None = there is none, or it binds not there."""
    owner = key.app.owner
    if owner is None:
        return None
    return next(
        (
            other
            for other in registry.keys.values()
            if other.app.name == name
            and other.app.owner == owner
            and other.caller == key.caller
            and "bind" in other.scopes
        ),
        None,
    )
