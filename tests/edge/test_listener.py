"""Pushes as bytes: whole ones are answered from the connection, others by the framework, and nobody can tell."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from itertools import pairwise
from urllib.parse import urlsplit

import orjson
import pytest
from aiohttp import web
from multidict import CIMultiDict

from broker.edge.listener import EdgeRunner
from broker.edge.push import Answer, Push, begun, whole
from tests.contract.service import eventually
from tests.edge.rig import SECRET, Edge, event, headers, session_id
from tests.edge.strategies import as_bytes

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def _push(session: str, *, key: str = "key", secret: str = SECRET) -> bytes:
    return as_bytes("events", CIMultiDict(headers(key=key, secret=secret)), orjson.dumps(event("answer", session)))


def _longer(sent: bytes, length: int) -> bytes:
    said = re.compile(rb"Content-Length: \d+")
    return said.sub(b"Content-Length: %d" % length, sent)


@pytest.fixture
async def wire(edge: Edge) -> AsyncIterator[Streams]:
    """A connection to the listener."""
    address = urlsplit(edge.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    yield reader, writer
    writer.close()
    await writer.wait_closed()


async def _status(wire: Streams) -> int:
    async with asyncio.timeout(30):
        head = await wire[0].readuntil(b"\r\n\r\n")
    assert b"\r\nContent-Length: 0\r\n" in head
    return int(head[9:12])


async def test_what_comes_whole_is_read_here() -> None:
    """A plain push is; one with anything odd about it, or with more behind it, is left to the framework."""
    sent = _push(session_id())
    push = whole(sent, "10.0.0.1")
    assert push is not None
    assert (push.app, push.kind, list(push.headers), push.peer) == ("shop", "events", ["X-AKSK"], "10.0.0.1")
    assert orjson.loads(await push.body())["eventType"] == "answer"
    for odd in (
        sent[:-1], sent + b"P", sent.replace(b"POST", b"PUT"), sent.replace(b"/n/shop", b"/n/sh%6fp"),
        sent.replace(b"Host:", b"Host :"), sent.replace(b"Host", b"Transfer-Encoding"),
        sent.replace(b"Host: edge", b"Content-Encoding: gzip"), sent.replace(b"Host: edge", b"Content-Length: 1"),
        sent.replace(b"Host: edge", b"Connection: close"), sent.replace(b"HTTP/1.1", b"HTTP/1.0"),
    ):  # fmt: skip
        assert whole(odd, None) is None


@pytest.mark.parametrize(("before", "counts"), [(b"Host:", True), (b"Content-Length:", False)])
async def test_of_two_signatures_the_first_counts(before: bytes, *, counts: bool) -> None:
    """As the framework has it."""
    push = whole(_push(session_id()).replace(before, b"x-aksk: other \r\n" + before), None)
    assert push is not None
    assert (push.headers["X-AKSK"] == "other") == counts


async def test_a_body_that_follows() -> None:
    """The rest of a body is waited for if it is announced and not too long."""
    sent = _push(session_id())
    end = sent.index(b"\r\n\r\n") + 4
    assert begun(sent[:end])
    assert begun(sent[:-1])
    assert not begun(sent)
    assert not begun(sent[: end - 1])
    assert not begun(sent[:end].replace(b"Host: edge", b"Expect: 100-continue"))
    assert not begun(_longer(sent, 128 * 1024 + 1)[:end])


async def test_in_pieces(edge: Edge, wire: Streams) -> None:
    """Head and body apart, then whole, then byte by byte, on one connection: each is answered and kept."""
    for pieces in (2, 1, 40):
        sent = _push(session_id())
        cuts = [len(sent) * place // pieces for place in range(pieces + 1)]
        for begin, end in pairwise(cuts):
            wire[1].write(sent[begin:end])
            await wire[1].drain()
            await asyncio.sleep(0)
        assert await _status(wire) == 200
    await edge.settled()
    assert await edge.inbox() == {("event", "done"): 3}


async def test_one_behind_the_other(edge: Edge, wire: Streams) -> None:
    """Pushes that do not wait for answers are answered in their order."""
    async with edge.holding("inbox"):
        wire[1].write(_push(session_id()))
        await edge.kept_from("inbox")
        wire[1].write(_push(session_id(), secret="other"))
        wire[1].write(_push(session_id()) + _push(session_id(), key="other"))
    assert [await _status(wire) for _ in range(4)] == [200, 401, 200, 401]
    assert await edge.shop.value("SELECT count(*) FROM inbox") == 2


async def test_a_body_that_takes_its_time(edge: Edge, wire: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given to the framework in the end, which takes it when the rest comes after all."""
    monkeypatch.setattr("broker.edge.listener._REST_S", 0.0)
    sent = _push(session_id())
    wire[1].write(sent[:-10])
    for _ in range(100):
        await asyncio.sleep(0)
    wire[1].write(sent[-10:])
    assert await _status(wire) == 200
    await edge.settled()
    assert await edge.inbox() == {("event", "done"): 1}


async def test_a_body_that_drips_is_not_waited_for(edge: Edge, wire: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it comes within one time, however often a little of it does."""
    monkeypatch.setattr("broker.edge.listener._REST_S", 0.2)
    monkeypatch.setattr("broker.edge.receiver._BODY_S", 0.2)
    wire[1].write(_longer(_push(session_id()), 100_000))
    answered = asyncio.ensure_future(_status(wire))
    while not (await asyncio.wait([answered], timeout=0.01))[0]:
        wire[1].write(b" ")
    assert answered.result() == 408
    assert edge.counts.pushes["events", "slow"] == 1


async def test_who_hangs_up_amid_a_body(edge: Edge, wire: Streams) -> None:
    """It is counted as that; nothing of ours is broken."""
    wire[1].write(_longer(_push(session_id()), 200_000))
    await wire[1].drain()
    wire[1].close()

    async def counted() -> bool:
        return bool(edge.counts.pushes)

    await eventually(counted, "the push is counted")
    assert edge.counts.pushes == {("events", "cut_off"): 1}


async def test_who_does_not_read_its_answers_is_not_read_from() -> None:
    """Its next push is taken when it has read; others' are taken meanwhile."""
    loop, room, taken = asyncio.get_running_loop(), 65_536, 0
    answer = Answer(200, b"x" * 1_000_000)

    async def take(_push: Push) -> Answer:
        nonlocal taken
        taken += 1
        return answer

    runner = EdgeRunner(web.Application(), take=take, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    with socket.socket() as listening, socket.socket() as deaf:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, room)
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        deaf.setblocking(False)  # noqa: FBT003 - as sockets have it
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        await web.SockSite(runner, listening).start()
        async with asyncio.timeout(30):
            await loop.sock_connect(deaf, listening.getsockname())
            await loop.sock_sendall(deaf, _push(session_id()))
            while not taken:  # noqa: ASYNC110 - the server's own doing
                await asyncio.sleep(0)
            await loop.sock_sendall(deaf, _push(session_id()))
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(_push(session_id()))
            await reader.readexactly(len(bytes(answer)))
            assert taken == 2
            unread = 2 * len(bytes(answer))
            while unread:
                came = await loop.sock_recv(deaf, room)
                assert came
                unread -= len(came)
            assert taken == 3
            writer.close()
        await runner.cleanup()
