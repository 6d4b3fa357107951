"""Change a binding: what is its own at once, what is its line's by a modify at the platform, or by another X."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

from broker.clock import boottime
from broker.crashpoints import crashpoint
from broker.domain.change import Callee, LineChange
from broker.domain.ids import new_id
from broker.domain.modes import MODES, Allocation, Mode
from broker.domain.options import CallOptions, modifiable
from broker.errors import Conflict, PlatformRefused, PoolExhausted, Problem
from broker.flows.allocate import Allocator
from broker.flows.bind import check_gate, check_lane, problem_of, settled
from broker.flows.calls import Dispatch, Failed, PlatformCall
from broker.flows.order import BindOrder
from broker.store import changes
from broker.store.allocation import LockMode, histories
from broker.store.bindings import Binding
from broker.store.calls import CallKey
from broker.store.changes import Begun, Move, OwnChange
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.registry import Pool, Registry

#: Shortest life of a temporary callee (contract 3.5), and how far the platform's clock may be behind the answer.
_SHORTEST_CALLEE_S = 1
_CLOCKS_DIFFER_S = 0.2
#: How often an X that others were quicker to take is chosen anew.
_CHOICES = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to become of a binding, told for the binding as it was read; ``line`` None = nothing of its line.

    ``mates``: other bindings of a shared line for which its parties may change, too.
    """

    own: OwnChange = field(default_factory=OwnChange)
    line: LineChange | None = None
    rebind: bool = False
    mates: frozenset[UUID] = frozenset()


@dataclass(frozen=True, slots=True)
class Wait:
    """Until when (boottime) an answer is awaited, and whether at all."""

    deadline: float
    wait: bool = True


class Stale(Exception):
    """The binding is another one than was read: read it again and plan anew."""


class Changer:
    """Carries plans out."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        registry: Callable[[], Registry],
        allocator: Allocator,
        dispatch: Dispatch,
        show: Callable[[tuple[int, UUID]], Awaitable[Binding | None]],
        *,
        lease_s: float,
    ) -> None:
        """``show`` reads a binding by (pool id, id)."""
        self._db = db
        self._vault = vault
        self._registry = registry
        self._allocator = allocator
        self._dispatch = dispatch
        self._show = show
        self._lease_s = lease_s

    async def change(self, binding: Binding, plan: Plan, until: Wait) -> Binding:
        """Change ``binding`` and return it as it is once the platform agreed, or at the deadline.

        Raises:
            Stale: somebody else has changed it since it was read.
            Conflict: it cannot be changed (now, or so); nothing was.
            Problem: the platform refused; nothing was changed of the line.
        """
        mode = MODES[self._registry().apps[binding.app_id].mode]
        plan = self._as_the_mode_takes_it(binding, plan, mode)
        if plan.line is not None and plan.line.a is not None:
            binding = await self._without_callee(binding, until)
        options = plan.line.options if plan.line is not None else None
        if options is not None and mode.hint_tone_fixed and not modifiable(binding.options, options):
            if plan.rebind:
                return await self._move(binding, plan, until)
            raise Conflict("The hint tone of a bound line cannot be changed.", code="not_modifiable")
        asked_at = boottime()
        begun = await self._begin(binding, plan, until, most_x=mode.x_per_party)
        match begun.outcome:
            case "changed":
                return await self._read(binding)
            case "begun":
                try:
                    return await self._modify(binding, plan, begun, until, lease_until=asked_at + self._lease_s)
                except Conflict as refused:
                    if refused.code != "party_barred" or not plan.rebind:
                        raise
                # The platform knew better than we did. What is the binding's own has been changed with the begin.
                return await self._move(await self._read(binding), replace(plan, own=OwnChange()), until)
            case "shared" | "barred" if plan.rebind:
                return await self._move(binding, plan, until)
            case outcome:
                raise _refusal(outcome)

    def _as_the_mode_takes_it(self, binding: Binding, plan: Plan, mode: Mode) -> Plan:
        if mode.allocation is Allocation.PLATFORM and (plan.line is not None or "ttl_s" in plan.own.given):
            raise Conflict("The platform cannot change bindings of this mode.", code="not_modifiable")
        if binding.b is None and plan.rebind:
            plan = replace(plan, rebind=False)  # no other X would do better for one party
        if plan.line is None:
            return plan
        check_lane(self._registry().apps[binding.app_id], self._dispatch)
        if binding.state != "active":
            # What was read before the confirmation does not name the subscription.
            raise _refusal("changing")
        if plan.line.a is not None and "a" in mode.rebinds:
            # Bound anew, it lives from then on: as long as the binding has left.
            plan = replace(plan, line=replace(plan.line, ttl_s=mode.platform_ttl(_ttl_left(binding, plan))))
        return plan

    async def _without_callee(self, binding: Binding, until: Wait) -> Binding:
        """End the temporary callee: the platform would keep it, and the new A reach a stranger."""
        if binding.callee is None or binding.callee_until is None or binding.callee_until <= binding.as_of:
            return binding
        if binding.callee_until > binding.as_of + timedelta(seconds=_SHORTEST_CALLEE_S):
            soon = LineChange(callee=Callee(binding.callee, _SHORTEST_CALLEE_S))
            binding = await self.change(binding, Plan(line=soon), until)
        if binding.pending is not None or binding.callee_until is None:
            raise _refusal("changing")
        await asyncio.sleep((binding.callee_until - binding.as_of).total_seconds() + _CLOCKS_DIFFER_S)
        return binding

    async def barred(self, binding: Binding, party_key: int, kept_key: int | None) -> bool:
        """Tell whether the party may not have the binding's X now, beside the one that stays."""
        if binding.x_id is None or kept_key is None:
            return False
        party = binding.pool_id, party_key
        views = await histories(self._db, [party])
        return bool(views[party].barred(kept_key) >> binding.x_id & 1)

    # -- by a modify -----------------------------------------------------------------------------------------------

    async def _begin(self, binding: Binding, plan: Plan, until: Wait, *, most_x: int | None) -> Begun:
        while True:
            begun = await changes.begin(
                self._db, self._vault, binding, plan.own, plan.line, mates=plan.mates, mode=LockMode.TRY,
                lease_s=self._lease_s, most_x=most_x,
            )  # fmt: skip
            if begun.outcome != "busy" or boottime() >= until.deadline:
                return begun
            await asyncio.sleep(random.uniform(0.002, 0.02))  # noqa: S311 - jitter

    async def _modify(self, binding: Binding, plan: Plan, begun: Begun, until: Wait, *, lease_until: float) -> Binding:
        crashpoint("after_commit")
        change = plan.line or LineChange()
        if begun.renewal_s is not None:
            change = replace(change, ttl_s=begun.renewal_s)
        call = PlatformCall(
            key=CallKey(binding.pool_id, binding.line_id, begun.no or 0, 1),
            op="modify",
            app_id=binding.app_id,
            caller_id=binding.caller_id,
            x_id=binding.x_id,
            x=binding.x or "",
            extension=binding.extension,
            callback=binding.callback,
            a=binding.a,
            b=binding.b,
            a_key=binding.a_key,
            b_key=binding.b_key,
            direction=binding.direction,
            ttl_s=binding.ttl_s,
            options=binding.options.flipped() if binding.flipped else binding.options,
            change=change.flipped() if binding.flipped else change,
            lease_until=lease_until,
            urgency=until.deadline,
            subscription_id=binding.subscription_id,
        )
        if until.wait and not self._dispatch.leaving:
            call.done = asyncio.get_running_loop().create_future()
        self._dispatch.start(call)
        outcome = await settled(call.done, deadline=until.deadline)
        if isinstance(outcome, Failed):
            raise _failure(outcome)
        return await self._read(binding)

    # -- by another X ----------------------------------------------------------------------------------------------

    async def _move(self, binding: Binding, plan: Plan, until: Wait) -> Binding:
        registry = self._registry()
        pool, app = registry.pools[binding.pool_id], registry.apps[binding.app_id]
        check_gate(app)
        order = _order(binding, plan, pool, self._vault)
        avoid = 1 << binding.x_id if binding.x_id is not None else 0
        for _ in range(_CHOICES):
            choice = await self._allocator.pick(order, avoid=avoid)
            if choice is None:
                break
            to = Move(
                x_id=choice.x, cap=app.cap, line_id=new_id(), a=order.a, b=order.other, direction=order.direction,
                options=order.options.to_text(), joinable=binding.joinable, line_ttl_s=order.line_ttl_s,
                chosen=choice.why,
            )  # fmt: skip
            asked_at = boottime()
            outcome = await changes.move(
                self._db, self._vault, binding, plan.own, to, mode=LockMode.TRY, lease_s=self._lease_s
            )
            match outcome:
                case "won":
                    return await self._rebind(binding, order, to, until, lease_until=asked_at + self._lease_s)
                case "busy" | "barred":
                    await asyncio.sleep(random.uniform(0.002, 0.02))  # noqa: S311 - jitter
                case "full" | "closed":
                    avoid |= 1 << choice.x
                case refused:
                    raise _refusal(refused)
        raise PoolExhausted("No other X number may be given to this pair now.", extra={"pools": [pool.name]})

    async def _rebind(
        self, binding: Binding, order: BindOrder, to: Move, until: Wait, *, lease_until: float
    ) -> Binding:
        """Bind the new X; the binding goes there with the confirmation, and keeps the old one if there is none."""
        bind = PlatformCall(
            key=CallKey(binding.pool_id, to.line_id, 1, 1),
            op="bind",
            app_id=binding.app_id,
            caller_id=binding.caller_id,
            x_id=to.x_id,
            x=order.pools[0].numbers[to.x_id],
            a=order.a,
            b=order.b,
            a_key=order.a_key,
            b_key=order.b_key,
            direction=order.direction,
            ttl_s=order.line_ttl_s,
            options=order.options,
            lease_until=lease_until,
            urgency=until.deadline,
        )
        if until.wait and not self._dispatch.leaving:
            bind.done = asyncio.get_running_loop().create_future()
        self._dispatch.start(bind)
        outcome = await settled(bind.done, deadline=until.deadline)
        if isinstance(outcome, Failed):
            raise problem_of(outcome)
        return await self._read(binding)

    async def _read(self, binding: Binding) -> Binding:
        return await self._show((binding.pool_id, binding.id)) or binding


def _order(binding: Binding, plan: Plan, pool: Pool, vault: Vault) -> BindOrder:
    """Return the order that a binding with its change would be."""
    change = plan.line or LineChange()
    a_key = vault.party_key(change.a.reveal()) if change.a is not None else binding.a_key
    b_key = vault.party_key(change.b.reveal()) if change.b is not None else binding.b_key
    options: CallOptions = binding.options if change.options is None else change.options
    return BindOrder(
        app=pool.app,
        caller_id=binding.caller_id,
        a=change.a or binding.a,
        b=change.b or binding.b,
        a_key=a_key,
        b_key=b_key,
        pools=(pool,),
        ttl_s=_ttl_left(binding, plan),
        direction=change.direction or binding.direction,
        policy=pool.app.policy,
        options=options,
    )


def _ttl_left(binding: Binding, plan: Plan) -> int:
    """Return how long the binding lasts from now on, in seconds; 0 = without end."""
    if "ttl_s" in plan.own.given:
        return plan.own.ttl_s or 0
    if binding.expires_at is None:
        return 0
    return max(math.ceil((binding.expires_at - binding.as_of).total_seconds()), 1)


def _refusal(outcome: str) -> Exception:
    match outcome:
        case "stale":
            return Stale()
        case "shared":
            return Conflict("Other orders of this pair share the line.", code="line_shared")
        case "barred":
            return Conflict("The new party may not have this X number now.", code="party_barred")
        case "limit":
            return Conflict("The new A has as many X numbers as it may have.", code="party_limit")
        case "over":
            return Conflict("The binding has ended, or is about to.", code="binding_ended")
        case _:
            return Conflict(
                "The binding is being bound or changed at this moment.", code="change_in_progress", retry_after_s=1
            )


def _failure(failed: Failed) -> Problem:
    """Return what an order system is told about a change that was not made."""
    platform = {key: value for key, value in (("platform_code", failed.code), ("platform_http", failed.http)) if value}
    match failed.reason:
        case "party_barred":
            return Conflict(
                "The platform says that the new party has this X already.", code="party_barred", extra=platform
            )
        case "platform_lost" | "released":
            return Conflict("The binding has ended.", code="binding_ended", extra=platform)
        case "platform_refused":
            return PlatformRefused(failed.detail or "The platform refused the change.", extra=platform)
        case _:
            return problem_of(failed)
