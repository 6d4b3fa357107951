"""A platform of raw sockets: each test writes the bytes itself, and every request is counted at the socket."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bench import certificate
from broker.platform.huawei.http import HttpClient, HttpOptions
from broker.platform.huawei.origin import Dialer, Origin, TlsOptions

SUCCESS = b'{"resultcode":"0","resultdesc":"Success"}'
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Wire:
    """One accepted connection, as a script sees it."""

    def __init__(self, platform: RawPlatform, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._platform = platform
        self._reader = reader
        self._writer = writer
        self.number = platform.connections

    async def request(self) -> bytes | None:
        """Return the next whole request, or ``None`` when the client has closed."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await self._reader.readexactly(int(length[1])) if length else b""
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self._platform.requests.append(head + body)
        return head + body

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._writer.write(data)

    async def close(self) -> None:
        """Close in good order, before the client does."""
        self._writer.close()
        await self._writer.wait_closed()

    def reset(self) -> None:
        """Drop the connection."""
        self._writer.transport.abort()

    async def gone(self) -> None:
        """Return when the client has closed."""
        try:
            while await self._reader.read(65536):
                pass
        except ConnectionError:
            pass


Script = Callable[[Wire], Awaitable[None]]


class RawPlatform:
    """Runs ``script`` once per connection; ``requests`` are all that arrived whole, on any connection."""

    def __init__(self, script: Script, tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0

    @property
    def base_url(self) -> str:
        """The access address."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._tls, limit=1 << 22)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._server.close()
        await self._server.wait_closed()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def scripts_end(self) -> None:
        """Return when no connection's script runs any more."""
        await asyncio.gather(*self._tasks)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with suppress(asyncio.CancelledError):  # the end of the test
                await self._script(Wire(self, reader, writer))
        finally:
            self._tasks.discard(task)
            writer.transport.abort()


def answer(body: bytes = SUCCESS, status: int = 200, headers: str = "") -> bytes:
    """Return a well-formed answer with a length."""
    return f"HTTP/1.1 {status} Any\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def steadily(data: bytes) -> Script:
    """Return a script that answers every request with the same bytes and leaves the connection open."""

    async def script(wire: Wire) -> None:
        while await wire.request() is not None:
            wire.send(data)

    return script


def once(*parts: bytes, then: str = "wait") -> Script:
    """Return a script that answers one request with ``parts`` and then waits, closes or resets."""

    async def script(wire: Wire) -> None:
        if await wire.request() is None:
            return
        for part in parts:
            wire.send(part)
        if then == "close":
            await wire.close()
        elif then == "reset":
            wire.reset()
        else:
            await wire.gone()

    return script


def http_client(platform: RawPlatform, options: HttpOptions | None = None, tls: TlsOptions | None = None) -> HttpClient:
    """Return a client for ``platform``."""
    return HttpClient(Dialer(Origin.parse(platform.base_url), tls), options or HttpOptions())


def self_signed(folder: Path) -> tuple[ssl.SSLContext, str]:
    """Make a certificate for 127.0.0.1; return the server's context and the file a client should trust."""
    path = certificate.self_signed(folder / "cert.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, str(path)
