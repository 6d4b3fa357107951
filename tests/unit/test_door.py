from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.typedefs import Handler

from broker.api import whole
from broker.api.context import Limits
from broker.api.door import Door, complete
from broker.api.routes import ROUTES
from broker.api.server import Runner
from broker.api.whole import Whole
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
        _HEAD + b"Content-Length:\t2\r\n\r\n",
        _HEAD + b"Content-Length: 2 \r\n\r\n",
        _HEAD + b"Content-Length: 00000002\r\n\r\n",
        _HEAD + b"Content-Length:\r\n 2\r\n\r\n",
        _HEAD + b"Content-Length: 0\r\nContent-Length:\t2\r\n\r\n",
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


async def _hang(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


@asynccontextmanager
async def _served(
    door: Door, handler: Handler = _hang, *, room: int = 4096, patience_s: float = 0.1
) -> AsyncIterator[Runner]:
    """A server behind the door; ``room`` bytes wait in the kernel for who does not read."""
    app = web.Application()
    app.router.add_post("/v1/bindings", handler)
    runner = Runner(app, door=door, access_log=None, shutdown_timeout=patience_s)
    await runner.setup()
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        await web.SockSite(runner, listening).start()
        yield runner
        await runner.cleanup()


class _Binds:
    """Answers binds that came in one piece, and remembers them."""

    def __init__(self, answer: bytes = b"{}") -> None:
        self.bodies: list[bytes] = []
        self.answer = whole.write(201, {}, answer)

    async def __call__(self, bind: Whole) -> bytes:
        self.bodies.append(bind.body)
        return self.answer


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the server's own doing
            await asyncio.sleep(0)


async def _connected(runner: Runner, room: int) -> socket.socket:
    """A client that reads only when told to."""
    deaf = socket.socket()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    deaf.setblocking(False)  # noqa: FBT003 - as sockets have it
    await asyncio.get_running_loop().sock_connect(deaf, runner.addresses[0])
    return deaf


async def test_who_is_let_in_counts_from_the_wire_until_the_connection_ends(gate: Gate, door: Door) -> None:
    """Requests that come in the same moment are let in up to the limit and no further; who hangs up counts no more."""
    async with _served(door) as runner:
        await _come_and_go(gate, runner.addresses[0][1])
    assert isinstance(door.look(_WHOLE), Work)


async def _come_and_go(gate: Gate, port: int) -> None:
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


async def test_who_does_not_read_its_answers_is_not_read_from() -> None:
    """Nothing more is begun for it, and its next bind is carried out when it has read."""
    binds, room, loop = _Binds(b"x" * 1_000_000), 65_536, asyncio.get_running_loop()
    calm = Gate(lambda: 0.0, longest_wait_s=1.0, most=100)
    async with _served(Door(calm, Metrics(), ROUTES, Limits(), binds), room=room) as runner:
        with await _connected(runner, room) as deaf:
            await loop.sock_sendall(deaf, _WHOLE)
            await _until(lambda: len(binds.bodies) == 1)
            await loop.sock_sendall(deaf, _WHOLE.replace(b"{}", b"[]"))
            reader, writer = await asyncio.open_connection(*runner.addresses[0])
            writer.write(_WHOLE.replace(b"{}", b"77"))
            async with asyncio.timeout(30):
                # Whoever comes later is answered meanwhile.
                await reader.readexactly(len(binds.answer))
                assert binds.bodies == [b"{}", b"77"]
                unread = 2 * len(binds.answer)
                while unread:
                    came = await loop.sock_recv(deaf, room)
                    assert came
                    unread -= len(came)
            assert binds.bodies == [b"{}", b"77", b"[]"]
            writer.close()


async def test_who_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while its connection is closed, and what it was to be told is forgotten."""
    monkeypatch.setattr("broker.api.door._SLOW_S", 0.1)
    binds = _Binds(b"x" * 1_000_000)
    calm = Gate(lambda: 0.0, longest_wait_s=1.0, most=100)
    async with _served(Door(calm, Metrics(), ROUTES, Limits(), binds)) as runner:
        with await _connected(runner, 4096) as deaf:
            await asyncio.get_running_loop().sock_sendall(deaf, _WHOLE)
            await _until(lambda: len(binds.bodies) == 1)
            await _until(lambda: runner.server is not None and not runner.server.connections)


@pytest.mark.parametrize("whole_", [True, False])
async def test_who_takes_nothing_does_not_hold_up_the_end(*, whole_: bool) -> None:
    """It is waited for as long as a shutdown waits, and not twice as long."""
    loop, binds, came = asyncio.get_running_loop(), _Binds(b"x" * 10_000_000), asyncio.Event()

    async def answer(_request: web.Request) -> web.Response:
        came.set()
        return web.Response(body=binds.answer)

    calm = Gate(lambda: 0.0, longest_wait_s=1.0, most=100)
    door = Door(calm, Metrics(), ROUTES, Limits(), binds if whole_ else None)
    async with _served(door, answer, patience_s=2.0) as runner:
        with await _connected(runner, 4096) as deaf:
            await loop.sock_sendall(deaf, _WHOLE)
            await _until(lambda: bool(binds.bodies) or came.is_set())
            begun = loop.time()
            await runner.cleanup()
            assert loop.time() - begun < 3.8


async def test_who_is_turned_away_and_does_not_read_costs_no_memory(gate: Gate) -> None:
    """Once its answers pile up it is no longer answered from the door but waited for, as everybody."""
    binds, loop, before = _Binds(), asyncio.get_running_loop(), sum(gate.refused.values())
    async with _served(Door(gate, Metrics(), ROUTES, Limits(), binds)) as runner:
        with await _connected(runner, 4096) as deaf:
            for sent in range(2_000):
                await loop.sock_sendall(deaf, _WHOLE)
                await _until(lambda: sum(gate.refused.values()) - before + len(binds.bodies) > sent)  # noqa: B023
                if binds.bodies:
                    break
    assert binds.bodies


@pytest.mark.parametrize("length", [b"Content-Length:\t%d", b"Content-Length: %d ", b"Content-Length: %08d"])
async def test_a_body_is_never_taken_for_a_request(length: bytes) -> None:
    """However its length is written, and though it looks like a bind."""
    binds, came = _Binds(), asyncio.Event()

    async def echo(request: web.Request) -> web.Response:
        came.set()
        return web.Response(body=await request.read())

    calm = Gate(lambda: 0.0, longest_wait_s=1.0, most=100)
    async with _served(Door(calm, Metrics(), ROUTES, Limits(), binds), echo) as runner, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(_HEAD + length % len(_WHOLE) + b"\r\n\r\n")
        await came.wait()
        writer.write(_WHOLE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(len(_WHOLE)) == _WHOLE
        writer.close()
    assert not binds.bodies
