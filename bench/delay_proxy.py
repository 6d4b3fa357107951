"""A TCP proxy that holds every piece of data for half of a given round trip, in each direction.

``python -m bench.delay_proxy HOST PORT ROUND_TRIP_MS`` prints the port it listens on (127.0.0.1) and runs until its
input ends. Timers of event loops count milliseconds; this one uses a ``timerfd`` (Linux), which is good for 0.05 ms.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import time
from collections import deque
from typing import cast

_CLOCK_MONOTONIC = 1
_NONBLOCKING = os.O_NONBLOCK | os.O_CLOEXEC
_NS = 1_000_000_000


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSetting(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Line:
    """What is on its way, in order: everything is held for the same time, so a queue is enough."""

    def __init__(self, hold_s: float) -> None:
        """Hold each piece for ``hold_s`` seconds."""
        self._hold_ns = int(hold_s * _NS)
        self._waiting: deque[tuple[int, asyncio.Transport, bytes | None]] = deque()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._timer = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCKING)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        asyncio.get_running_loop().add_reader(self._timer, self._due)

    def send(self, target: asyncio.Transport, piece: bytes | None) -> None:
        """Write ``piece`` to ``target`` when its time has come; None = close it."""
        self._waiting.append((time.monotonic_ns() + self._hold_ns, target, piece))
        if len(self._waiting) == 1:
            self._arm()

    def _due(self) -> None:
        os.read(self._timer, 8)
        now = time.monotonic_ns()
        while self._waiting and self._waiting[0][0] <= now:
            _, target, piece = self._waiting.popleft()
            if piece is None:
                target.close()
            elif not target.is_closing():
                target.write(piece)
        if self._waiting:
            self._arm()

    def _arm(self) -> None:
        left = max(self._waiting[0][0] - time.monotonic_ns(), 1)
        setting = _TimerSetting(_Timespec(0, 0), _Timespec(left // _NS, left % _NS))
        self._libc.timerfd_settime(self._timer, 0, ctypes.byref(setting), None)


class _Side(asyncio.Protocol):
    """One end of a connection; what it hears goes to the other end through the line."""

    def __init__(self, line: Line, other: asyncio.Transport | None = None) -> None:
        self._line = line
        self.other = other
        self.transport: asyncio.Transport | None = None
        self._early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early.append(data)
        else:
            self._line.send(self.other, data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        if self.other is not None:
            self._line.send(self.other, None)

    def join(self, other: asyncio.Transport) -> None:
        """From now on ``other`` hears what this end says."""
        self.other = other
        for data in self._early:
            self._line.send(other, data)


class _Client(_Side):
    """The end that called us: makes the other one."""

    def __init__(self, line: Line, host: str, port: int) -> None:
        super().__init__(line)
        self._target = (host, port)
        self._joining: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._joining = asyncio.get_running_loop().create_task(self._connect(cast("asyncio.Transport", transport)))

    async def _connect(self, own: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(lambda: _Side(self._line, own), *self._target)
        self.join(transport)


async def serve(host: str, port: int, round_trip_ms: float) -> None:
    """Serve until the input ends."""
    loop = asyncio.get_running_loop()
    line = Line(round_trip_ms / 2000)
    server = await loop.create_server(lambda: _Client(line, host, port), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
