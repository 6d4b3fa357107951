"""Carries platform calls out: one story per operation, readable top to bottom.

What cannot be decided here is left to the lease: another instance takes the call over and finds out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import structlog

from broker.clock import boottime
from broker.crashpoints import crashpoint
from broker.domain.change import LineChange
from broker.flows.allocate import Allocator
from broker.flows.allocators import Allocators
from broker.flows.batching import Batcher
from broker.flows.bind import let_go
from broker.flows.calls import Active, Failed, PlatformCall, Released
from broker.flows.number_status import heed_refusal
from broker.platform.protocol import Answer, PlatformLine, Verdict
from broker.store import calls as store
from broker.store.calls import Bound, BoundResult, Ended, Extension
from broker.store.crypto import Vault
from broker.store.database import Database, DatabaseAway
from broker.workers.dating import date_back
from broker.workers.failing import crashed
from broker.workers.lane import LaneShut
from broker.workers.modify import Modifier, unbind_after
from broker.workers.peers import PeerCaller
from broker.workers.pick import Picker
from broker.workers.sender import CallDead, NotOurs, Sender, short

log = structlog.get_logger()

#: Answers that end a bind for good, and the stable reason that the order system sees.
_REFUSALS: Mapping[Verdict, str] = {
    Verdict.BAD_REQUEST: "platform_rejected_request",
    Verdict.PARTY_LIMIT: "party_limit",
    Verdict.APP_SUSPENDED: "app_suspended",
    Verdict.CONFIGURATION: "platform_refused",
    Verdict.NOT_FOUND: "platform_refused",
    Verdict.CLOCK_SKEW: "platform_refused",
}
#: So many binds of an X get no answer while others of the app do, then another X is chosen.
_MOST_UNKNOWNS: Final = 5


@dataclass(slots=True)
class _Doubt:
    """Binds of an X that got no answer; ``bound``: how many of the app had been confirmed before."""

    bound: int
    unknowns: int = 0


class Dispatcher:
    """Owns the platform calls of this process."""

    def __init__(
        self,
        db: Database,
        sender: Sender,
        allocator: Allocator | Allocators,
        *,
        vault: Vault,
        rest_s: Callable[[int], float],
        replaces: Callable[[PlatformCall, LineChange], bool] = lambda _call, _change: False,
        rebinds: Callable[[int], bool] = lambda _app_id: False,
        full: Callable[[PlatformCall], None] = lambda _call: None,
    ) -> None:
        """``vault`` opens who a peer is; ``rest_s(app_id)`` is the quarantine after a release.

        ``replaces(call, change)``: the platform takes the change only as an unbind and a bind.
        ``rebinds(app_id)``: what the platform has lost is bound anew.
        ``full(call)`` is told of a bind for which the platform had no X.
        """
        self._db = db
        self._sender = sender
        self._timing = sender.timing
        self._allocator = allocator
        self._rest_s = rest_s
        self._running: dict[PlatformCall, asyncio.Task[None]] = {}
        self.leaving = False
        self.outcomes: Counter[str] = Counter()
        self.released = 0
        #: Numbers that the platform picked, by whose they were (see take_in_number in the schema).
        self.picked: Counter[str] = Counter()
        self._bound: Batcher[Bound, BoundResult | None] = Batcher(
            "settle_bound", lambda items: store.settle_bound(db, items, lease_s=sender.timing.lease_s)
        )
        self._ended: Batcher[Ended, datetime | None] = Batcher(
            "settle_ended", lambda items: store.settle_ended(db, items)
        )
        self._modifier = Modifier(db, sender, rest_s=rest_s, replaces=replaces, end=self._ended.submit, rebinds=rebinds)
        self._picker = Picker(
            db, sender, undo=self._undo, end=self._ended.submit, picked_numbers=self.picked, full=full
        )
        self._peers = PeerCaller(db, vault, sender, picked_numbers=self.picked)

    # -- what others ask for ---------------------------------------------------------------------------------------

    @property
    def running(self) -> int:
        """How many calls this process has in hand."""
        return len(self._running)

    def batch_sizes(self) -> Mapping[str, tuple[int, int]]:
        """Return (batches, items) of the settling statements."""
        return {
            "settle_bound": (self._bound.batches, self._bound.items),
            "settle_ended": (self._ended.batches, self._ended.items),
        }

    def start(self, call: PlatformCall) -> None:
        """Carry ``call`` out in a task of its own."""
        task = asyncio.create_task(self._carry_out(call), name=f"{call.op} call")
        self._running[call] = task
        task.add_done_callback(lambda _: self._running.pop(call, None))

    def backlog_s(self, app_id: int, caller_id: int = 0) -> float:
        """Return how long the caller's bind would wait for its turn; infinite when the app's lane is shut."""
        return self._sender.backlog_s(app_id, caller_id)

    async def keep_leases(self) -> None:
        """Renew the leases that end soon of calls still in hand (queued or waiting)."""
        await self._sender.keep(list(self._running))

    def let_go(self) -> None:
        """Keep nobody waiting any longer: requests are answered 202, their calls go on."""
        self.leaving = True
        for call in self._running:
            if call.done is not None:
                let_go(call.done)

    async def drain(self, grace_s: float) -> None:
        """Finish what is being sent; give the rest back so that another instance takes it at once."""
        crashpoint("mid_drain")
        if self._running:
            await asyncio.wait(list(self._running.values()), timeout=grace_s)
        left = [call for call in self._running if not call.lost]
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if left:
            try:
                await store.extend(self._db, [Extension(c.key, c.attempt, 0.0) for c in left])
            except DatabaseAway:
                log.warning("calls_left_to_rescue", calls=len(left))
            else:
                log.info("calls_handed_over", calls=len(left))
        await self._sender.close()

    # -- the story of a call ---------------------------------------------------------------------------------------

    async def _carry_out(self, call: PlatformCall) -> None:
        try:
            following = await self._story(call)
            if following is not None:
                self.start(following)
        except LaneShut as shut:
            log.warning("call_left_to_rescue", op=call.op, line=str(call.line_id), reason=shut.reason)
        except NotOurs:
            log.info("call_lost", op=call.op, line=str(call.line_id))
        except DatabaseAway:
            # The lease runs out and whoever reaches the database first takes over.
            log.warning("call_left_to_rescue", op=call.op, line=str(call.line_id))
        except CallDead:
            self._buried(call)
        except Exception as error:
            log.exception("call_broken", op=call.op, line=str(call.line_id))
            await self._crashed(call, error)

    def _buried(self, call: PlatformCall) -> None:
        log.error("call_dead", op=call.op, line=str(call.line_id), no=call.key.no)
        if call.done is not None:
            let_go(call.done)

    async def _crashed(self, call: PlatformCall, error: Exception) -> None:
        try:
            if await crashed(self._db, call.key, call.asked or call.op, error, pause_s=self._timing.lease_s) == "dead":
                self._buried(call)
        except DatabaseAway:
            log.warning("call_left_to_rescue", op=call.op, line=str(call.line_id))

    async def _story(self, call: PlatformCall) -> PlatformCall | None:
        """Carry it out by its operation; return what is to be sent next, if anything."""
        match call.op:
            case "bind" if not call.x:
                return await self._picker.carry_out(call)
            case "bind":
                await self._bind(call)
            case "unbind":
                await self._unbind(call)
            case "modify":
                return await self._modifier.carry_out(call)
            case "bind_peer" | "unbind_peer":
                return await self._peers.carry_out(call)
            case other:  # pragma: no cover - the table admits no other
                log.error("call_unknown_op", op=other)
        return None

    async def _bind(self, call: PlatformCall) -> None:
        backoff = self._timing.first_backoff_s
        skew_fixed = False
        doubt = _Doubt(self._sender.failing.bound(call.app_id))
        while True:
            if call.maybe_sent and (found := await self._find_ours(call)) is not None:
                await self._adopt(call, found, late=True)
                return
            if call.unwanted:
                # Nobody is behind X: who asked for the release need not wait until it is proven for ever.
                if not await store.end_unbound(self._db, call.key):
                    raise NotOurs
                await self._fail(call, Failed("withdrawn"), Answer(Verdict.NOT_FOUND))
                return
            try:
                answer = await self._sender.bind(call)
            except LaneShut as shut:
                answer = Answer(Verdict.CONFIGURATION, code=shut.reason)
            if answer.verdict is Verdict.CLOCK_SKEW and answer.date_skew_s is not None and not skew_fixed:
                skew_fixed = True  # the sender has corrected the clock: sign and send once more
                continue
            if await self._decided(call, answer):
                return
            if answer.verdict is Verdict.WITHHELD:
                await self._sender.extend(call)
                continue
            if answer.verdict is Verdict.UNKNOWN and await self._given_up(call, answer, doubt):
                return
            backoff = await self._sender.back_off(call, answer, backoff)

    async def _given_up(self, call: PlatformCall, answer: Answer, doubt: _Doubt) -> bool:
        """Note a bind that got no answer; if others get theirs it is this X, and another one is chosen in the end."""
        call.maybe_sent, call.last_unknown_at = True, boottime()
        doubt.unknowns += 1
        if doubt.unknowns < _MOST_UNKNOWNS or self._sender.failing.bound(call.app_id) == doubt.bound:
            return False
        found = await self._when_certain(call)
        if found is not None:
            await self._adopt(call, found, late=True)
        else:
            await self._choose_again(call, answer)
        return True

    async def _decided(self, call: PlatformCall, answer: Answer) -> bool:
        """Act on an answer to a bind that decides something; False = try again later."""
        match answer.verdict:
            case Verdict.DONE:
                await self._confirmed(call, answer)
            case Verdict.CONFLICT:
                await self._conflict(call, answer)
            case Verdict.CAPACITY:
                await self._choose_again(call, answer)
            case Verdict.NUMBER_REFUSED:
                await self._refused(call, answer)
                await self._choose_again(call, answer)
            case verdict if verdict in _REFUSALS:
                await self._fail(call, Failed(_REFUSALS[verdict], answer.detail), answer)
            case _:
                return False
        return True

    async def _unbind(self, call: PlatformCall) -> None:
        backoff = self._timing.first_backoff_s
        while True:
            try:
                answer = await self._sender.unbind(call, call.subscription_id or "")
            except LaneShut:
                answer = Answer(Verdict.CONFIGURATION)
            match answer.verdict:
                case Verdict.DONE | Verdict.NOT_FOUND:
                    await self._released(call, answer)
                    return
                case Verdict.WITHHELD:
                    await self._sender.extend(call)
                case Verdict.UNKNOWN | Verdict.NOT_SENT | Verdict.FLOW_CONTROL | Verdict.CLOCK_SKEW:
                    backoff = await self._sender.back_off(call, answer, backoff)
                case _:
                    # An operator must act. The number stays held: somebody may still be reachable through it.
                    log.error("unbind_refused", line=str(call.line_id), http=answer.http, code=answer.code)
                    await self._sender.back_off(call, answer, self._timing.operator_backoff_s)

    # -- outcomes --------------------------------------------------------------------------------------------------

    async def _confirmed(self, call: PlatformCall, answer: Answer) -> None:
        binding = answer.bindings[0]
        if binding.x != call.x or binding.extension not in {"", self._sender.extension(call)}:
            # The platform bound another number, or extension, than we asked for: never hand that out.
            log.error("bind_mismatch", line=str(call.line_id))
            await self._undo(call, binding.subscription_id)
            await self._choose_again(call, replace(answer, code="x_mismatch"))
            return
        await self._adopt(call, binding)

    async def _adopt(self, call: PlatformCall, binding: PlatformLine, *, late: bool = False) -> None:
        """Settle what the platform holds; ``late``: it was found there, and may have been there for long."""
        crashpoint("before_settle")
        asked_at = boottime()
        # Of a first bind that did nothing but succeed its line says everything.
        plain = not late and call.key.no == call.key.token == 1 and call.attempt <= 1
        item = Bound(call.key, call.attempt, binding.subscription_id, plain)
        result = await self._sender.persist(lambda: self._bound.submit(item))
        if result is None:
            raise NotOurs
        if result.line_state == "active":
            self.outcomes["active"] += 1
            if late:
                await date_back(self._db, self._sender, call)
            call.settle(Active(call.x, binding.subscription_id, result.confirmed_at))
            return
        # Released while it was being bound: its unbind is already committed, and ours to send.
        self.start(unbind_after(call, binding.subscription_id, lease_until=asked_at + self._timing.lease_s))

    async def _conflict(self, call: PlatformCall, answer: Answer) -> None:
        found = await self._find_ours(call)
        if found is not None:
            await self._adopt(call, found, late=True)
            return
        # The platform knows a binding that we do not: somebody may be reachable there now. Leave that X alone.
        log.error("bind_conflict", pool=call.pool_id, x_id=call.x_id, code=answer.code)
        await self._choose_again(call, answer, bar_s=self._timing.conflict_bar_s)

    async def _refused(self, call: PlatformCall, answer: Answer) -> None:
        """Take in what a refusal says of the X itself; nothing of the call hangs on it."""
        if call.x_id is not None and answer.code is not None:
            with contextlib.suppress(DatabaseAway):
                await heed_refusal(self._db, answer.code, (call.pool_id, call.x_id), (call.a_key, call.b_key))

    async def _choose_again(self, call: PlatformCall, answer: Answer, bar_s: float = 60.0) -> None:
        if call.maybe_sent:
            was_there = await self._make_sure_absent(call)
            bar_s = max(bar_s, self._timing.absence_s, self._rest_s(call.app_id) if was_there else 0.0)
        outcome = answer.verdict.value
        chosen = await self._allocator.rechoose(
            call, outcome=outcome, http=answer.http, code=short(answer.code), bar_s=bar_s
        )
        match chosen:
            case "superseded":
                raise NotOurs
            case "released":
                self.outcomes["released"] += 1
                call.settle(Failed("released"))
            case "exhausted":
                await self._fail(call, Failed("pool_exhausted"), answer, rest_s=bar_s)
            case str():  # pragma: no cover - rechoose names no other
                raise NotOurs
            case _:
                self.outcomes["chosen_again"] += 1
                chosen.lost = False
                self.start(chosen)

    async def _fail(self, call: PlatformCall, failed: Failed, answer: Answer, *, rest_s: float = 0.0) -> None:
        if call.maybe_sent and await self._make_sure_absent(call):
            rest_s = max(rest_s, self._rest_s(call.app_id))
        code = short(answer.code)
        ended = Ended(call.key, call.attempt, "failed", failed.reason, rest_s, answer.verdict.value, answer.http, code)
        if await self._sender.persist(lambda: self._ended.submit(ended)) is None:
            raise NotOurs
        log.warning("bind_failed", reason=failed.reason, http=answer.http, code=code)
        self.outcomes[failed.reason] += 1
        call.settle(replace(failed, http=answer.http, code=code))

    async def _released(self, call: PlatformCall, answer: Answer) -> None:
        crashpoint("before_settle")
        ended = Ended(
            call.key, call.attempt, "released", "released", self._rest_s(call.app_id), answer.verdict.value,
            answer.http, short(answer.code),
        )  # fmt: skip
        at = await self._sender.persist(lambda: self._ended.submit(ended))
        if at is None:
            raise NotOurs
        if call.x_id is not None:
            self._allocator.heat_note(call.pool_id, call.x_id)
        self.released += 1
        call.settle(Released(at))

    async def _make_sure_absent(self, call: PlatformCall) -> bool:
        """Before an X is given up after an unknown bind: nothing of ours may be there, nor come late; True = it was."""
        found = await self._when_certain(call)
        if found is not None:
            await self._undo(call, found.subscription_id)
        return found is not None

    async def _when_certain(self, call: PlatformCall) -> PlatformLine | None:
        """Return what is there of ours, once nothing can come late any more."""
        while (wait := call.last_unknown_at + self._timing.absence_s - boottime()) > 0:
            await self._sender.pause(call, min(wait, self._timing.longest_backoff_s))
        return await self._find_ours(call)

    async def _undo(self, call: PlatformCall, subscription_id: str) -> None:
        backoff = self._timing.first_backoff_s
        while True:
            try:
                answer = await self._sender.unbind(call, subscription_id)
            except LaneShut:
                answer = Answer(Verdict.CONFIGURATION)
            match answer.verdict:
                case Verdict.DONE | Verdict.NOT_FOUND:
                    return
                case Verdict.WITHHELD:
                    await self._sender.extend(call)
                case Verdict.CONFIGURATION | Verdict.BAD_DIGEST | Verdict.APP_SUSPENDED:
                    await self._sender.back_off(call, answer, self._timing.operator_backoff_s)
                case _:
                    backoff = await self._sender.back_off(call, answer, backoff)

    async def _find_ours(self, call: PlatformCall) -> PlatformLine | None:
        """Ask the platform whether any attempt of this line is there, with the very parties it was asked for."""
        backoff = self._timing.first_backoff_s
        while True:
            try:
                answer = await self._sender.query(call)
            except LaneShut:
                answer = Answer(Verdict.CONFIGURATION)
            match answer.verdict:
                case Verdict.NOT_FOUND:
                    return None
                case Verdict.DONE:
                    return next((found for found in answer.bindings if _is_ours(found, call)), None)
                case Verdict.WITHHELD:
                    await self._sender.extend(call)
                case Verdict.CONFIGURATION | Verdict.BAD_DIGEST | Verdict.APP_SUSPENDED:
                    await self._sender.back_off(call, answer, self._timing.operator_backoff_s)
                case _:
                    backoff = await self._sender.back_off(call, answer, backoff)


def _is_ours(found: PlatformLine, call: PlatformCall) -> bool:
    """Tell whether a platform's binding is some attempt of this call's line, for the very parties asked for."""
    mark, _, _ = found.token.partition(".")
    b = call.b.reveal() if call.b is not None else ""
    return mark == call.line_id.hex and found.x == call.x and found.a == call.a.reveal() and found.b == b
