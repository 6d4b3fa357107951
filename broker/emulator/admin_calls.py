"""The admin port's calls: somebody dials, somebody hangs up, and what there is to be heard afterwards."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any, Final, Literal

from aiohttp import web
from pydantic import Field, StringConstraints, field_validator

from broker.emulator.admin_http import Input, paging, read, refuse, reply
from broker.emulator.calls import Calls, Plan
from broker.emulator.core import Core
from broker.emulator.outcomes import CAUSES, WORDS
from broker.emulator.recordings import Recording
from broker.emulator.sessions import CALLEE, CALLER, PLATFORM, Session
from broker.emulator.times import rfc3339

_PARTIES: Final = {"caller": CALLER, "callee": CALLEE, "platform": PLATFORM}
_LONGEST_S: Final = 86_400

Seconds = Annotated[float, Field(ge=0, le=_LONGEST_S)]


class _CallIn(Input):
    """``outcome``: a word of ``outcomes.WORDS``, or a release cause of the documented list; 0 answers."""

    caller: Annotated[str, Field(alias="from", max_length=31)]
    to: Annotated[str, Field(max_length=31)]
    digits: Annotated[str, StringConstraints(pattern=r"^[0-9*#]{0,32}$")] | None = None
    outcome: Annotated[str | int, Field(validate_default=True)] = "answer"
    ring_s: Seconds = 0
    talk_s: Seconds | None = None
    released_by: Literal["caller", "callee", "platform"] = "caller"

    @field_validator("outcome")
    @classmethod
    def _is_documented(cls, given: str | int) -> int:
        code = WORDS.get(given) if isinstance(given, str) else given
        if code is None or code not in CAUSES:
            raise ValueError(f"must be one of {', '.join(WORDS)}, or a documented stateCode")
        return code

    def plan(self) -> Plan:
        """Return how the call goes."""
        return Plan(int(self.outcome), self.ring_s, self.talk_s, _PARTIES[self.released_by])


class CallRoutes:
    """Handlers of calls and recordings."""

    def __init__(self, core: Core, calls: Calls, record_domain: str) -> None:
        self._core = core
        self._calls = calls
        self._record_domain = record_domain

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/emulator/calls", self.call),
            web.get("/emulator/calls", self.list_calls),
            web.delete("/emulator/calls/{session_id}", self.hang_up),
            web.get("/emulator/recordings", self.list_recordings),
        ]

    async def call(self, request: web.Request) -> web.Response:
        """Dial a number of the platform; an answered call is up until it is hung up or its time is over.

        The answer is given when it is known how the call goes, before it has rung.
        """
        given = await read(request, _CallIn)
        return reply(await self._calls.place(given.caller, given.to, given.digits or "", given.plan()))

    async def list_calls(self, request: web.Request) -> web.Response:
        """List the connected calls that are kept, live or over; ``after`` is the cursor of the page before."""
        after, limit = paging(request)
        page = list(islice(self._core.sessions.after(after), limit + 1))
        more = len(page) > limit
        items = [_shown(session) for session in page[:limit]]
        return reply({"items": items, "next": page[limit - 1].serial if more else None})

    async def hang_up(self, request: web.Request) -> web.Response:
        """End a call as one of its parties would."""
        if not self._core.sessions.hang_up(request.match_info["session_id"], CALLER):
            raise refuse(404, "no such call is up")
        return web.Response(status=204)

    async def list_recordings(self, request: web.Request) -> web.Response:
        """List the recordings that live, oldest first."""
        del request
        self._core.sessions.settle()
        live = self._core.recordings.live(self._core.clock.now_ms())
        return reply({"items": [self._shown_recording(recording) for recording in live]})

    def _shown_recording(self, recording: Recording) -> dict[str, Any]:
        return {
            "record_object_name": recording.name,
            "record_domain": self._record_domain,
            "app_key": recording.app_key,
            "session_id": recording.session_id,
            "started_at": rfc3339(recording.started_ms),
            "ended_at": rfc3339(recording.ended_ms),
            "until": rfc3339(recording.until_ms),
        }


def _shown(session: Session) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "app_key": session.app_key,
        "from": session.caller,
        "to": session.dialled,
        "connected_to": session.connected_to,
        "shown": session.shown,
        "subscription_id": session.terms.subscription_id,
        "user_data": session.terms.user_data,
        "max_minutes": session.terms.max_minutes,
        "recorded": session.terms.recorded,
        "started_at": rfc3339(session.started_ms),
        "ended_at": None if session.ended_ms is None else rfc3339(session.ended_ms),
        "state_code": session.state_code,
        "recording": session.recording,
    }
