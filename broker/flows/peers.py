"""Peers of a binding whose X the platform picked: a B asks for its Y, gives it back, or is found to have one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import structlog

from broker.clock import boottime
from broker.crashpoints import crashpoint
from broker.domain.phone import PhoneNumber
from broker.errors import Conflict, PlatformRefused, PoolExhausted, Problem
from broker.flows.asking import Asks
from broker.flows.bind import check_lane, problem_of, settled
from broker.flows.calls import Dispatch, Failed, PlatformCall
from broker.flows.inwork import aside
from broker.platform.protocol import Answer, Permit, Platform, Verdict
from broker.store import peers
from broker.store.bindings import Binding
from broker.store.calls import CallKey
from broker.store.crypto import Vault
from broker.store.database import Database, DatabaseAway
from broker.store.peers import Added, Peer
from broker.store.registry import App

log = structlog.get_logger()

#: How often a peer is read that another call of its line, or another process, is to settle.
_LOOK_S = 0.1
#: The platform has this long, at most, to name peers of its own making.
_ASK_S = 5.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A Y for ``b``; ``ttl_s`` 0 = as long as the binding. ``tone`` plays when Y is dialled. None: the binding's."""

    b: PhoneNumber
    ttl_s: int | None = None
    tone: str | None = None


class Listed(NamedTuple):
    """The peers; ``complete``: the platform was asked for those of its own making."""

    peers: list[Peer]
    complete: bool


class Peers:
    """What order systems do with peers."""

    def __init__(self, db: Database, vault: Vault, dispatch: Dispatch, asks: Asks, *, lease_s: float) -> None:
        """``dispatch`` carries calls out, ``asks`` looks things up."""
        self._db = db
        self._vault = vault
        self._dispatch = dispatch
        self._asks = asks
        self._lease_s = lease_s

    async def add(
        self, app: App, binding: Binding, wanted: Wanted, *, deadline: float, wait: bool
    ) -> tuple[Peer, bool]:
        """Give B a Y and return it as it is at the deadline (boottime), and whether it is a new one.

        A B that has a live peer keeps that one, whatever lifetime is asked for now.

        Raises:
            Conflict: the binding has ended, or cannot have one more at this moment; nothing was made.
            Problem: the platform refused.
        """
        check_lane(app, self._dispatch)
        asked_at = boottime()
        options = binding.options
        added = await peers.add(
            self._db, self._vault, (binding.pool_id, binding.id), app_id=app.id, b=wanted.b,
            ttl_s=(options.peer_ttl_s or 0) if wanted.ttl_s is None else wanted.ttl_s,
            tone=wanted.tone or options.caller_tone, lease_s=self._lease_s,
        )  # fmt: skip
        if added.id is None or added.outcome not in {"made", "there"}:
            raise _refusal(added)
        crashpoint("after_commit")
        if added.no is not None:
            call = _call(
                binding, "bind_peer", added.no, added.subscription_id,
                lease_until=asked_at + self._lease_s, urgency=deadline,
            )  # fmt: skip
            await self._carry_out(call, deadline=deadline, wait=wait)
        found = await self._once_settled((binding.pool_id, added.id), deadline=deadline, wait=wait)
        if found.b != wanted.b:
            # Found by its key, which another phone may share; that one's Y is nothing to tell.
            raise Conflict("Another B of this binding stands in the way.", code="peer_limit")
        return found, added.outcome == "made"

    async def drop(self, binding: Binding, peer: Peer, *, deadline: float, wait: bool) -> Peer:
        """Take B's Y away and return the peer as it is at the deadline (boottime); one that has ended stays so."""
        asked_at = boottime()
        dropping = await peers.drop(self._db, peer, lease_s=self._lease_s)
        if dropping is not None:
            call = _call(
                binding, "unbind_peer", dropping.no, dropping.subscription_id,
                lease_until=asked_at + self._lease_s, urgency=deadline,
            )  # fmt: skip
            await self._carry_out(call, deadline=deadline, wait=wait)
        return await self._once_settled((peer.pool_id, peer.id), deadline=deadline, wait=wait)

    async def all_of(self, binding: Binding, *, deadline: float) -> Listed:
        """Return the peers of a binding, with those that the platform has made by itself, if it can be asked now."""
        complete = await self._find(binding, deadline=min(deadline, boottime() + _ASK_S))
        return Listed(await peers.of_binding(self._db, self._vault, (binding.pool_id, binding.id)), complete)

    async def one(self, key: tuple[int, UUID]) -> Peer | None:
        """Return a peer by (pool id, id)."""
        return await peers.one(self._db, self._vault, key)

    # -- parts -----------------------------------------------------------------------------------------------------

    async def _find(self, binding: Binding, *, deadline: float) -> bool:
        """Enter the peers that the platform has made by itself; False = it was not asked, or did not say."""
        subscription_id = binding.subscription_id
        if binding.state != "active" or subscription_id is None:
            return binding.state in {"released", "failed"}

        def send(platform: Platform, permit: Permit, timeout_s: float) -> Awaitable[Answer]:
            return platform.lookup(subscription_id, permit=permit, timeout_s=timeout_s)

        with aside():
            answer = await self._asks.ask(binding.app_id, send, deadline=deadline, caller_id=binding.caller_id)
        if answer.verdict is not Verdict.DONE:
            return False
        found = {one.b: one.y for one in answer.bindings if one.y and one.b}
        if found:
            new = await peers.note(
                self._db, self._vault, (binding.pool_id, binding.id), app_id=binding.app_id, found=list(found.items())
            )
            if new:
                log.info("peers_found", pool=binding.pool_id, peers=new)
        return True

    async def _carry_out(self, call: PlatformCall, *, deadline: float, wait: bool) -> None:
        if wait and not self._dispatch.leaving:
            call.done = asyncio.get_running_loop().create_future()
        self._dispatch.start(call)
        outcome = await settled(call.done, deadline=deadline)
        if isinstance(outcome, Failed):
            raise _failure(outcome)

    async def _once_settled(self, key: tuple[int, UUID], *, deadline: float, wait: bool) -> Peer:
        while True:
            found = await self.one(key)
            if found is None:
                raise DatabaseAway("a row that was written is not there")
            settling = found.state in {"pending", "releasing"}
            if not settling or not wait or boottime() >= deadline or self._dispatch.leaving:
                return found
            with aside():
                await asyncio.sleep(min(_LOOK_S, max(deadline - boottime(), 0.0)))


def _call(
    binding: Binding, op: str, no: int, subscription_id: str | None, *, lease_until: float, urgency: float
) -> PlatformCall:
    return PlatformCall(
        key=CallKey(binding.pool_id, binding.line_id, no, 1),
        op=op,
        app_id=binding.app_id,
        caller_id=binding.caller_id,
        x_id=binding.x_id,
        x=binding.x or "",
        extension=binding.extension,
        a=binding.a,
        b=None,
        a_key=binding.a_key,
        b_key=None,
        direction=binding.direction,
        ttl_s=0,
        options=binding.options,
        lease_until=lease_until,
        urgency=urgency,
        subscription_id=subscription_id,
    )


def _refusal(added: Added) -> Conflict:
    match added.outcome:
        case "over":
            return Conflict("The binding has ended, or is about to.", code="binding_ended")
        case "limit":
            return Conflict(f"A binding has {peers.MOST_PEERS} peers at most.", code="peer_limit")
        case _:
            return Conflict(
                "The binding is being bound, or this B's last peer is being taken away, at this moment.",
                code="change_in_progress",
                retry_after_s=1,
            )


def _failure(failed: Failed) -> Problem:
    """Return what an order system is told about a peer that was not made."""
    platform = {key: value for key, value in (("platform_code", failed.code), ("platform_http", failed.http)) if value}
    match failed.reason:
        case "binding_ended":
            return Conflict("The binding has ended.", code="binding_ended", extra=platform)
        case "pool_exhausted":
            return PoolExhausted("The platform has no Y for this peer now.", extra=platform)
        case "platform_refused":
            return PlatformRefused(failed.detail or "The platform refused the peer.", extra=platform)
        case _:
            return problem_of(failed)
