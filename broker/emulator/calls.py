"""Placing calls: somebody dials a number, its app's mode or the app itself says who is called, who answers or not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

from broker.emulator.core import Core
from broker.emulator.mode import Connection, Dial
from broker.emulator.outcomes import cause_of
from broker.emulator.pushing import Pusher
from broker.emulator.registry import ModeName
from broker.emulator.release import LANDLINE_CALLER, NO_BINDING, NORMAL, X_UNUSABLE
from broker.emulator.schedule import Schedule
from broker.emulator.sessions import CALLER, PLATFORM, Session
from broker.emulator.settings import EmulatorSettings
from broker.emulator.story import Story
from broker.emulator.told import Kind
from broker.emulator.x import X


@dataclass(frozen=True, slots=True)
class Plan:
    """What the called side does after it has rung for ``ring_s``, and how long both talk."""

    outcome: int = NORMAL
    """The release cause of a call that is not answered."""
    ring_s: float = 0
    talk_s: float | None = None
    """``None``: until somebody hangs up."""
    released_by: int = CALLER


class Calls:
    """The way of a call through the platform; ``counts``: ``placed``, ``answered``, and ends by release cause."""

    def __init__(self, settings: EmulatorSettings, core: Core, pusher: Pusher, schedule: Schedule) -> None:
        self.counts: Counter[str] = Counter()
        self._settings = settings
        self._core = core
        self._pusher = pusher
        self._schedule = schedule
        self._x = X(settings)
        self._up: dict[str, Story] = {}
        core.sessions.on_end = self._ended

    async def place(self, caller: str, dialled: str, digits: str, plan: Plan) -> dict[str, Any]:
        """Place a call and return who is called, what they see, and the release cause (contract 8.1).

        A call that is answered is up from then on: now, unless it rings. Raises ``OSError`` when what it changes
        cannot be recorded.
        """
        session_id = self._core.sessions.new_id()
        dial = self._core.dialled(caller, dialled, digits)
        connection = Connection.refused(NO_BINDING)
        if dial is not None:
            connection = await self._connect(session_id, dial)
            self._begin(session_id, dial, connection, plan)
        state_code = plan.outcome if connection.connected_to is not None else connection.state_code
        answered = state_code == NORMAL
        return {
            "connected_to": connection.connected_to if answered else None,
            "shown": connection.shown if answered else None,
            "state_code": state_code,
            "session_id": session_id,
        }

    async def _connect(self, session_id: str, dial: Dial) -> Connection:
        if dial.x in dial.app.barred:
            return Connection.refused(X_UNUSABLE)
        if dial.app.config.mode is not ModeName.X:
            return self._core.connect(dial)
        # Asked before anything is decided, so what is told of the call now is the question alone.
        question = Story(session_id, dial, dial.now_ms, Connection.refused(NO_BINDING), None)
        if dial.from_landline:
            return Connection.refused(LANDLINE_CALLER)
        body = question.event("callin", dial.now_ms)
        reply = await self._pusher.ask(dial.app.config, Kind.EVENTS, "callin", dial.x, body)
        return self._x.connect(dial, reply)

    # --- one call

    def _begin(self, session_id: str, dial: Dial, connection: Connection, plan: Plan) -> None:
        self.counts["placed"] += 1
        binding = self._core.book.by_id.get(connection.terms.subscription_id or "")
        story = Story(session_id, dial, dial.now_ms, connection, binding)
        if story.mode is not ModeName.X:
            self._tell(story, "callin", dial.now_ms)
        if story.mode is ModeName.AXE and dial.digits and not story.called_back:
            self._tell(story, "collectInfo", dial.now_ms)
        cause = cause_of(plan.outcome)
        if connection.connected_to is None or not cause.forwarded:
            self._over(story, self._core.clock.now_ms(), connection.state_code or plan.outcome, PLATFORM, None)
            return
        now_ms = self._core.clock.now_ms()
        story.forwarded_ms = now_ms
        self._tell(story, "callout", now_ms)
        if cause.rings:
            story.alerted_ms = now_ms
            self._tell(story, "alerting", now_ms)
        self._schedule.after(plan.ring_s, partial(self._decide, story, plan))

    def _decide(self, story: Story, plan: Plan) -> None:
        now_ms = self._core.clock.now_ms()
        if plan.outcome != NORMAL:
            self._over(story, now_ms, plan.outcome, plan.released_by, None)
            return
        story.answered_ms = now_ms
        self._up[story.session_id] = story
        session = self._core.sessions.open(story.session_id, story.dial, story.connection)
        self.counts["answered"] += 1
        self._tell(story, "answer", now_ms)
        if session.limit_ms is not None:
            self._schedule.at(session.limit_ms, partial(self._core.sessions.live, story.session_id))
        if plan.talk_s is not None:
            hang_up = partial(self._core.sessions.hang_up, story.session_id, plan.released_by)
            self._schedule.at(now_ms + round(plan.talk_s * 1000), hang_up)

    def _ended(self, session: Session) -> None:
        story = self._up.pop(session.session_id)
        if session.ended_ms is not None and session.state_code is not None:
            self._over(story, session.ended_ms, session.state_code, session.released_by, session)

    def _over(self, story: Story, at_ms: int, state_code: int, released_by: int, session: Session | None) -> None:
        self.counts[str(state_code)] += 1
        app, x = story.dial.app.config, story.dial.x
        self._pusher.tell(app, Kind.EVENTS, "disconnect", x, story.end(at_ms, state_code, released_by))
        record = story.record(at_ms, state_code, released_by, session, self._settings)
        self._pusher.tell(app, Kind.CDR, "fee", x, record)

    def _tell(self, story: Story, kind: str, at_ms: int) -> None:
        self._pusher.tell(story.dial.app.config, Kind.EVENTS, kind, story.dial.x, story.event(kind, at_ms))
