"""What the platform asks while somebody waits: where a call or a short message goes (contract 5.1, 6.6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import structlog

from broker.domain.notice import CallEvent, Sms
from broker.domain.options import CallOptions
from broker.domain.phone import PhoneNumber, is_e164
from broker.domain.reach import Reached
from broker.errors import Unavailable
from broker.flows.reach import Books, Question, ask
from broker.flows.route import Connect, Router, spot_in
from broker.store.crypto import SealBroken
from broker.store.inbox import Found
from broker.store.registry import App, Registry

log = structlog.get_logger()

#: Not to be forwarded.
DISCARD: Final[dict[str, Any]] = {"actions": [{"operation": "DiscardMessage"}]}
#: In a word: the books were not asked in time.
NO_ANSWER: Final = "no_answer"
_LONGEST_MIN: Final = 1440


class Reply(NamedTuple):
    """The body of an answer, in a word what it says, and whose line it names."""

    body: dict[str, Any]
    word: str
    found: Found | None = None


class Questions:
    """Answers from our books, in bounded time; nobody is reached when there is no answer in it."""

    def __init__(self, books: Books, router: Router, registry: Callable[[], Registry], timeout_s: float) -> None:
        """``registry`` returns the newest configuration."""
        self._books = books
        self._router = router
        self._registry = registry
        self._timeout_s = timeout_s

    async def answer(self, app: App, question: CallEvent | Sms) -> Reply:
        """Return what to say."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await (
                    self._call(app, question) if isinstance(question, CallEvent) else self._sms(app, question)
                )
        except (TimeoutError, Unavailable, SealBroken) as error:
            log.warning("question_unanswered", app=app.name, kind=question.kind, error=type(error).__name__)
        return Reply(_closed(app) if isinstance(question, CallEvent) else DISCARD, NO_ANSWER)

    async def _call(self, app: App, event: CallEvent) -> Reply:
        if not self._is_of(app, event.x):
            return Reply(_closed(app), "foreign_number")
        caller = event.caller if event.caller is not None and is_e164(event.caller) else ""
        found = await self._router.route(event.x or "", caller)
        if not isinstance(found, Connect):
            return Reply(_closed(app), found.why.value)
        whose = Found(found.pool_id, found.line_id, "route", found.bindings)
        return Reply({"operation": "connect", "connectInfo": [_connected(found)]}, "connect", whose)

    async def _sms(self, app: App, sms: Sms) -> Reply:
        spot = spot_in(self._registry(), sms.x)
        if spot is None or not self._is_of(app, sms.x) or not is_e164(sms.sender):
            return Reply(DISCARD, "foreign_number")
        found = await ask(self._books.db, self._books.vault, Question(spot, PhoneNumber(sms.sender)))
        if not isinstance(found, Reached):
            return Reply(DISCARD, found.value)
        whose = Found(found.line.pool_id, found.line.line_id, "route", found.line.bindings)
        if not app.sms or CallOptions.from_text(found.line.options).sms is False:
            return Reply(DISCARD, "sms_off", whose)
        message = {"called": found.party.reveal(), "calling": sms.sender}
        return Reply({"actions": [{"operation": "vNumberRoute", "message": message}]}, "forward", whose)

    def _is_of(self, app: App, x: str | None) -> bool:
        registry = self._registry()
        place = registry.places.get(x or "")
        return place is not None and registry.pools[place[0]].app.id == app.id


def _connected(found: Connect) -> dict[str, Any]:
    info: dict[str, Any] = {
        "displayCalleeNum": found.display,
        "calleeNum": found.callee.reveal(),
        "maxDuration": min(found.max_call_minutes, _LONGEST_MIN),
        "recordFlag": "true" if found.recording else "false",
        # Ours: events and records of the call bring it back.
        "userData": f"{found.line_id.hex}.0",
    }
    tones = {"waitVoice": found.wait_tone, "recordHintTone": found.hint_tone, "lastMinVoice": found.last_minute_tone}
    return info | {name: tone for name, tone in tones.items() if tone is not None}


def _closed(app: App) -> dict[str, Any]:
    # A file that is not approved would end the call in another way.
    tone = app.close_tone if app.close_tone is not None and app.tones.get(app.close_tone) == "approved" else None
    return {"operation": "close", "closeInfo": [{"closeHintTone": tone} if tone is not None else {}]}
