"""Binding a line anew where it is: what a platform cannot modify is unbound and bound again, on the same X.

Between the two nobody is behind X; the gap is measured and kept. Whoever takes the call over asks the platform first
what is there: the mark in our token tells the new binding from the old one.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

import structlog

from broker.clock import boottime
from broker.domain.change import LineChange
from broker.flows.calls import PlatformCall
from broker.platform.protocol import Answer, PlatformLine, Verdict
from broker.workers.lane import LaneShut
from broker.workers.sender import Sender

log = structlog.get_logger()

#: What an operator can put right: it is waited for, with nobody behind X if need be.
_OPERATORS: Final = frozenset({Verdict.CONFIGURATION, Verdict.APP_SUSPENDED, Verdict.BAD_DIGEST})
#: What tells the mark of the way back from that of the change: whoever takes over must not take the one for the other.
_BACK: Final = "-"
#: Answers that say that this A, or these options, will never be bound.
_REFUSALS: Final = frozenset({Verdict.BAD_REQUEST, Verdict.PARTY_LIMIT})


class Lost(Exception):
    """Somebody else is behind our place, or neither the new nor the old A can be bound."""

    def __init__(self, answer: Answer) -> None:
        """Keep the platform's last words."""
        super().__init__()
        self.answer = answer


class Replacer:
    """The story of a change that the platform takes only as an unbind and a bind."""

    def __init__(self, sender: Sender) -> None:
        """Use the lanes of this process."""
        self._sender = sender
        self._timing = sender.timing

    async def carry_out(self, call: PlatformCall, change: LineChange) -> tuple[Answer, PlatformLine, int | None]:
        """Return the answer that decided, what the platform holds now, for how many ms it held nothing (None: unknown).

        The verdict is ``DONE``, or what refused the change: then the line is bound as it was.

        Raises:
            Lost: nothing is bound any more.
            NotOurs, DatabaseAway: it is left to whoever takes it over.
        """
        found = await self._find(call) if call.maybe_sent else None
        if found is not None and found.token.startswith(call.mark + "."):
            return Answer(Verdict.DONE), found, None
        # From before the unbind leaves: at most so long nobody is behind X.
        since = boottime()
        subscription_id = found.subscription_id if found is not None else call.subscription_id or ""
        if found is not None or not call.maybe_sent:
            await self._repeat(call, lambda: self._sender.unbind(call, subscription_id))
        decided, made = await self._bind(call, change, call.mark)
        if made is None:
            log.warning("replacement_refused", line=str(call.line_id), http=decided.http, code=decided.code)
            last, made = await self._bind(call, LineChange(ttl_s=change.ttl_s), call.mark + _BACK)
            made = made or await self._certainly(call)
            if made is None:
                raise Lost(last)
            if made.token.startswith(call.mark + "."):
                # One that was sent before the refusal has come through after all.
                decided = Answer(Verdict.DONE)
        gap_ms = math.ceil((boottime() - since) * 1000)
        log.info("line_bound_anew", line=str(call.line_id), gap_ms=gap_ms)
        return decided, made, gap_ms

    async def _bind(self, call: PlatformCall, change: LineChange, mark: str) -> tuple[Answer, PlatformLine | None]:
        """Bind until it is certain: what is bound, or None with the answer that refuses it for good."""
        wanted = _as_changed(call, change)
        while True:
            answer = await self._repeat(call, lambda: self._sender.bind(wanted, of=call, mark=mark))
            match answer.verdict:
                case Verdict.DONE:
                    return answer, answer.bindings[0]
                case verdict if verdict in _REFUSALS:
                    return answer, None
                case _:
                    # An attempt before this one may have come through; else a stranger has our place.
                    found = await self._certainly(call)
                    if found is None:
                        raise Lost(answer)
                    return Answer(Verdict.DONE), found

    async def _certainly(self, call: PlatformCall) -> PlatformLine | None:
        """Return what is there of this line, once nothing of it can come late any more."""
        while True:
            found = await self._find(call)
            if found is not None and found.token.partition(".")[0] == call.line_id.hex:
                return found
            wait = call.last_unknown_at + self._timing.absence_s - boottime()
            if wait <= 0:
                return None
            await self._sender.pause(call, min(wait, self._timing.longest_backoff_s))

    async def _find(self, call: PlatformCall) -> PlatformLine | None:
        answer = await self._repeat(call, lambda: self._sender.query(call))
        return next(iter(answer.bindings), None)

    async def _repeat(self, call: PlatformCall, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Ask until the answer is certain, keeping the call."""
        backoff = self._timing.first_backoff_s
        while True:
            try:
                answer = await ask()
            except LaneShut as shut:
                answer = Answer(Verdict.CONFIGURATION, code=shut.reason)
            if answer.verdict is Verdict.UNKNOWN:
                call.last_unknown_at = boottime()
            match answer.verdict:
                case Verdict.WITHHELD:
                    await self._sender.extend(call)
                case verdict if verdict in _OPERATORS:
                    log.error("replacement_stopped", line=str(call.line_id), http=answer.http, code=answer.code)
                    await self._sender.back_off(call, answer, self._timing.operator_backoff_s)
                case verdict if verdict in _AGAIN:
                    backoff = await self._sender.back_off(call, answer, backoff)
                case _:
                    return answer


_AGAIN: Final = frozenset(
    {Verdict.UNKNOWN, Verdict.NOT_SENT, Verdict.FLOW_CONTROL, Verdict.CLOCK_SKEW, Verdict.SOURCE_BLOCKED}
)


def _as_changed(call: PlatformCall, change: LineChange) -> PlatformCall:
    """Return the call whose bind makes the line what the change wants."""
    return replace(
        call,
        a=change.a or call.a,
        b=change.b or call.b,
        direction=change.direction or call.direction,
        options=call.options if change.options is None else change.options,
        ttl_s=call.ttl_s if change.ttl_s is None else change.ttl_s,
        callback=None if change.no_callback else change.callback or call.callback,
    )
