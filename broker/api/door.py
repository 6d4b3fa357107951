"""What happens to a request before HTTP is parsed, while more is asked for than can be done.

Turning a request away costs about a quarter of carrying a bind out if it goes through the framework first: three times
of what can be done would leave nothing for the work itself. So the bytes are looked at as they come: a complete request
to one of our routes, alone on its connection, is answered from here. Whatever looks unusual goes the usual way.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import cast

from aiohttp import web
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler

from broker.api import whole
from broker.api.admission import Shed, refusal_of
from broker.api.context import Limits
from broker.api.naming import request_id_of
from broker.api.parse.header import seconds_of
from broker.api.reply import headers_of, problem_reply
from broker.api.routes import Route
from broker.api.whole import Whole
from broker.domain.admission import Gate, Work
from broker.metrics import Metrics

_LONGEST_HEAD = 8 * 1024
#: Heads with these need what only the framework knows of.
_UNUSUAL = re.compile(
    rb"\r\n(?:transfer-encoding|expect|upgrade|content-encoding|connection:(?! *keep-alive\r\n))", re.IGNORECASE
)
#: A length that is written in another way is found, too, but has no digits here: then only the framework knows it.
_LENGTH = re.compile(rb"\r\ncontent-length(?:: *([0-9]{1,7})(?=\r\n))?", re.IGNORECASE)
_WITHIN = re.compile(rb"\r\nrequest-timeout: *([^\r]*)\r\n", re.IGNORECASE)
_NAMED = re.compile(rb"\r\nx-request-id: *([^\r]*)\r\n", re.IGNORECASE)

#: Who does not take its answers for so long is cut off.
_SLOW_S = 10.0

Answer = Callable[[Whole], Awaitable[bytes]]


class Door:
    """Answers for the gate from the bytes of a request."""

    def __init__(
        self, gate: Gate, metrics: Metrics, routes: Sequence[Route], limits: Limits, answer: Answer | None = None
    ) -> None:
        """``limits`` say how long a request may take; ``answer`` answers binds that come in one piece."""
        self.answer = answer
        self._gate = gate
        self._metrics = metrics
        self._routes = routes
        self._limits = limits
        self._lines = re.compile("|".join(f"({_line(route)})" for route in routes).encode())

    @property
    def watched(self) -> bool:
        """Whether anything need be looked at."""
        return self._gate.shedding

    def look(self, data: bytes) -> bytes | Work | None:
        """Return the answer for who is turned away, or what counts who is let in; None = to be judged elsewhere."""
        line = self._lines.match(data)
        if line is None or line.lastindex is None or not complete(data):
            return None
        head = data[: data.find(b"\r\n\r\n") + 2]
        within_s = self._within_s(head)
        if within_s is None:
            return None
        route = self._routes[line.lastindex - 1]
        refusal = self._gate.refuses(route.kind, within_s, large=route.batch)
        if refusal is None:
            return self._gate.begin(route.kind)
        self._metrics.answered(route.path, route.method, Shed.status, 0.0)
        named = _NAMED.search(head)
        return _answer(refusal_of(refusal), request_id_of(named[1].decode("latin-1") if named else ""))

    def whole(self, data: bytes, protocol: Guarded) -> Whole | None:
        """Return the bind that complete bytes are; None = it is something else, or nobody here answers binds."""
        return whole.read(data, protocol, body_bytes=self._limits.body_bytes) if self.answer is not None else None

    def _within_s(self, head: bytes) -> float | None:
        named = _WITHIN.search(head)
        if named is None:
            return self._limits.default_deadline_s
        return seconds_of(named[1].decode("latin-1"), self._limits.longest_deadline_s)


class Guarded(RequestHandler):
    """A connection whose requests pass the door. ``work`` counts the one that is under way, if the door let it in."""

    __slots__ = ("_clean", "_door", "work")

    def __init__(self, *arguments: object, door: Door | None, **options: object) -> None:
        """Take what aiohttp gives its connections; without a door all is as ever."""
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._door = door
        #: Whether what comes next is the beginning of a request, for all we know.
        self._clean = True
        self.work: Work | None = None

    def data_received(self, data: bytes) -> None:
        """Turn away, or have it parsed."""
        if (
            data and self._door is not None and self._clean
        ):  # aiohttp itself comes with nothing, to have its rest parsed
            # What came before is answered first, whoever has read it; of what nobody reads any more nothing is taken.
            free = not self._messages and self._open
            bind = self._door.whole(data, self) if free else None
            self._clean = bind is not None or complete(data)
            if self._door.watched and self._clean and free and self._idle and self._turned_away(self._door, data):
                return
            if bind is not None:
                self._take(bind)
                return
        super().data_received(data)

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - as aiohttp calls it
        """Answer what is under way and end; aiohttp waits so long for the handler, and once more for the connection."""
        await super().shutdown(timeout and timeout / 2)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count nothing of it any longer."""
        super().connection_lost(exc)
        self._leave()

    async def _handle_request(
        self, request: web.BaseRequest | Whole, *arguments: object, **options: object
    ) -> tuple[web.StreamResponse, bool]:
        try:
            if isinstance(request, Whole):
                return _KEPT, not await self._answer(request)
            return await super()._handle_request(request, *arguments, **options)  # type: ignore[arg-type]
        finally:
            self._leave()

    def _take(self, bind: Whole) -> None:
        """Have the connection's own task go on with a bind, in its turn, as with what its parser has read."""
        self._request_count += 1
        self._messages.append((bind, EMPTY_PAYLOAD))  # type: ignore[arg-type] # made a request by Runner
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _answer(self, bind: Whole) -> bool:
        """Answer as the framework does, which waits for it when it shuts down; False = nobody is there any more."""
        self._request_in_progress = True
        try:
            answer = await cast("Answer", cast("Door", self._door).answer)(bind)
            if self.transport is None:
                return False
            self.transport.write(answer)
            return await self.has_read()
        finally:
            self._request_in_progress = False
            if self._handler_waiter is not None:
                self._handler_waiter.set_result(None)

    async def has_read(self) -> bool:
        """Wait until the client has taken its answers: nothing more of it is begun before that; False = it is gone."""
        if self.writing_paused:
            try:
                async with asyncio.timeout(_SLOW_S):
                    await self._drain_helper()
            except ConnectionError:
                return False
            except TimeoutError:
                cast("asyncio.Transport", self.transport).abort()
                return False
        return self.transport is not None

    @property
    def _idle(self) -> bool:
        # Answers that the client has not read are written by the connection's task, which waits for them to leave.
        return self._waiter is not None and not self._waiter.done() and self._open and not self.writing_paused

    @property
    def _open(self) -> bool:
        return not self._close and not self._force_close and not self._upgraded

    def _turned_away(self, door: Door, data: bytes) -> bool:
        judged = door.look(data)
        if not isinstance(judged, bytes):
            self.work = judged
            return False
        cast("asyncio.Transport", self.transport).write(judged)
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        return True

    def _leave(self) -> None:
        if self.work is not None:
            self.work.end()
            self.work = None


def complete(data: bytes) -> bool:
    """Tell whether this is one whole request of a plain kind, and nothing else."""
    end = data.find(b"\r\n\r\n", 0, _LONGEST_HEAD)
    if end < 0 or _UNUSUAL.search(data, 0, end + 2) is not None:
        return False
    lengths = _LENGTH.findall(data, 0, end + 2)
    return len(lengths) <= 1 and all(lengths) and len(data) == end + 4 + sum(map(int, lengths))


def _line(route: Route) -> str:
    path = re.sub(r"\\\{[a-z_]+\\\}", r"[^/?# {}]+", re.escape(route.path))
    return rf"{route.method} {path}(?:\?[^ #]*)? HTTP/1\.1\r\n"


def _answer(shed: Shed, request_id: str) -> bytes:
    reply = problem_reply(shed, request_id)
    return whole.write(reply.status, headers_of(reply, request_id), reply.body)


class _Kept(web.Response):
    """What the framework is told of an answer that was written: the connection goes on."""

    keep_alive = True


_KEPT = _Kept()
