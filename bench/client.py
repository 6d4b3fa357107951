"""One client of the load: a connection, the request under way on it, and what has become of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Protocol

from bench.connection import Connection
from bench.history import Outcome
from bench.plan import Ask, Plan

_RECONNECT_S = 0.1
#: Before a request without a final answer is sent again; doubled each time.
_AGAIN_S = 0.1
#: What another try may change: too many requests; a first try that nobody waited for is still under way.
_AGAIN = frozenset({409, 429})

now = time.monotonic


class Load(Protocol):
    """What a client needs of the load that it belongs to."""

    plan: Plan
    stopping: bool

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run a task."""

    def answered(self, client: Client, ask: Ask, outcome: Outcome, status: int, body: bytes) -> None:
        """Note what was seen of a request; it was sent at ``client.invoked``."""

    def idle(self, client: Client) -> None:
        """Give the client something to do."""


class Client:
    """Sends one request at a time. ``invoked`` is None while none is under way."""

    __slots__ = ("_ask", "_connection", "_load", "_tries", "intended", "invoked", "last")

    def __init__(self, load: Load) -> None:
        """Begin unconnected."""
        self._load = load
        self._connection: Connection | None = None
        self._ask: Ask | None = None
        self._tries = 0
        self.invoked: float | None = None
        self.intended = 0.0
        self.last = ""

    def send(self, ask: Ask, intended: float | None = None) -> None:
        """Send a request that was meant to start at ``intended`` (default: now)."""
        self._ask, self._tries, self.last = ask, 0, ask.op
        self._send(ask)
        if self.invoked is not None:
            self.intended = self.invoked if intended is None else intended

    def _send(self, ask: Ask) -> None:
        self.invoked = now()
        if self._connection is not None:
            self._connection.send(ask.request)
        else:
            self._load.spawn(self._connect_and_send(ask.request))

    async def connect(self) -> None:
        """Open the connection."""
        plan = self._load.plan
        loop = asyncio.get_running_loop()
        _, self._connection = await loop.create_connection(
            lambda: Connection(self._answered, self._lost), plan.host, plan.port
        )

    async def _connect_and_send(self, request: bytes) -> None:
        try:
            await self.connect()
        except OSError:
            await asyncio.sleep(_RECONNECT_S)
            self._over("refused", 0, b"")
            return
        if self._connection is not None:
            self._connection.send(request)

    def hang_up(self) -> None:
        """Give up what is under way."""
        if self._connection is not None:
            self._connection.close()

    def _lost(self, connection: Connection) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        if self.invoked is not None:
            self._over("unknown", 0, b"")

    def _answered(self, status: int, body: bytes) -> None:
        if not self._load.plan.keep_alive and self._connection is not None:
            self._connection.close()
            self._connection = None
        outcome: Outcome = "unknown"
        if status == (201 if self.last == "bind" else 200):
            outcome = "ok"
        elif 400 <= status < 500:
            outcome = "refused"
        self._over(outcome, status, body)

    def _over(self, outcome: Outcome, status: int, body: bytes) -> None:
        ask = self._ask
        if self.invoked is None or ask is None:
            return
        self._load.answered(self, ask, outcome, status, body)
        self.invoked = None
        final = 200 <= status < 500 and (status not in _AGAIN or (status == 409 and not self._tries))
        if final or ask.op != "bind" or self._tries >= self._load.plan.retries or self._load.stopping:
            self._load.idle(self)
            return
        wait = _AGAIN_S * 2**self._tries
        self._tries += 1
        asyncio.get_running_loop().call_later(wait, self._again, ask)

    def _again(self, ask: Ask) -> None:
        if self._load.stopping:
            self._load.idle(self)
        else:
            self._send(ask)
