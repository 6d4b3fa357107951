"""Many clients that send the same requests under the same keys until each of them has an answer that stays."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import orjson

from tests.faults.service import Json, Service

#: What a client tries again with the same key: a twin is at work, not now.
_AGAIN = frozenset({409, 503})
_ANSWER_S = 20.0
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Told:
    """An answer that is final for its key."""

    status: int
    location: str
    body: bytes


@dataclass
class Twins:
    """``keys`` binds, each asked for by ``twins`` clients at once, over ``connections`` kept connections."""

    service: Service
    keys: int
    twins: int
    connections: int
    told: list[Counter[Told]] = field(init=False)
    first: list[int] = field(init=False)
    answered: int = 0
    lost: int = 0
    repeated: Counter[int] = field(default_factory=Counter)
    _todo: deque[tuple[int, float]] = field(init=False)
    _requests: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        """Compose the requests; twins of a key follow each other."""
        self.told = [Counter() for _ in range(self.keys)]
        self.first = [0] * self.keys  # answers without Idempotency-Replayed
        self._todo = deque((key, 0.0) for key in range(self.keys) for _ in range(self.twins))
        self._requests = [self._request(key) for key in range(self.keys)]

    def order(self, key: int) -> Json:
        """Return the order of a key; no two share a party."""
        return {"a": f"+86139{key:08d}", "b": f"+86138{key:08d}", "order_id": f"twins-{key}"}

    def _request(self, key: int) -> bytes:
        address = urlsplit(self.service.told["api"])
        body = orjson.dumps(self.order(key))
        lines = (
            "POST /v1/bindings HTTP/1.1",
            f"Host: {address.netloc}",
            f"Authorization: {self.service.headers['Authorization']}",
            f"Idempotency-Key: twins-{key}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "\r\n",
        )
        return "\r\n".join(lines).encode() + body

    async def run(self, *, within_s: float) -> None:
        """Send all, again and again what was not answered for good."""
        async with asyncio.timeout(within_s):
            await asyncio.gather(*(self._client() for _ in range(self.connections)))

    async def _client(self) -> None:
        address = urlsplit(self.service.told["api"])
        while self._todo:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(address.hostname, address.port)
                try:
                    while await self._next(reader, writer):
                        pass
                finally:
                    writer.close()
            await asyncio.sleep(0.05)

    async def _next(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send the next request and take its answer; False = nothing is left, or the connection is of no use."""
        if not self._todo:
            return False
        key, not_before = self._todo.popleft()
        await asyncio.sleep(max(not_before - time.monotonic(), 0.0))
        try:
            async with asyncio.timeout(_ANSWER_S):
                writer.write(self._requests[key])
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(_header(head, b"Content-Length")))
        except (OSError, EOFError, TimeoutError):
            self.lost += 1
            self._todo.append((key, time.monotonic() + _PAUSE_S))
            return False
        self._take(key, head, body)
        return True

    def _take(self, key: int, head: bytes, body: bytes) -> None:
        status = int(head[9:12])
        if status in _AGAIN:
            self.repeated[status] += 1
            self._todo.append((key, time.monotonic() + _PAUSE_S))
            return
        self.answered += 1
        self.first[key] += not _header(head, b"Idempotency-Replayed")
        self.told[key][Told(status, _header(head, b"Location").decode(), body)] += 1


def _header(head: bytes, name: bytes) -> bytes:
    at = head.find(b"\r\n" + name + b": ")
    return head[at + len(name) + 4 : head.index(b"\r", at + 2)] if at >= 0 else b""
