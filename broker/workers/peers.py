"""Carries out the calls of a line's peers: a B gets its Y, or gives it back.

A bind of a peer that may have arrived is looked up before anything else: sent again at once, B might get two Y. Only
when B is missing from the platform's list well after the last request is there another one. The platform shows a few
peers of a line; if there may be more than it shows, B's absence proves nothing, and the peer is given up.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Final

import structlog

from broker.clock import boottime
from broker.crashpoints import crashpoint
from broker.domain.peer_drift import SHOWN
from broker.flows.calls import Changed, Failed, PlatformCall
from broker.platform.protocol import Answer, Verdict
from broker.store import peers
from broker.store.calls import CallKey
from broker.store.crypto import Vault
from broker.store.database import Database
from broker.store.peers import Outcome, Peer, SettledPeer
from broker.workers.dating import date_back
from broker.workers.lane import LaneShut
from broker.workers.sender import NotOurs, Sender, short

log = structlog.get_logger()

#: Answers that say that there is no Y, and the stable reason that the order system sees.
_REFUSALS: Final = {
    Verdict.BAD_REQUEST: "platform_rejected_request",
    Verdict.CAPACITY: "pool_exhausted",
    Verdict.PARTY_LIMIT: "party_limit",
    Verdict.APP_SUSPENDED: "app_suspended",
    Verdict.NOT_FOUND: "binding_ended",
}
#: The request may be sent again: it did nothing.
_NOTHING_DONE: Final = frozenset(
    {Verdict.NOT_SENT, Verdict.FLOW_CONTROL, Verdict.SOURCE_BLOCKED, Verdict.BAD_DIGEST, Verdict.CLOCK_SKEW}
)
#: What an operator can put right.
_OPERATORS: Final = frozenset({Verdict.CONFIGURATION, Verdict.APP_SUSPENDED, Verdict.BAD_DIGEST})


class PeerCaller:
    """The stories of ``bind_peer`` and ``unbind_peer``."""

    def __init__(self, db: Database, vault: Vault, sender: Sender, *, picked_numbers: Counter[str]) -> None:
        """``vault`` opens who B is; ``picked_numbers`` counts whose the numbers were that the platform picked."""
        self._db = db
        self._vault = vault
        self._sender = sender
        self._timing = sender.timing
        self._picked = picked_numbers

    async def carry_out(self, call: PlatformCall) -> PlatformCall | None:
        """Make it so, or find out that it cannot be; return the line's next call, if it has one.

        Raises:
            NotOurs: somebody else owns the call.
            DatabaseAway: it is left to whoever takes it over.
        """
        peer = await peers.of_call(self._db, self._vault, call.key)
        if peer is None or call.unwanted:
            # The line ends, or has ended, and the platform takes all its peers along.
            return await self._absent(call, Answer(Verdict.NOT_FOUND), "binding_ended")
        if call.op == "unbind_peer":
            return await self._unbind(call, peer)
        return await self._bind(call, peer)

    async def _bind(self, call: PlatformCall, peer: Peer) -> PlatformCall | None:
        backoff: float | None = self._timing.first_backoff_s
        while not call.unwanted:
            if call.maybe_sent:
                answer, y = await self._find(call, peer)
                if y:
                    return await self._there(call, answer, y, late=True)
                if answer.verdict is not Verdict.DONE:
                    return await self._absent(call, answer, _REFUSALS.get(answer.verdict, "outcome_unknown"))
                call.maybe_sent = False
            if peer.state == "releasing":
                break
            answer = await self._send_bind(call, peer)
            backoff = await self._again(call, answer, backoff or self._timing.first_backoff_s)
            if backoff is None:
                return await self._decide(call, peer, answer)
        return await self._absent(call, Answer(Verdict.WITHHELD), "binding_ended")

    async def _again(self, call: PlatformCall, answer: Answer, backoff: float) -> float | None:
        """Wait before the bind may be sent again; None = the answer decides it."""
        match answer.verdict:
            case Verdict.UNKNOWN:
                call.maybe_sent, call.last_unknown_at = True, boottime()
                return await self._sender.back_off(call, answer, backoff)
            case Verdict.WITHHELD:
                await self._sender.extend(call)
                return backoff
            case verdict if verdict in _NOTHING_DONE:
                return await self._sender.back_off(call, answer, backoff)
            case _:
                return None

    async def _decide(self, call: PlatformCall, peer: Peer, answer: Answer) -> PlatformCall | None:
        match answer.verdict:
            case Verdict.DONE:
                return await self._there(call, answer, answer.bindings[0].y)
            case Verdict.CONFLICT:
                return await self._had_one(call, peer, answer)
            case verdict:
                return await self._absent(call, answer, _REFUSALS.get(verdict, "platform_refused"))

    async def _send_bind(self, call: PlatformCall, peer: Peer) -> Answer:
        try:
            return await self._sender.bind_peer(call, b=peer.b, ttl_s=peer.ttl_s, tone=peer.tone)
        except LaneShut as shut:
            return Answer(Verdict.CONFIGURATION, code=shut.reason)

    async def _had_one(self, call: PlatformCall, peer: Peer, refused: Answer) -> PlatformCall | None:
        """B has a Y already: the platform gave it one when B dialled X."""
        answer, y = await self._list(call, peer)
        if y:
            return await self._there(call, answer, y)
        return await self._absent(call, refused, "platform_refused")

    async def _find(self, call: PlatformCall, peer: Peer) -> tuple[Answer, str]:
        """Look for B's Y, at once and when no attempt can come late any more.

        The answer is done if B was missing from a list that shows everybody.
        """
        answer, y = await self._list(call, peer)
        while not y and (wait := call.last_unknown_at + self._timing.absence_s - boottime()) > 0:
            await self._sender.pause(call, min(wait, self._timing.longest_backoff_s))
            if wait <= self._timing.longest_backoff_s:
                answer, y = await self._list(call, peer)
        return answer, y

    async def _list(self, call: PlatformCall, peer: Peer) -> tuple[Answer, str]:
        backoff = self._timing.first_backoff_s
        while not call.unwanted:
            try:
                answer = await self._sender.lookup(call)
            except LaneShut:
                answer = Answer(Verdict.CONFIGURATION)
            match answer.verdict:
                case Verdict.DONE:
                    relations = [one for one in answer.bindings if one.y]
                    y = next((one.y for one in relations if one.b == peer.b.reveal()), "")
                    unsure = not y and len(relations) >= SHOWN
                    return (replace(answer, verdict=Verdict.UNKNOWN) if unsure else answer), y
                case Verdict.NOT_FOUND:
                    return answer, ""
                case Verdict.WITHHELD:
                    await self._sender.extend(call)
                case verdict if verdict in _OPERATORS:
                    await self._sender.back_off(call, answer, self._timing.operator_backoff_s)
                case _:
                    backoff = await self._sender.back_off(call, answer, backoff)
        return Answer(Verdict.NOT_FOUND), ""

    async def _unbind(self, call: PlatformCall, peer: Peer) -> PlatformCall | None:
        answer = await self._take_away(call, peer.y or "")
        return await self._absent(call, answer, "released")

    async def _take_away(self, call: PlatformCall, y: str) -> Answer:
        backoff = self._timing.first_backoff_s
        while y and not call.unwanted:
            try:
                answer = await self._sender.unbind_peer(call, y)
            except LaneShut:
                answer = Answer(Verdict.CONFIGURATION)
            match answer.verdict:
                case Verdict.DONE | Verdict.NOT_FOUND:
                    return answer
                case Verdict.WITHHELD:
                    await self._sender.extend(call)
                case verdict if verdict is Verdict.UNKNOWN or verdict in _NOTHING_DONE:
                    backoff = await self._sender.back_off(call, answer, backoff)
                case _:
                    # An operator must act: B may still be reachable through its Y.
                    log.error("unbind_refused", line=str(call.line_id), http=answer.http, code=answer.code)
                    await self._sender.back_off(call, answer, self._timing.operator_backoff_s)
        return Answer(Verdict.NOT_FOUND)

    # -- outcomes --------------------------------------------------------------------------------------------------

    async def _there(self, call: PlatformCall, answer: Answer, y: str, *, late: bool = False) -> PlatformCall | None:
        """Write B's Y down; ``late``: it was found at the platform, and may have been B's for long."""
        asked_at = boottime()
        result = await self._settle(call, answer, y=y)
        self._picked[result.seen or "unfit"] += 1
        if result.seen == "foreign":
            # Never handed out: in our books the number is another app's.
            log.error("picked_foreign", line=str(call.line_id), app_id=call.app_id)
            await self._take_away(call, y)
            return await self._absent(call, replace(answer, code="y_of_another_app"), "platform_refused")
        if result.seen in {"imported", "unfit"}:
            log.warning("number_taken_in", how=result.seen, pool=call.pool_id, line=str(call.line_id))
        if late:
            await date_back(self._db, self._sender, call)
        call.settle(Changed())
        return _next(call, result, lease_until=asked_at + self._timing.lease_s)

    async def _absent(self, call: PlatformCall, answer: Answer, reason: str) -> PlatformCall | None:
        asked_at = boottime()
        result = await self._settle(call, answer, reason=reason)
        if result.peer_state == "failed":
            log.warning("peer_failed", reason=reason, http=answer.http, code=answer.code)
            call.settle(Failed(reason, answer.detail, answer.http, short(answer.code)))
        else:
            call.settle(Changed())
        return _next(call, result, lease_until=asked_at + self._timing.lease_s)

    async def _settle(
        self, call: PlatformCall, answer: Answer, *, y: str | None = None, reason: str | None = None
    ) -> SettledPeer:
        crashpoint("before_settle")
        item = Outcome(
            call.key, call.attempt, there=y is not None, y=y, reason=reason, outcome=answer.verdict.value,
            http=answer.http, code=short(answer.code),
        )  # fmt: skip
        result = await self._sender.persist(lambda: peers.settle(self._db, item, lease_s=self._timing.lease_s))
        if result is None:
            raise NotOurs
        return result


def _next(call: PlatformCall, result: SettledPeer, *, lease_until: float) -> PlatformCall | None:
    if result.no is None or result.op is None:
        return None
    return replace(
        call,
        key=CallKey(call.pool_id, call.line_id, result.no, 1),
        op=result.op,
        lease_until=lease_until,
        attempt=0,
        maybe_sent=False,
        unwanted=False,
        done=None,
    )
