"""The wire without its transport: source block, routing, authentication, flow control, faults (contract 1, 7)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

import structlog

from broker.emulator.auth import Guard
from broker.emulator.codes import FLOW_CONTROL, INTERNAL_ERROR, OTHER_MODE, Refusal, refusal_body, usual_status
from broker.emulator.core import Core
from broker.emulator.faults import Fault, FaultKind, Faults, When
from broker.emulator.fields import query_fields
from broker.emulator.ledger import Cause
from broker.emulator.mode import Op
from broker.emulator.recordings import PATH as RECORDINGS
from broker.emulator.registry import App, ModeName
from broker.emulator.settings import EmulatorSettings

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@dataclass(slots=True)
class WireRequest:
    """One HTTP request; ``body`` ``None`` is a body over the cap. ``peer`` is the source address."""

    peer: str
    method: str = ""
    target: str = ""
    authorization: str | None = None
    x_aksk: str | None = None
    x_wsse: str | None = None
    expect: str | None = None
    body: bytes | None = b""
    keep_alive: bool = True
    host: str | None = None


class Ending(Enum):
    """What becomes of the connection."""

    ANSWER = "answer"
    CLOSE = "close"
    ABORT = "abort"


@dataclass(slots=True)
class Handling:
    """What the transport is to do with a request.

    After ``delay_s`` it writes ``http`` and ``body``, or what ``later`` returns if that is set; ``location`` is a path
    under the address that the request came to. With ``CLOSE`` and
    ``ABORT`` the connection ends at once and nothing is written; ``later`` is still called, for its effect.
    """

    http: int = 0
    body: bytes = b""
    kind: str = "application/json;charset=utf-8"
    location: str = ""
    ending: Ending = Ending.ANSWER
    delay_s: float = 0.0
    later: Callable[[], Handling] | None = None


@dataclass(slots=True)
class _Route:
    mode: ModeName | None  # None is an interface of all modes
    op: Op


class Wire:
    """Answers platform requests. Synchronous: one request is one step of the platform's state."""

    def __init__(self, settings: EmulatorSettings, core: Core, faults: Faults) -> None:
        self._core = core
        self._faults = faults
        self._guard = Guard(settings, core.registry)
        self._routes = {
            place: _Route(mode.name, op) for mode in core.modes.values() for place, op in mode.routes.items()
        } | {place: _Route(None, op) for rules in core.shared.values() for place, op in rules.routes.items()}
        self._paths = {path for _, path in self._routes}
        self.answers: Counter[str] = Counter()
        """Answers by "HTTP status/resultcode", those without authentication included."""

    def handle(self, request: WireRequest) -> Handling:
        """Work out what to do with a request, and do it unless a fault says otherwise. Never raises."""
        try:
            return self._handle(request)
        except Refusal as refusal:
            self.answers[f"{refusal.http}/{refusal.code}"] += 1
            return Handling(refusal.http, refusal.body)
        except Exception as error:  # noqa: BLE001 - the platform answers 1010001 where it fails
            return self._broken(error)

    def _handle(self, request: WireRequest) -> Handling:
        now_ms = self._core.clock.now_ms()
        self._guard.check_source(request.peer, now_ms)
        path, _, query = request.target.partition("?")
        if path.startswith(RECORDINGS):
            handling = self._recording(request.method, path, query, now_ms)
            self.answers[f"{handling.http}/"] += 1
            return handling
        route = self._routes.get((request.method, path))
        if route is None:
            http = 405 if path in self._paths else 404
            self.answers[f"{http}/"] += 1
            return Handling(http)
        app = self._guard.authenticate(request, now_ms)
        number = self._core.next_request()
        cause = Cause(number, now_ms)
        refused = self._refused(app, route)
        if refused is not None:
            self._core.note(app, route.op, query, request.body, cause, code=refused.code, http=refused.http)
            raise refused
        fault = self._faults.draw(route.op) if self._faults.rules else None
        if fault is not None:
            return self._hit(fault, app, route.op, query, request.body, cause)
        return self._execute(app, route.op, query, request.body, cause)

    def _refused(self, app: App, route: _Route) -> Refusal | None:
        if route.mode not in {None, app.config.mode}:
            return Refusal(OTHER_MODE)
        if app.bucket is not None and not app.bucket.admit(time.monotonic()):
            return Refusal(FLOW_CONTROL)
        return None

    def _execute(self, app: App, op: Op, query: str, body: bytes | None, cause: Cause) -> Handling:
        answer = self._core.execute(app, op, query, body, cause)
        self.answers[f"{answer.http}/{answer.code}"] += 1
        return Handling(answer.http, answer.body, location=answer.location)

    def _recording(self, method: str, path: str, query: str, now_ms: int) -> Handling:
        """Answer as the storage of recordings: with a file whose link is still good."""
        if method != "GET":
            return Handling(405)
        until = query_fields(query).get("until", "")
        recording = self._core.recordings.find(path.removeprefix(RECORDINGS), now_ms)
        if recording is None or not until.isdecimal() or now_ms >= int(until[:20]):
            return Handling(404)
        return Handling(200, recording.wav(), kind="audio/x-wav")

    def _hit(self, fault: Fault, app: App, op: Op, query: str, body: bytes | None, cause: Cause) -> Handling:
        delay_ms = fault.ms if fault.kind is FaultKind.DELAY else None
        cause = Cause(cause.request, cause.received_ms, fault=fault.kind, delay_ms=delay_ms)
        delay_s = fault.ms / 1000

        def execute() -> Handling:
            try:
                return self._execute(app, op, query, body, cause)
            except Exception as error:  # noqa: BLE001 - as in handle: this may run from a timer
                return self._broken(error)

        match fault.kind:
            case FaultKind.DELAY if fault.when is When.BEFORE:
                return Handling(delay_s=delay_s, later=execute)
            case FaultKind.DELAY:
                done = execute()
                done.delay_s = delay_s
                return done
            case FaultKind.DROP_ANSWER:
                execute()
                return Handling(ending=Ending.CLOSE)
            case FaultKind.LATE_COMMIT:
                return Handling(ending=Ending.CLOSE, delay_s=delay_s, later=execute)
            case FaultKind.RESET:
                self._core.note(app, op, query, body, cause, code=None, http=None)
                return Handling(ending=Ending.ABORT)
            case FaultKind.CODE:
                code = fault.code
                http = fault.http or usual_status(code or INTERNAL_ERROR)
                self._core.note(app, op, query, body, cause, code=code, http=http)
                self.answers[f"{http}/{code or ''}"] += 1
                return Handling(http, refusal_body(http, code) if code is not None else b"")

    def _broken(self, error: Exception) -> Handling:
        # Neither the message nor a traceback with its values: they may hold phone numbers.
        log.error("emulator_request_failed", error=type(error).__name__, at=_place(error))
        self.answers[f"500/{INTERNAL_ERROR}"] += 1
        return Handling(500, refusal_body(500, INTERNAL_ERROR))


def _place(error: Exception) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return f"{frame.tb_frame.f_code.co_name}:{frame.tb_lineno}" if frame is not None else ""
