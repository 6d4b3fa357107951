"""One HTTP/1.1 connection of the load: a request out, its answer in, in callbacks and without tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

Answered = Callable[[int, bytes], None]
Lost = Callable[["Connection"], None]


class Connection(asyncio.Protocol):
    """Calls ``answered(status, body)`` for each answer and ``lost(self)`` when the connection is gone."""

    __slots__ = ("_answered", "_buffer", "_lost", "_transport")

    def __init__(self, answered: Answered, lost: Lost) -> None:
        """Take the callbacks."""
        self._answered = answered
        self._lost = lost
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def send(self, request: bytes) -> None:
        """Write a request; the one before has been answered."""
        if self._transport is not None:
            self._transport.write(request)

    def close(self) -> None:
        """Hang up; ``lost`` is called."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so."""
        del exc
        self._transport = None
        self._lost(self)

    def data_received(self, data: bytes) -> None:
        """Wait for head and body (the broker always sends Content-Length), then hand them over."""
        if self._buffer:
            data = self._buffer + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = data
            return
        at = data.find(b"Content-Length: ", 0, end)
        length = int(data[at + 16 : data.find(b"\r", at, end + 1)]) if at > 0 else 0
        if len(data) < end + 4 + length:
            self._buffer = data
            return
        self._buffer = b""
        self._answered(int(data[9:12]), data[end + 4 : end + 4 + length])
