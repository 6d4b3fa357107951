"""A small keep-alive HTTP/1.1 client for one origin: never resends, never follows, and every wait has an end.

Why not aiohttp's client: ``docs/decisions/0004-platform-http-client.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from broker.platform.huawei.connection import AnswerRules, CallError, Connection, HttpAnswer
from broker.platform.huawei.origin import Dialer
from broker.platform.protocol import Permit

__all__ = ["CallError", "HttpAnswer", "HttpClient", "HttpOptions"]

#: How long a server that announced to close gets for it, before we do.
LINGER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Bounds of one application's lane. ``keep_alive`` off asks the server to close after each answer."""

    max_connections: int = 64
    max_waiting: int = 1024
    idle_s: float = 15.0
    keep_alive: bool = True
    head_cap_bytes: int = 16 * 1024
    answer_cap_bytes: int = 1024 * 1024


class HttpClient:
    """A pool of connections, the last one used first. Belongs to one event loop."""

    def __init__(self, dialer: Dialer, options: HttpOptions) -> None:
        self._dialer = dialer
        self._options = options
        self._rules = AnswerRules(options.head_cap_bytes, options.answer_cap_bytes, options.keep_alive)
        self._idle: list[Connection] = []  # in the order of their idle_since
        self._slots = 0  # connections in use, idle, or being opened
        self._queue: deque[asyncio.Future[Connection | None]] = deque()
        self._alive: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._running = 0
        self._closing = False
        self._quiet = asyncio.Event()

    async def call(self, compose: Callable[[], bytes], *, permit: Permit, deadline: float) -> HttpAnswer | None:
        """Send one request and return its answer, or ``None`` when the permit said no.

        ``compose`` makes the request (and so signs it) once a connection is there; permit and write follow it without
        an await. ``deadline`` is on the loop's clock and covers everything. Raises ``CallError``.
        """
        if self._closing:
            raise CallError("the client is closed", written=False)
        self._running += 1
        try:
            connection = self._take_idle() or await self._obtain(deadline)
            try:
                self._check_ready(connection, deadline)
                return await connection.exchange(compose(), permit, deadline)
            finally:
                self._give_back(connection)
        finally:
            self._running -= 1
            self._note_quiet()

    async def close(self) -> None:
        """Refuse new calls, let running ones end, close every connection and see it gone."""
        self._closing = True
        while self._running or self._alive:
            if not self._running:
                for connection in tuple(self._alive):
                    connection.abort()
            self._quiet.clear()
            await self._quiet.wait()
        if self._sweeper is not None:
            self._sweeper.cancel()

    def _note_quiet(self) -> None:
        if self._closing and not self._running:
            self._quiet.set()

    # Obtaining a connection.

    def _take_idle(self) -> Connection | None:
        oldest = asyncio.get_running_loop().time() - self._options.idle_s
        while self._idle:
            connection = self._idle.pop()
            if connection.idle_since > oldest and connection.is_quiet():
                return connection
            self._drop(connection)
        return None

    async def _obtain(self, deadline: float) -> Connection:
        """Open a connection if there is room for one, else queue for one that comes free, or for its room."""
        if self._slots < self._options.max_connections:
            self._slots += 1
            return await self._open(deadline)
        connection = await self._wait(deadline)
        if connection is not None and connection.is_quiet():
            return connection
        if connection is not None:
            connection.abort()
        return await self._open(deadline)

    async def _open(self, deadline: float) -> Connection:
        """Connect in a slot that is ours already."""
        try:
            async with asyncio.timeout_at(deadline):
                connection = await self._dialer.open(lambda: Connection(self._rules, self._lost))
        except TimeoutError:
            self._free_slot()
            raise CallError("no connection in time", written=False) from None
        except OSError as error:
            self._free_slot()
            raise CallError(f"no connection: {error}", written=False) from error
        except BaseException:
            self._free_slot()
            raise
        if connection.is_open():
            self._alive.add(connection)
        return connection

    async def _wait(self, deadline: float) -> Connection | None:
        """Return a connection handed over, or ``None`` for a free slot, which is then ours."""
        if len(self._queue) >= self._options.max_waiting:
            raise CallError("too many calls wait for a connection", written=False)
        waiter: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._queue.append(waiter)
        try:
            async with asyncio.timeout_at(deadline):
                return await waiter
        except TimeoutError:
            self._leave_queue(waiter)
            raise CallError("no free connection in time", written=False) from None
        except BaseException:
            self._leave_queue(waiter)
            raise

    def _leave_queue(self, waiter: asyncio.Future[Connection | None]) -> None:
        """Withdraw, passing on what was handed over in the moment of giving up."""
        if waiter.cancelled():
            with contextlib.suppress(ValueError):  # passed over already
                self._queue.remove(waiter)
        elif (connection := waiter.result()) is not None:
            self._give_back(connection)
        else:
            self._free_slot()

    @staticmethod
    def _check_ready(connection: Connection, deadline: float) -> None:
        if not connection.is_open():  # a new one, and the server did not want it
            raise CallError("the server closed the new connection", written=False)
        if asyncio.get_running_loop().time() >= deadline:
            raise CallError("no time left to send", written=False)

    # Giving it back.

    def _give_back(self, connection: Connection) -> None:
        if not connection.is_open():
            self._drop(connection)
        elif (waiter := self._next_waiter()) is not None:
            waiter.set_result(connection)
        else:
            loop = asyncio.get_running_loop()
            connection.idle_since = loop.time()
            self._idle.append(connection)
            if self._sweeper is None:
                self._sweeper = loop.call_later(self._options.idle_s, self._sweep)

    def _drop(self, connection: Connection) -> None:
        if connection.server_closes and connection in self._alive and not self._closing:
            asyncio.get_running_loop().call_later(LINGER_S, connection.abort)
        else:
            connection.abort()
        self._free_slot()

    def _free_slot(self) -> None:
        """Give the slot to whoever waits longest, or back."""
        waiter = self._next_waiter()
        if waiter is None:
            self._slots -= 1
        else:
            waiter.set_result(None)

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                return waiter
        return None

    def _lost(self, connection: Connection) -> None:
        """A connection is gone; one in use is dropped by its call, a lingering one has left already."""
        self._alive.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
            self._free_slot()
        self._note_quiet()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = None
        while self._idle and self._idle[0].idle_since <= loop.time() - self._options.idle_s:
            self._drop(self._idle.pop(0))
        if self._idle:
            self._sweeper = loop.call_at(self._idle[0].idle_since + self._options.idle_s, self._sweep)
