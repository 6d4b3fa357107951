"""The wire's transport: HTTP/1.1 on httptools, one protocol object per connection.

docs/decisions/0003-emulator-wire-server.md has the figures against ``aiohttp.web.Server``.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, cast

import httptools

from broker.emulator.times import EmulatorClock, http_date
from broker.emulator.wire import Ending, Handling, Wire, WireRequest

BODY_CAP: Final = 64 * 1024
_DISCARD_CAP: Final = 8 * 1024 * 1024
_HEAD_CAP: Final = 32 * 1024
_PIPELINE_CAP: Final = 64
_LINGER_RST: Final = struct.pack("ii", 1, 0)
# Where a header goes in the request; "" is one that is not kept, listed to spare it the second look-up.
_HEADERS: Final = {
    spelling: attribute
    for name, attribute in (
        (b"Authorization", "authorization"),
        (b"X-AKSK", "x_aksk"),
        (b"X-WSSE", "x_wsse"),
        (b"Expect", "expect"),
        (b"Host", "host"),
        (b"Accept", ""),
        (b"Content-Type", ""),
        (b"Content-Length", ""),
    )
    for spelling in (name, name.lower())
}
_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


@functools.lru_cache(maxsize=64)
def _head(http: int, second: int, kind: str, *, keep_alive: bool) -> bytes:
    """Return an answer's head up to the length of its body; ``kind`` is empty for one without."""
    described = f"Content-Type: {kind}\r\n" if kind else ""
    return (
        f"HTTP/1.1 {http} {_REASONS.get(http, 'Unknown')}\r\n"
        f"Date: {http_date(second * 1000)}\r\n{described}"
        f"Connection: {'keep-alive' if keep_alive else 'close'}\r\nContent-Length: "
    ).encode("ascii")


class WireListener:
    """Accepts connections, and owns the timers of delayed answers and late commits."""

    def __init__(self, wire: Wire, clock: EmulatorClock, *, keep_alive: bool) -> None:
        self.wire = wire
        self.clock = clock
        self.keep_alive = keep_alive
        self.scheme = "http"
        self.connections: set[WireConnection] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._server: asyncio.Server | None = None

    async def start(self, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Serve on a bound socket."""
        loop = asyncio.get_running_loop()
        self.scheme = "https" if tls else "http"
        self._server = await loop.create_server(lambda: WireConnection(self), sock=sock, ssl=tls, backlog=1024)

    async def stop(self) -> None:
        """Close the listener and every connection; answers and commits still waiting for their time never come."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()
        if self._server is not None:
            await self._server.wait_closed()

    def after(self, delay_s: float, action: Callable[[], object]) -> None:
        """Run ``action`` in ``delay_s`` real seconds unless the listener stops before."""

        def run() -> None:
            self._timers.discard(timer)
            action()

        timer = asyncio.get_running_loop().call_later(delay_s, run)
        self._timers.add(timer)


class WireConnection(asyncio.Protocol):
    """One connection. Requests are handled in order; a delayed one holds up those behind it."""

    def __init__(self, listener: WireListener) -> None:
        self._listener = listener
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[WireRequest] = deque()
        self._busy = False  # a delayed answer is due
        self._choked = False  # the client does not read its answers
        self._paused = False
        self._deaf = False  # whatever else comes in is not looked at
        self._peer = ""

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the source address."""
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self._peer = address[0] if isinstance(address, tuple) else str(address or "")
        self._listener.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget what was queued; what is executing goes on."""
        del exc
        self._deaf = True
        self._waiting.clear()
        self._listener.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        """Parse, then handle: an exception inside a parser callback would lose its kind."""
        if self._deaf:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(HTTPStatus.BAD_REQUEST)
        except httptools.HttpParserError:
            if not self._deaf:
                self._pump()
                self._refuse(HTTPStatus.BAD_REQUEST)
        else:
            self._pump()

    def pause_writing(self) -> None:
        """Stop answering a client that does not read."""
        self._choked = True
        self._pump()

    def resume_writing(self) -> None:
        """Go on."""
        self._choked = False
        self._pump()

    # --- httptools callbacks

    def on_message_begin(self) -> None:
        """Start an empty request."""
        self._request = WireRequest(self._peer)
        self._head_size = 0
        self._body_size = 0
        self._chunks: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        """Collect the request target."""
        self._head_size += len(url)
        self._request.target += url.decode("latin-1")

    def on_header(self, name: bytes, value: bytes | None) -> None:
        """Keep the headers that mean something here; of a repeated one the first."""
        value = value or b""
        self._head_size += len(name) + len(value)
        if self._head_size > _HEAD_CAP:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        attribute = _HEADERS.get(name)
        if attribute is None:
            attribute = _HEADERS.get(name.lower(), "")
        if attribute and getattr(self._request, attribute) is None:
            setattr(self._request, attribute, value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """Let a careful client send its body."""
        if self._request.expect is not None and not self._deaf:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Collect the body up to the cap; beyond it, read and throw away, so that the answer can be read."""
        self._body_size += len(body)
        if self._body_size <= BODY_CAP:
            self._chunks.append(body)
        elif self._body_size > _DISCARD_CAP:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            self._chunks.clear()

    def on_message_complete(self) -> None:
        """Queue the request."""
        if self._deaf:
            return
        request = self._request
        request.method = self._parser.get_method().decode("ascii")
        request.body = b"".join(self._chunks) if self._body_size <= BODY_CAP else None
        request.keep_alive = self._listener.keep_alive and self._parser.should_keep_alive()
        self._waiting.append(request)

    # --- handling

    def abort(self) -> None:
        """End the connection without another byte."""
        self._deaf = True
        self._waiting.clear()
        self._transport.abort()

    def _pump(self) -> None:
        while self._waiting and not self._busy and not self._choked and not self._deaf:
            request = self._waiting.popleft()
            self._carry_out(request, self._listener.wire.handle(request))
        self._set_paused(self._busy or self._choked or len(self._waiting) > _PIPELINE_CAP)

    def _carry_out(self, request: WireRequest, handling: Handling) -> None:
        match handling.ending:
            case Ending.ANSWER if handling.delay_s or handling.later:
                self._busy = True
                self._listener.after(handling.delay_s, lambda: self._resume(request, handling))
            case Ending.ANSWER:
                self._answer(request, handling)
            case Ending.CLOSE:
                self._close()
                if handling.later is not None:
                    self._listener.after(handling.delay_s, handling.later)
            case Ending.ABORT:
                self._reset()

    def _resume(self, request: WireRequest, handling: Handling) -> None:
        done = handling.later() if handling.later is not None else handling
        self._busy = False
        if not self._deaf:
            self._answer(request, done)
            self._pump()

    def _answer(self, request: WireRequest, handling: Handling) -> None:
        body = handling.body
        second = self._listener.clock.now_ms() // 1000
        head = _head(handling.http, second, handling.kind if body else "", keep_alive=request.keep_alive)
        place = self._location(request, handling.location) if handling.location else b""
        self._transport.write(b"%b%d\r\n%b\r\n%b" % (head, len(body), place, body))
        if not request.keep_alive:
            self._close()

    def _location(self, request: WireRequest, path: str) -> bytes:
        base = f"{self._listener.scheme}://{request.host}" if request.host else ""
        return f"Location: {base}{path}\r\n".encode("latin-1")

    def _refuse(self, status: HTTPStatus) -> None:
        """Answer something that is no request of the platform's, and close."""
        if not self._deaf:
            self._answer(WireRequest(self._peer, keep_alive=False), Handling(status))

    def _close(self) -> None:
        self._deaf = True
        self._waiting.clear()
        self._transport.close()

    def _reset(self) -> None:
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RST)
        self.abort()

    def _set_paused(self, paused: bool) -> None:  # noqa: FBT001 - a state, not an option
        if paused == self._paused or self._transport.is_closing():
            return
        self._paused = paused
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
