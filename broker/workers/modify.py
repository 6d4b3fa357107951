"""Carries a modify out: the line becomes what was asked for, stays as it was, or turns out to be gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

import structlog

from broker.clock import boottime
from broker.crashpoints import crashpoint
from broker.domain.change import LineChange
from broker.domain.drift import Kind
from broker.flows.calls import Changed, Failed, PlatformCall
from broker.platform.protocol import Answer, PlatformLine, Verdict
from broker.store import changes, drift
from broker.store.calls import CallKey, Ended
from broker.store.database import Database
from broker.workers.dating import date_back
from broker.workers.lane import LaneShut
from broker.workers.replace import Lost, Replacer
from broker.workers.sender import NotOurs, Sender, short

log = structlog.get_logger()

#: Answers that say that nothing was changed, and the stable reason that the order system sees.
_REFUSALS: Final = {
    Verdict.CONFLICT: "party_barred",
    Verdict.BAD_REQUEST: "platform_rejected_request",
    Verdict.APP_SUSPENDED: "app_suspended",
    Verdict.CONFIGURATION: "platform_refused",
    Verdict.CAPACITY: "platform_refused",
    Verdict.PARTY_LIMIT: "party_limit",
    Verdict.NUMBER_REFUSED: "platform_refused",
}
#: What an operator can put right: a renewal waits for that instead of giving up.
_OPERATORS: Final = frozenset({Verdict.CONFIGURATION, Verdict.APP_SUSPENDED, Verdict.BAD_DIGEST})


class _Gone(Exception):
    """The platform does not hold the line any more."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


class Modifier:
    """The story of a modify.

    The request names values, not steps, so sending it again does no harm; but one that was sent without an answer may
    still arrive late and undo a change that came after it. So after an unknown attempt the call is settled only when
    none can come any more and the platform has been asked what holds.
    """

    def __init__(
        self,
        db: Database,
        sender: Sender,
        *,
        rest_s: Callable[[int], float],
        replaces: Callable[[PlatformCall, LineChange], bool],
        end: Callable[[Ended], Awaitable[datetime | None]],
        rebinds: Callable[[int], bool] = lambda _app_id: False,
    ) -> None:
        """``rest_s(app_id)`` is the quarantine of a replaced party; ``end`` settles the end of a line.

        ``replaces(call, change)``: the platform takes it only as an unbind and a bind. ``rebinds(app_id)``: a line that
        the platform has lost is bound anew; else its bindings fail.
        """
        self._db = db
        self._sender = sender
        self._timing = sender.timing
        self._rest_s = rest_s
        self._replaces = replaces
        self._replacer = Replacer(sender)
        self._end = end
        self._rebinds = rebinds

    async def carry_out(self, call: PlatformCall) -> PlatformCall | None:
        """Make the change, or find out that it cannot be made; return the unbind that is to be sent next, if any.

        Raises:
            NotOurs: somebody else owns the call.
            DatabaseAway: it is left to whoever takes it over.
        """
        change = call.change or LineChange()
        try:
            if change.anew or self._replaces(call, change):
                return await self._replace(call, change)
            return await self._change(call, change)
        except _Gone as gone:
            if self._rebinds(call.app_id) and not call.unwanted:
                return await self._bind_anew(call, gone.answer)
            await self._gone(call, gone.answer)
        except Lost as lost:
            await self._gone(call, lost.answer)
        return None

    async def _replace(self, call: PlatformCall, change: LineChange) -> PlatformCall | None:
        if call.unwanted and not call.maybe_sent:
            return await self._settle(call, Answer(Verdict.NOT_SENT), done=None)
        answer, made, gap_ms = await self._replacer.carry_out(call, change)
        call.subscription_id = made.subscription_id
        return await self._settle(
            call, answer, done=answer.verdict is Verdict.DONE, anew=True, gap_ms=gap_ms, late=gap_ms is None
        )

    async def _change(self, call: PlatformCall, change: LineChange) -> PlatformCall | None:
        backoff = self._timing.first_backoff_s
        skew_fixed = False
        while not call.unwanted:
            try:
                answer = await self._sender.modify(call, change)
            except LaneShut as shut:
                answer = Answer(Verdict.CONFIGURATION, code=shut.reason)
            if answer.verdict is Verdict.CLOCK_SKEW and answer.date_skew_s is not None and not skew_fixed:
                skew_fixed = True  # the sender has corrected the clock: sign and send once more
                continue
            match answer.verdict:
                case Verdict.DONE:
                    late = call.maybe_sent
                    if not late or await self._holds(call, change):
                        return await self._settle(call, answer, done=True, late=late)
                case Verdict.NOT_FOUND:
                    raise _Gone(answer)
                case verdict if verdict in _OPERATORS and change.renewal:
                    log.error("renewal_refused", line=str(call.line_id), http=answer.http, code=answer.code)
                    await self._sender.back_off(call, answer, self._timing.operator_backoff_s)
                case verdict if verdict in _REFUSALS:
                    done = call.maybe_sent and await self._holds(call, change)
                    return await self._settle(call, answer, done=done, late=done)
                case _:
                    backoff = await self._try_again(call, answer, backoff)
        # Released meanwhile. Whatever holds now ends with the unbind, and nothing that comes late finds the line.
        return await self._settle(call, Answer(Verdict.UNKNOWN if call.maybe_sent else Verdict.NOT_SENT), done=None)

    async def _try_again(self, call: PlatformCall, answer: Answer, backoff: float) -> float:
        if answer.verdict is Verdict.WITHHELD:
            await self._sender.extend(call)
            return backoff
        if answer.verdict is Verdict.UNKNOWN:
            call.maybe_sent = True
            call.last_unknown_at = boottime()
        return await self._sender.back_off(call, answer, backoff)

    async def _holds(self, call: PlatformCall, change: LineChange) -> bool:
        """Tell whether the change holds, once no attempt can come late any more; False too when it is released."""
        while (wait := call.last_unknown_at + self._timing.absence_s - boottime()) > 0 and not call.unwanted:
            await self._sender.pause(call, min(wait, self._timing.longest_backoff_s))
        backoff = self._timing.first_backoff_s
        while not call.unwanted:
            try:
                answer = await self._sender.lookup(call)
            except LaneShut:
                answer = Answer(Verdict.CONFIGURATION)
            match answer.verdict:
                case Verdict.DONE:
                    call.maybe_sent = False
                    return any(_fits(found, call, change) for found in answer.bindings)
                case Verdict.NOT_FOUND:
                    raise _Gone(answer)
                case Verdict.WITHHELD:
                    await self._sender.extend(call)
                case verdict if verdict in _OPERATORS:
                    await self._sender.back_off(call, answer, self._timing.operator_backoff_s)
                case _:
                    backoff = await self._sender.back_off(call, answer, backoff)
        return False

    async def _settle(
        self, call: PlatformCall, answer: Answer, *, done: bool | None, anew: bool = False, gap_ms: int | None = None,
        late: bool = False,
    ) -> PlatformCall | None:  # fmt: skip
        """Write down what became of it; ``late``: it was found at the platform, and may have held for long."""
        crashpoint("before_settle")
        if done is False and call.unwanted:
            done = None
        reason = _REFUSALS.get(answer.verdict, "platform_refused") if done is False else None
        item = changes.Changed(
            call.key, call.attempt, done, reason, rest_s=self._rest_s(call.app_id),
            bar_s=self._timing.conflict_bar_s if answer.verdict is Verdict.CONFLICT else 0.0,
            outcome=answer.verdict.value, http=answer.http, code=short(answer.code),
            subscription_id=call.subscription_id if anew else None, gap_ms=gap_ms,
        )  # fmt: skip
        asked_at = boottime()
        line_state = await self._sender.persist(lambda: changes.settle(self._db, item, lease_s=self._timing.lease_s))
        if line_state is None:
            raise NotOurs
        if late and line_state == "active":
            await date_back(self._db, self._sender, call)
        if reason is not None:
            log.warning("change_failed", reason=reason, http=answer.http, code=item.code)
        call.settle(Changed() if done else Failed(reason or "released", answer.detail, answer.http, item.code))
        if line_state != "releasing":
            return None
        return unbind_after(call, call.subscription_id or "", lease_until=asked_at + self._timing.lease_s)

    async def _bind_anew(self, call: PlatformCall, answer: Answer) -> PlatformCall | None:
        """The change is refused; what the line was goes to the platform again, under a call of its own.

        Should this process die between the two, the audit finds the line missing.
        """
        log.error("line_lost", line=str(call.line_id), http=answer.http, code=answer.code)
        following = await self._settle(call, answer, done=False)
        if following is None:
            await drift.repair(
                self._db, call.pool_id, call.line_id, call.subscription_id or "", [Kind.ABSENT_THERE.value]
            )
        return following

    async def _gone(self, call: PlatformCall, answer: Answer) -> None:
        ended = Ended(
            call.key, call.attempt, "failed", "platform_lost", self._rest_s(call.app_id), answer.verdict.value,
            answer.http, short(answer.code),
        )  # fmt: skip
        if await self._sender.persist(lambda: self._end(ended)) is None:
            raise NotOurs
        log.error("line_lost", line=str(call.line_id), http=answer.http, code=answer.code)
        call.settle(Failed("platform_lost", answer.detail, answer.http, short(answer.code)))


def unbind_after(call: PlatformCall, subscription_id: str, *, lease_until: float) -> PlatformCall:
    """Return the unbind that was committed with the settling of ``call``."""
    return replace(
        call,
        key=CallKey(call.pool_id, call.line_id, call.key.no + 1, 1),
        op="unbind",
        change=None,
        subscription_id=subscription_id,
        lease_until=lease_until,
        attempt=0,
        maybe_sent=False,
        lost=False,
        unwanted=False,
        # Who waits for a change has been told; who waits for a bind hears of its release.
        done=None if call.op == "modify" else call.done,
    )


def _fits(found: PlatformLine, call: PlatformCall, change: LineChange) -> bool:
    """Tell whether what the platform reports is this change: by our mark, or by all it shows if it echoes none."""
    if found.token:
        return found.token.startswith(call.mark + ".")
    return (
        (change.a is None or found.a == change.a.reveal())
        and (change.b is None or found.b == change.b.reveal())
        and (change.direction is None or found.direction is None or found.direction.value == change.direction)
        and (change.ttl_s is None or found.ttl_s == change.ttl_s)
        and change.options is None
        and change.callback is None
        and not change.no_callback
        and change.callee is None
    )
