from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from broker.api.context import Limits
from broker.api.door import Door, complete
from broker.api.routes import ROUTES
from broker.api.server import Runner
from broker.domain.admission import FEWEST, Gate, Work
from broker.metrics import Metrics

_HEAD = b"POST /v1/bindings HTTP/1.1\r\nHost: h\r\n"
_WHOLE = _HEAD + b"Content-Length: 2\r\n\r\n{}"


@pytest.fixture
def gate() -> Gate:
    """A gate that sheds, with more in work than it lets wait."""
    times = iter((0.0, 0.0, 1.0))
    made = Gate(lambda: next(times, 1.0), longest_wait_s=0.05, most=10_000)
    assert made.refuses("POST /v1/bindings", 3.0) is None
    for _ in range(200):
        made.begin("POST /v1/bindings")
    assert made.refuses("POST /v1/bindings", 3.0) is not None
    return made


@pytest.fixture
def door(gate: Gate) -> Door:
    """A door in front of it."""
    return Door(gate, Metrics(), ROUTES, Limits())


@pytest.mark.parametrize(
    "whole",
    [
        _WHOLE,
        b"GET /v1/pools HTTP/1.1\r\nHost: h\r\n\r\n",
        _HEAD + b"connection: keep-alive\r\ncontent-length: 2\r\n\r\n{}",
        _HEAD + b"Content-Length: 0\r\n\r\n",
    ],
)
def test_a_whole_request_is_known(whole: bytes) -> None:
    """Head and body, and nothing else."""
    assert complete(whole)


@pytest.mark.parametrize(
    "other",
    [
        b"",
        _HEAD,
        _WHOLE[:-1],
        _WHOLE + _WHOLE,
        _HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        _HEAD + b"Content-Length: -2\r\n\r\n{}",
        _HEAD + b"Content-Length: 2, 2\r\n\r\n{}",
        _HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
        _HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}",
        _HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
        _HEAD + b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n",
        _HEAD + b"Upgrade: h2c\r\n\r\n",
        _HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        _HEAD + b"X: " + b"x" * 10_000 + b"\r\n\r\n",
    ],
)
def test_what_needs_the_framework_goes_there(door: Door, other: bytes) -> None:
    """Parts, several at once, doubtful lengths and whatever is negotiated."""
    assert not complete(other)
    assert door.look(other) is None


@pytest.mark.parametrize(
    ("line", "known"),
    [
        (b"POST /v1/bindings HTTP/1.1", True),
        (b"DELETE /v1/bindings/bnd_1 HTTP/1.1", True),
        (b"GET /v1/bindings?state=active HTTP/1.1", True),
        (b"GET /v1/bindings/bnd_1/peers/2 HTTP/1.1", True),
        (b"GET /v1/bindings/bnd_1/else HTTP/1.1", False),
        (b"POST /v1/bindingsX HTTP/1.1", False),
        (b"POST /v1/bindings HTTP/1.0", False),
        (b"HEAD /v1/pools HTTP/1.1", False),
        (b"GET /livez HTTP/1.1", False),
        (b"GET /v1/operator/apps HTTP/1.1", False),
    ],
)
def test_only_order_systems_routes_are_answered_here(door: Door, line: bytes, known: bool) -> None:  # noqa: FBT001
    """Health, pages and what nobody knows go on."""
    answer = door.look(line + b"\r\nHost: h\r\n\r\n")
    assert isinstance(answer, bytes) is known
    if isinstance(answer, bytes):
        assert answer.startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("text", [b"soon", b"0.01", b"31", b"-1", b"nan", b""])
def test_a_time_that_makes_no_sense_is_not_judged_here(door: Door, text: bytes) -> None:
    """Who sends it is told so by the framework's way."""
    assert door.look(_HEAD + b"Request-Timeout: " + text + b"\r\n\r\n") is None


def test_a_phone_for_an_id_is_not_repeated(door: Door) -> None:
    """As everywhere else."""
    answer = door.look(_HEAD + b"X-Request-Id: +8613900000001\r\n\r\n")
    assert isinstance(answer, bytes)
    assert b"13900000001" not in answer
    answer = door.look(_HEAD + b"X-Request-Id: order-7\r\n\r\n")
    assert isinstance(answer, bytes)
    assert b"X-Request-Id: order-7\r\n" in answer


@pytest.fixture
async def port(door: Door) -> AsyncIterator[int]:
    """A server behind the door whose handler never ends."""

    async def hang(_request: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    app = web.Application()
    app.router.add_post("/v1/bindings", hang)
    runner = Runner(app, door=door, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        await web.SockSite(runner, listening).start()
        yield listening.getsockname()[1]
        await runner.cleanup()


async def test_who_is_let_in_counts_from_the_wire_until_the_connection_ends(gate: Gate, door: Door, port: int) -> None:
    """Requests that come in the same moment are let in up to the limit and no further; who hangs up counts no more."""
    gate.items = gate.singles = 0
    before = sum(gate.refused.values())
    lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
    for _, writer in lines:
        writer.write(_WHOLE)
    async with asyncio.timeout(30):
        while sum(gate.refused.values()) - before + gate.singles < len(lines):  # noqa: ASYNC110 - the server's own doing
            await asyncio.sleep(0.01)
    assert FEWEST <= gate.singles <= 30
    assert sum(gate.refused.values()) == len(lines) + before - gate.singles
    for _, writer in lines:
        writer.close()
    async with asyncio.timeout(30):
        while gate.singles:  # noqa: ASYNC110 - the server's own doing
            await asyncio.sleep(0.01)
    assert gate.items == 0
    assert isinstance(door.look(_WHOLE), Work)
