"""Carries out a bind whose X the platform picks: send once, enter what it picked, and if nobody knows, search.

The request names no X, so sent twice it would bind two of them. One that may have arrived is therefore never sent
again, whoever has the call: it is looked for among the numbers on which our books have nobody, and what is not found
is given up. Such a line has an end at the platform, so what may be there after all does not stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from typing import Final

import structlog

from broker.clock import boottime
from broker.crashpoints import crashpoint
from broker.flows.calls import Active, Failed, PlatformCall
from broker.platform.protocol import Answer, PlatformLine, Verdict
from broker.store import picked
from broker.store.calls import Ended
from broker.store.database import Database
from broker.store.picked import Picked
from broker.workers.dating import date_back
from broker.workers.lane import LaneShut
from broker.workers.modify import unbind_after
from broker.workers.sender import NotOurs, Sender, short

log = structlog.get_logger()

#: Answers that end such a bind for good, and the stable reason that the order system sees.
_REFUSALS: Final = {
    Verdict.BAD_REQUEST: "platform_rejected_request",
    Verdict.PARTY_LIMIT: "party_limit",
    Verdict.CAPACITY: "pool_exhausted",
    Verdict.APP_SUSPENDED: "app_suspended",
    Verdict.CONFIGURATION: "platform_refused",
    Verdict.CONFLICT: "platform_refused",
    Verdict.NUMBER_REFUSED: "platform_refused",
    Verdict.NOT_FOUND: "platform_refused",
}
#: What stops queries until an operator acts.
_OPERATORS: Final = frozenset({Verdict.CONFIGURATION, Verdict.APP_SUSPENDED, Verdict.BAD_DIGEST})
#: A query that says nothing.
_AGAIN: Final = frozenset(
    {Verdict.UNKNOWN, Verdict.NOT_SENT, Verdict.FLOW_CONTROL, Verdict.CLOCK_SKEW, Verdict.SOURCE_BLOCKED}
)
#: Numbers that one search asks about, at most.
MOST_QUERIES: Final = 500


class Picker:
    """The story of a bind without an X."""

    def __init__(
        self,
        db: Database,
        sender: Sender,
        *,
        undo: Callable[[PlatformCall, str], Awaitable[None]],
        end: Callable[[Ended], Awaitable[datetime | None]],
        picked_numbers: Counter[str],
        full: Callable[[PlatformCall], None],
    ) -> None:
        """``undo`` unbinds a subscription, ``end`` settles the end of a line, ``picked_numbers`` counts by owner.

        ``full`` is told the binds for which the platform had no X.
        """
        self._db = db
        self._sender = sender
        self._timing = sender.timing
        self._undo = undo
        self._end = end
        self._picked = picked_numbers
        self._full = full

    async def carry_out(self, call: PlatformCall) -> PlatformCall | None:
        """Bind, or find out what became of it; return the unbind that is to be sent next, if any.

        Raises:
            NotOurs: somebody else owns the call.
            DatabaseAway: it is left to whoever takes it over.
        """
        answer = Answer(Verdict.UNKNOWN) if call.maybe_sent else await self._send(call)
        match answer.verdict:
            case Verdict.DONE:
                return await self._enter(call, answer, answer.bindings[0])
            case Verdict.UNKNOWN:
                found = await self._search(call)
                if found is not None:
                    return await self._enter(call, answer, found, late=True)
                reason = "outcome_unknown"
            case Verdict.WITHHELD:
                reason = "withdrawn"
            case verdict:
                reason = _REFUSALS.get(verdict, "platform_refused")
                if verdict is Verdict.CAPACITY:
                    self._full(call)
        await self._fail(call, Failed(reason, answer.detail), answer)
        return None

    async def _send(self, call: PlatformCall) -> Answer:
        """Send the bind until it may have arrived or was refused; withheld if nobody wants it any more."""
        backoff = self._timing.first_backoff_s
        skew_fixed = False
        while not call.unwanted:
            try:
                answer = await self._sender.bind(call)
            except LaneShut as shut:
                return Answer(Verdict.CONFIGURATION, code=shut.reason)
            match answer.verdict:
                case Verdict.WITHHELD:
                    await self._sender.extend(call)
                case Verdict.CLOCK_SKEW if answer.date_skew_s is not None and not skew_fixed:
                    skew_fixed = True  # the sender has corrected the clock: sign and send once more
                case Verdict.NOT_SENT | Verdict.FLOW_CONTROL | Verdict.SOURCE_BLOCKED | Verdict.BAD_DIGEST:
                    backoff = await self._sender.back_off(call, answer, backoff)
                case _:
                    call.maybe_sent = answer.verdict is Verdict.UNKNOWN
                    call.last_unknown_at = boottime()
                    return answer
        return Answer(Verdict.WITHHELD)

    async def _enter(
        self, call: PlatformCall, answer: Answer, found: PlatformLine, *, late: bool = False
    ) -> PlatformCall | None:
        crashpoint("before_settle")
        item = Picked(call.key, call.attempt, found.subscription_id, found.x)
        asked_at = boottime()
        result = await self._sender.persist(lambda: picked.settle(self._db, item, lease_s=self._timing.lease_s))
        if result is None:
            raise NotOurs
        self._picked[result.seen] += 1
        if result.bound is None:
            # Never handed out: in our books it is another app's.
            log.error("picked_foreign", line=str(call.line_id), app_id=call.app_id)
            await self._undo(call, found.subscription_id)
            await self._fail(call, Failed("platform_refused"), replace(answer, code="x_of_another_app"))
            return None
        if result.seen in {"imported", "unfit"}:
            log.warning("number_taken_in", how=result.seen, pool=call.pool_id, line=str(call.line_id))
        if result.crowded:
            log.warning("picked_twice", pool=call.pool_id, line=str(call.line_id))
        if result.bound.line_state == "active":
            if late:
                await date_back(self._db, self._sender, call)
            call.settle(Active(found.x, found.subscription_id, result.bound.confirmed_at))
            return None
        # Released while it was being bound: its unbind is already committed, and ours to send.
        return unbind_after(call, found.subscription_id, lease_until=asked_at + self._timing.lease_s)

    async def _fail(self, call: PlatformCall, failed: Failed, answer: Answer) -> None:
        code = short(answer.code)
        ended = Ended(
            call.key, call.attempt, "failed", failed.reason, 0.0, answer.verdict.value, answer.http, code
        )  # fmt: skip
        if await self._sender.persist(lambda: self._end(ended)) is None:
            raise NotOurs
        log.warning("bind_failed", reason=failed.reason, http=answer.http, code=code)
        call.settle(replace(failed, http=answer.http, code=code))

    # -- what became of it -----------------------------------------------------------------------------------------

    async def _search(self, call: PlatformCall) -> PlatformLine | None:
        """Look twice: at once, and when no attempt can come late any more."""
        found = await self._look(call)
        while found is None and (wait := call.last_unknown_at + self._timing.absence_s - boottime()) > 0:
            await self._sender.pause(call, min(wait, self._timing.longest_backoff_s))
        return found or await self._look(call)

    async def _look(self, call: PlatformCall) -> PlatformLine | None:
        numbers = await picked.unbound(
            self._db, call.pool_id, relaxed=bool(call.options.relaxed), limit=MOST_QUERIES + 1
        )
        if len(numbers) > MOST_QUERIES:
            log.warning("search_cut_short", pool=call.pool_id, line=str(call.line_id), numbers=MOST_QUERIES)
        for number in numbers[:MOST_QUERIES]:
            if (found := await self._there(call, number)) is not None:
                return found
        return None

    async def _there(self, call: PlatformCall, number: str) -> PlatformLine | None:
        """Ask whether some attempt of this call's line is on ``number``, for the very A asked for."""
        backoff = self._timing.first_backoff_s
        while True:
            try:
                answer = await self._sender.search(call, number)
            except LaneShut:
                answer = Answer(Verdict.CONFIGURATION)
            match answer.verdict:
                case Verdict.DONE:
                    return next((one for one in answer.bindings if _is_ours(one, call, number)), None)
                case Verdict.WITHHELD:
                    await self._sender.extend(call)
                case verdict if verdict in _OPERATORS:
                    await self._sender.back_off(call, answer, self._timing.operator_backoff_s)
                case verdict if verdict in _AGAIN:
                    backoff = await self._sender.back_off(call, answer, backoff)
                case _:
                    return None  # nobody is there, or it is a number that the platform does not let us have


def _is_ours(found: PlatformLine, call: PlatformCall, number: str) -> bool:
    mark, _, _ = found.token.partition(".")
    return mark == call.line_id.hex and found.x == number and found.a == call.a.reveal()
