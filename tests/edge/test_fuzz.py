"""Whatever is sent to the listener is answered by one of a few statuses, and what is signed and not too long is kept.

``TEST_FUZZ_S`` (5) seconds for each of three kinds: bodies by the contract's tables, bodies mangled byte by byte, and
whole requests mangled, in two pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict

from broker.domain.notice import PUSH_KINDS
from tests.edge.rig import Edge
from tests.edge.strategies import TOLD, bodies, mangled, signatures, wires

#: The service's own dice are thrown in another thread while hypothesis draws.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
FUZZ_S = float(os.environ.get("TEST_FUZZ_S", "5"))
_STATUSES = {200, 400, 401, 404, 405, 408, 413, 415, 417}
_SILENCE_S = 0.2
_HEAD = b"HTTP/1."


@contextmanager
def _all_caught(edge: Edge) -> Iterator[None]:
    """Nothing escapes a task or a callback, and no push is broken by us."""
    escaped: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: escaped.append(context))
    yield
    loop.set_exception_handler(None)
    assert escaped == []
    assert not [outcome for _, outcome in edge.counts.pushes if outcome in {"broken", "not_kept"}]


async def _fuzzed(
    edge: Edge, drawn: st.SearchStrategy[Any], send: Callable[[Any], Awaitable[int]], seconds: float = FUZZ_S
) -> Counter[int]:
    """Send what is drawn for so long; return the answers' statuses, and see that nothing is left undone."""
    loop, ends, answers = asyncio.get_running_loop(), time.monotonic() + seconds, Counter[int]()

    @settings(
        max_examples=10_000_000, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
    )
    @given(drawn)
    def one(what: Any) -> None:
        if time.monotonic() > ends:
            raise _Enough
        status = asyncio.run_coroutine_threadsafe(_status(send, what), loop).result(60)
        assert status in _STATUSES or not status, status
        answers[status] += 1

    with _all_caught(edge):
        with contextlib.suppress(_Enough):
            await asyncio.to_thread(one)
        await edge.settled()
    assert await edge.shop.value("SELECT count(*) FROM inbox WHERE state NOT IN ('done', 'unreadable')") == 0
    return answers


async def _status(send: Callable[[Any], Awaitable[int]], what: Any) -> int:
    return await send(what)


class _Enough(BaseException):
    """The time is over."""


async def test_bodies_of_the_contract(edge: Edge) -> None:
    """Every kind, questions among them, in both schemes, with fields of any value in the places of the contract's."""
    await edge.configure("UPDATE app SET mode = 'x'")
    await edge.pairs.active()

    async def send(what: tuple[tuple[str, Any], CIMultiDict[str]]) -> int:
        (kind, body), signed = what
        status, _ = await edge.push(kind, body, signed=signed)
        return status

    answers = Counter[int]()
    for what in TOLD:
        answers += await _fuzzed(edge, st.tuples(bodies(what), signatures()), send, FUZZ_S / len(TOLD))
    assert answers[200] > answers[401] > 0
    assert {kind for kind, _ in await edge.inbox()} == {"event", "cdr", "sms", "status", "unreadable"}
    assert {kind for kind, _ in edge.counts.questions} == {"event", "sms"}
    assert {("event", "connect"), ("sms", "forward")} <= set(edge.counts.questions)


async def test_bytes(edge: Edge) -> None:
    """Bodies mangled byte by byte, and none at all."""

    async def send(what: tuple[str, bytes]) -> int:
        status, _ = await edge.push(*what)
        return status

    packed = bodies().map(lambda told: orjson.dumps(told[1]))
    answers = await _fuzzed(
        edge, st.tuples(st.sampled_from(PUSH_KINDS), mangled(packed) | st.binary(max_size=60)), send
    )
    assert set(answers) == {200}


async def test_requests(edge: Edge) -> None:
    """Heads and bodies mangled byte by byte, in two pieces, on connections that stay: answered, or hung up on."""
    address = urlsplit(edge.url)
    wire = _Wire(address.hostname or "", address.port or 0)
    answers = await _fuzzed(edge, st.tuples(wires() | mangled(wires()), st.floats(0, 1)), wire.send)
    await wire.close()
    assert answers[200] > 0
    assert answers[400] > 0


class _Wire:
    """A connection that is kept until it is silent or gone."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, what: tuple[bytes, float]) -> int:
        """Send bytes in two pieces; return the status of the answer, 0 = there is none."""
        data, share = what
        at = int(len(data) * share)
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(data[:at])
        await asyncio.sleep(0)
        writer.write(data[at:])
        try:
            async with asyncio.timeout(_SILENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(_HEAD) and b"\r\nConnection: close" not in head and data.count(b"HTTP/1.1") == 1:
                    lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
                    await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0)
                    return int(head[9:12])
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = b""
        await self.close()
        return int(head[9:12]) if head.startswith(_HEAD) else 0

    async def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            with contextlib.suppress(OSError):
                await self._streams[1].wait_closed()
            self._streams = None
