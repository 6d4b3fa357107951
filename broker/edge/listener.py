"""How the listener reads requests: more leniently than HTTP has it where the platform does not keep to it.

Most pushes come whole, alone on a connection that waits for nothing else: these are read and answered from here, which
costs a third of what it does through the framework. Whatever looks unusual goes the usual way.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from broker.api.server import Protocol, Runner
from broker.edge.push import Answer, Push, begun, whole

Take = Callable[[Push], Awaitable[Answer]]

_HEAD_END: Final = b"\r\n\r\n"
_CONTENT_TYPE: Final = re.compile(rb"\r\ncontent-type:[^\r\n]*", re.IGNORECASE)
#: So long a push waits here for the rest of its body; then the framework does, and gives it up.
_REST_S: Final = 1.0


class EdgeProtocol(Protocol):
    """A connection of the platform's, which says its content type twice at times (contract 6.2).

    The HTTP parser refuses that before anybody is asked. A head comes in one piece, or the request is refused after all
    and pushed again.
    """

    __slots__ = ("_begun", "_plain", "_rest", "_taker", "_taking")

    def __init__(self, *arguments: object, take: Take, **options: object) -> None:
        """Take what aiohttp gives its connections; ``take`` answers pushes."""
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self._taker = take
        #: Whether what comes next is the beginning of a request, for all we know.
        self._plain = True
        self._taking: asyncio.Task[None] | None = None
        #: A push whose body is on its way, or what came behind one that is being answered.
        self._begun = b""
        self._rest: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Answer a push, or have what came parsed, without a repeated content type in a request's head."""
        if self._begun:
            data, self._begun = self._begun + data, b""
        if self._taking is not None:
            # One answer after the other; nothing more is read until then.
            self._begun = data
            self._transport.pause_reading()
            return
        push = None
        if self._plain and self._idle and data.startswith(b"POST /n/"):
            push = whole(data, self._peer)
            if push is None and begun(data):
                # Nobody has judged its signature yet: all of it comes within one time, however slowly it drips.
                self._begun = data
                self._rest = self._rest or self._loop.call_later(_REST_S, self._give_over)
                return
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if push is None:
            self._give(data)
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        self._taking = self._loop.create_task(self._respond(push), name="take a push")

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait for nothing any longer; what is being taken in is kept all the same."""
        super().connection_lost(exc)
        if self._rest is not None:
            self._rest.cancel()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - as aiohttp calls it
        """Answer what was taken before the connection ends."""
        self._force_close = True
        if self._taking is not None:
            await asyncio.wait((self._taking,), timeout=timeout and timeout / 2)
        await super().shutdown(timeout and timeout / 2)

    @property
    def _transport(self) -> asyncio.Transport:
        return cast("asyncio.Transport", self.transport)

    @property
    def _peer(self) -> str | None:
        name = self.peername
        return str(name[0]) if isinstance(name, tuple | list) else None

    def _give_over(self) -> None:
        self._rest = None
        data, self._begun = self._begun, b""
        self._give(data)

    def _give(self, data: bytes) -> None:
        if data.startswith(b"POST /n/"):
            data = said_once(data)
        # From a piece of a request on nobody here knows where the next one begins.
        self._plain = False
        super().data_received(data)

    async def _respond(self, push: Push) -> None:
        answer = await self._taker(push)
        if self.transport is not None:
            self._transport.write(bytes(answer))
        there = await self.has_read()
        self._taking = None
        if not there:
            return
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._begun:
            data, self._begun = self._begun, b""
            self._transport.resume_reading()
            self.data_received(data)


class EdgeRunner(Runner):
    """Serves the listener."""

    __slots__ = ("_take",)
    protocol = EdgeProtocol

    def __init__(self, *arguments: Any, take: Take, **options: Any) -> None:
        """As AppRunner does; ``take`` answers pushes that need no framework."""
        super().__init__(*arguments, **options)
        self._take = take

    def protocol_options(self) -> dict[str, Any]:
        """Return what a connection of this listener needs beside aiohttp's own."""
        return {**super().protocol_options(), "take": self._take}


def said_once(data: bytes) -> bytes:
    """Return a request whose head names its content type once, the first time."""
    head, end, rest = data.partition(_HEAD_END)
    said = list(_CONTENT_TYPE.finditer(head))
    for again in reversed(said[1:]):
        head = head[: again.start()] + head[again.end() :]
    return head + end + rest
