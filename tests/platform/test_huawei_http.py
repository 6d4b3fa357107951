"""The HTTP client against raw sockets: what it reads, what it reuses, and that it never sends twice."""

from __future__ import annotations

import asyncio
import functools
import inspect
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop

from broker.platform.huawei.http import CallError, HttpAnswer, HttpClient, HttpOptions
from broker.platform.huawei.origin import Dialer, Origin, TlsOptions
from tests.platform.raw_platform import (
    SUCCESS,
    RawPlatform,
    Script,
    Wire,
    answer,
    http_client,
    once,
    self_signed,
    steadily,
)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
DELETE = b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


Test = Callable[..., Coroutine[None, None, None]]


def on_both_loops(test: Test) -> Callable[..., None]:
    """Run a test on asyncio's and on uvloop's transports: they differ where connections end."""

    @pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
    @functools.wraps(test)
    def run(*, loop_factory: Callable[[], asyncio.AbstractEventLoop], **arguments: object) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**arguments))

    own = inspect.signature(test)
    added = inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = own.replace(parameters=[*own.parameters.values(), added])  # type: ignore[attr-defined]
    return run


def yes() -> bool:
    """Permit."""
    return True


async def send(client: HttpClient, request: bytes = GET, *, timeout_s: float = 5.0) -> HttpAnswer:
    """Make a call that is permitted."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    got = await client.call(lambda: request, permit=yes, deadline=deadline)
    assert got is not None
    return got


@asynccontextmanager
async def talking_to(
    script: Script, options: HttpOptions | None = None
) -> AsyncIterator[tuple[RawPlatform, HttpClient]]:
    """Run a platform and a client for it; the client's connections must all go when it is closed."""
    async with RawPlatform(script) as platform:
        client = http_client(platform, options)
        try:
            yield platform, client
        finally:
            await asyncio.wait_for(client.close(), 5)
            await asyncio.wait_for(platform.scripts_end(), 5)


@on_both_loops
async def test_one_connection_serves_calls_in_turn() -> None:
    """An answer with keep-alive leaves the connection for the next call."""
    headers = "Date: Tue, 01 Jan 2030 00:00:00 GMT\r\nEmpty:\r\n"
    async with talking_to(steadily(answer(headers=headers))) as (platform, client):
        for _ in range(3):
            assert await send(client) == (200, SUCCESS, "Tue, 01 Jan 2030 00:00:00 GMT", "")
        assert (platform.connections, len(platform.requests)) == (1, 3)


@pytest.mark.parametrize(
    "framed",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello", id="close announced"),
        pytest.param(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", id="HTTP/1.0"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nhello", id="ended by the close"),
        pytest.param(b"HTTP/1.0 200 OK\r\n\r\nhello", id="HTTP/1.0 ended by the close"),
    ],
)
@on_both_loops
async def test_short_connections(framed: bytes) -> None:
    """The server closes after each answer; each call gets a connection of its own and its whole answer."""
    async with talking_to(once(framed, then="close")) as (platform, client):
        for _ in range(3):
            assert (await send(client)).body == b"hello"
        assert (platform.connections, len(platform.requests)) == (3, 3)


@on_both_loops
async def test_the_server_may_close_first() -> None:
    """After `Connection: close` the client leaves closing to the server: it is still open when the answer was read."""
    told = asyncio.Event()
    closed_by_client = []

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(answer(headers="Connection: close\r\n"))
        client_left = asyncio.ensure_future(wire.gone())
        await told.wait()
        closed_by_client.append(client_left.done())
        client_left.cancel()
        with suppress(asyncio.CancelledError):
            await client_left
        await wire.close()

    async with talking_to(script) as (platform, client):
        await send(client)
        told.set()
        await platform.scripts_end()
        assert closed_by_client == [False]


@on_both_loops
async def test_chunked_answer_in_single_bytes() -> None:
    """A chunked answer with trailers and an interim answer before it arrives whole, however it is cut."""
    whole = (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nT: v\r\n\r\n"
    )
    async with talking_to(steadily(whole)) as (platform, client):
        assert (await send(client)).body == b"hello"
        assert (await send(client)).body == b"hello"
        assert platform.connections == 1

    async def dribble(wire: Wire) -> None:
        await wire.request()
        for at in range(len(whole)):
            wire.send(whole[at : at + 1])
            await asyncio.sleep(0)
        await wire.gone()

    async with talking_to(dribble) as (_, client):
        assert (await send(client)).body == b"hello"


@pytest.mark.parametrize("request_bytes", [GET, DELETE, POST], ids=["GET", "DELETE", "POST"])
@pytest.mark.parametrize("then", ["close", "reset"])
@on_both_loops
async def test_a_reused_connection_that_breaks_is_never_resent_on(request_bytes: bytes, then: str) -> None:
    """A kept connection that dies after the write is an unknown outcome; the socket sees exactly one request for it."""

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(answer())
        await wire.request()
        await wire.close() if then == "close" else wire.reset()

    async with talking_to(script) as (platform, client):
        await send(client)
        with pytest.raises(CallError) as caught:
            await send(client, request_bytes)
        assert caught.value.written
        await platform.scripts_end()
        assert platform.requests == [GET, request_bytes]
        assert (platform.connections, len(platform.requests)) == (1, 2)


@on_both_loops
async def test_a_close_that_the_loop_has_not_read_yet_is_noticed() -> None:
    """The server closes a kept connection and the loop had no turn since: the next call opens a new one."""
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)  # noqa: FBT003 - the socket module's own signature
        port = listener.getsockname()[1]
        client = HttpClient(Dialer(Origin.parse(f"http://127.0.0.1:{port}")), HttpOptions())
        first = asyncio.create_task(send(client))
        wire, _ = await loop.sock_accept(listener)
        assert await loop.sock_recv(wire, 4096) == GET
        await loop.sock_sendall(wire, answer())
        await first
        wire.close()
        second = asyncio.create_task(send(client))  # starts before the loop looks at its sockets again
        again, _ = await asyncio.wait_for(loop.sock_accept(listener), 5)
        assert await loop.sock_recv(again, 4096) == GET
        await loop.sock_sendall(again, answer())
        assert (await second).status == 200
        again.close()
        await client.close()


@on_both_loops
async def test_a_connection_closed_while_idle_is_replaced() -> None:
    """A server that closed after its answer without a word costs a connection, not a call."""
    closed = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(answer())
        await asyncio.sleep(0)
        await wire.close()
        closed.set()

    async with talking_to(script) as (platform, client):
        for _ in range(3):
            closed.clear()
            await send(client)
            await closed.wait()
        assert (platform.connections, len(platform.requests)) == (3, 3)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        pytest.param([b""], "lost", id="nothing"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Le"], "lost", id="half a header"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"], "lost", id="half a body"),
        pytest.param([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"], "lost", id="half a chunk"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"], "lost", id="no last chunk"
        ),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n"], "lost", id="an interim answer only"),
        pytest.param([b"SSH-2.0-OpenSSH\r\n\r\n"], "malformed", id="another protocol"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"], "malformed", id="a length that is none"),
        pytest.param([b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"], "protocols", id="an upgrade"),
    ],
)
@on_both_loops
async def test_broken_answers(parts: list[bytes], reason: str) -> None:
    """Whatever is no whole answer is reported as such, as written, and its connection goes."""
    async with talking_to(once(*parts, then="close")) as (platform, client):
        with pytest.raises(CallError, match=reason) as caught:
            await send(client)
        assert caught.value.written
        assert len(platform.requests) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(answer(b"x" * 5000), "answer is too large", id="body"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1000, "too large", id="chunks"
        ),
        pytest.param(answer(headers=f"A: {'x' * 1100}\r\n"), "header is too large", id="whole header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 1100, "header is too large", id="endless header"),
        pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "header is too large", id="endless interim answers"),
    ],
)
@on_both_loops
async def test_caps(data: bytes, reason: str) -> None:
    """An answer or a header past its cap ends the call and the connection at once."""
    options = HttpOptions(head_cap_bytes=1000, answer_cap_bytes=4000)
    async with talking_to(once(data), options) as (_, client):
        with pytest.raises(CallError, match=reason) as caught:
            await send(client)
        assert caught.value.written


@pytest.mark.parametrize("surplus", [answer(b"stray"), b"garbage", b"\x00"], ids=["an answer", "garbage", "a byte"])
@on_both_loops
async def test_bytes_behind_an_answer_close_the_connection(surplus: bytes) -> None:
    """The answer counts, what follows it never answers the next call."""
    async with talking_to(once(answer() + surplus)) as (platform, client):
        assert (await send(client)).body == SUCCESS
        assert (await send(client)).body == SUCCESS
        assert platform.connections == 2


@on_both_loops
async def test_bytes_on_an_idle_connection_close_it() -> None:
    """An answer nobody asked for, such as a proxy's 408, closes the idle connection."""
    left = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.send(answer())
        await asyncio.sleep(0)
        wire.send(answer(b"", status=408))
        await wire.gone()
        left.set()

    async with talking_to(script) as (platform, client):
        assert (await send(client)).status == 200
        await left.wait()
        assert (await send(client)).status == 200
        assert platform.connections == 2


@on_both_loops
async def test_time_out_after_the_write() -> None:
    """A silent server ends in time as a written call, and the connection is not used again."""
    async with talking_to(once(b"HTTP/1.1 200 OK\r\n")) as (platform, client):
        with pytest.raises(CallError, match="in time") as caught:
            await send(client, timeout_s=0.02)
        assert caught.value.written
        await platform.scripts_end()
        assert client._slots == 0


@on_both_loops
async def test_refused_connection_is_not_written() -> None:
    """Nobody listens: no byte was written, and no slot is lost."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    client = HttpClient(Dialer(Origin.parse(f"http://127.0.0.1:{port}")), HttpOptions(max_connections=1))
    for _ in range(2):
        with pytest.raises(CallError, match="no connection") as caught:
            await send(client)
        assert not caught.value.written
    await client.close()


@on_both_loops
async def test_no_deadline_left_is_not_written() -> None:
    """A call that comes too late writes nothing, on a new connection as on a kept one."""
    async with talking_to(steadily(answer())) as (platform, client):
        with pytest.raises(CallError) as fresh:
            await send(client, timeout_s=-1)
        await send(client)
        with pytest.raises(CallError) as kept:
            await send(client, timeout_s=-1)
        assert not fresh.value.written
        assert not kept.value.written
        await send(client)
        assert len(platform.requests) == 2


@on_both_loops
async def test_withheld_writes_nothing_and_keeps_the_connection() -> None:
    """The permit is asked last, after the request was composed; a no leaves the connection for the next call."""
    order: list[str] = []

    def compose() -> bytes:
        order.append("signed")
        return GET

    def refuse() -> bool:
        order.append("asked")
        return False

    async with talking_to(steadily(answer())) as (platform, client):
        deadline = asyncio.get_running_loop().time() + 5
        assert await client.call(compose, permit=refuse, deadline=deadline) is None
        assert order == ["signed", "asked"]
        await send(client)
        assert (platform.connections, len(platform.requests)) == (1, 1)


@on_both_loops
async def test_nothing_runs_between_permit_and_write() -> None:
    """No other task gets a turn between the permit and the write to the transport."""
    turns = 0

    async def spin() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with talking_to(steadily(answer())) as (_, client):
        await send(client)
        spinner = asyncio.create_task(spin())
        await asyncio.sleep(0)
        connection = client._idle[-1]
        seen: list[int] = []

        class Spy:
            """Stands before the transport and notes how far the other task was."""

            def __init__(self, transport: asyncio.Transport) -> None:
                self._transport = transport

            def write(self, data: bytes) -> None:
                seen.append(turns)
                self._transport.write(data)

            def __getattr__(self, name: str) -> object:
                return getattr(self._transport, name)

        def permit() -> bool:
            seen.append(turns)
            return True

        connection._transport = Spy(connection._transport)  # type: ignore[assignment]
        deadline = asyncio.get_running_loop().time() + 5
        assert await client.call(lambda: GET, permit=permit, deadline=deadline) is not None
        assert len(seen) == 2
        assert seen[0] == seen[1]
        spinner.cancel()
        with suppress(asyncio.CancelledError):
            await spinner


@on_both_loops
async def test_a_raising_permit_loses_no_connection() -> None:
    """An error of our own goes to the caller, the connection back to the pool."""

    def fail() -> bool:
        raise LookupError

    async with talking_to(steadily(answer()), HttpOptions(max_connections=1)) as (platform, client):
        for _ in range(2):
            with pytest.raises(LookupError):
                await client.call(lambda: GET, permit=fail, deadline=asyncio.get_running_loop().time() + 5)
        await send(client)
        assert (platform.connections, len(platform.requests)) == (1, 1)


@on_both_loops
async def test_a_cancelled_call_closes_its_connection() -> None:
    """Cancelled while waiting for the answer: the server sees the close, the next call gets a new connection."""
    arrived = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        arrived.set()
        if wire.number == 1:
            await wire.gone()
        else:
            wire.send(answer())
            await wire.gone()

    async with talking_to(script, HttpOptions(max_connections=1)) as (platform, client):
        call = asyncio.create_task(send(client))
        await arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await send(client)).status == 200
        assert (platform.connections, len(platform.requests)) == (2, 2)


@on_both_loops
async def test_thousands_of_random_cancels_leak_no_slot() -> None:
    """Cancelled at any step, connecting, queueing or waiting, a call leaves the pool able to serve its full number."""
    async with talking_to(steadily(answer()), HttpOptions(max_connections=3, max_waiting=100)) as (platform, client):
        for round_ in range(300):
            calls = [asyncio.create_task(send(client)) for _ in range(8)]
            for at, call in enumerate(calls):
                if (round_ + at) % 3 == 0:
                    asyncio.get_running_loop().call_soon(call.cancel)
                if (round_ + at) % 4 == 0:
                    await asyncio.sleep(0)
                    call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        assert not client._queue
        assert client._slots == len(client._idle) <= 3
        assert len(await asyncio.gather(*(send(client) for _ in range(20)))) == 20
        assert platform.connections > 1


@on_both_loops
async def test_connections_are_bounded_and_callers_queue() -> None:
    """With two connections, two calls run; the others wait their turn and then reuse those connections."""
    running = 0
    most = 0
    both = asyncio.Event()

    async def script(wire: Wire) -> None:
        nonlocal running, most
        while await wire.request() is not None:
            running += 1
            most = max(most, running)
            if most == 2:
                both.set()
            await both.wait()
            running -= 1
            wire.send(answer())

    async with talking_to(script, HttpOptions(max_connections=2)) as (platform, client):
        await asyncio.gather(*(send(client) for _ in range(10)))
        assert (platform.connections, len(platform.requests), most) == (2, 10, 2)


@on_both_loops
async def test_the_queue_is_bounded() -> None:
    """More callers than may wait are told so at once, and those who wait in vain in time; nothing was written."""
    arrived = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        arrived.set()
        await wire.gone()

    async with talking_to(script, HttpOptions(max_connections=1, max_waiting=1)) as (platform, client):
        holder = asyncio.create_task(send(client))
        await arrived.wait()
        waiter = asyncio.create_task(send(client, timeout_s=0.05))
        await asyncio.sleep(0)
        with pytest.raises(CallError, match="too many") as crowded:
            await send(client)
        with pytest.raises(CallError, match="free connection") as late:
            await waiter
        assert not crowded.value.written
        assert not late.value.written
        assert len(platform.requests) == 1
        holder.cancel()
        with suppress(asyncio.CancelledError):
            await holder


@on_both_loops
async def test_a_lost_connection_gives_its_place_to_the_queue() -> None:
    """A call that breaks its connection wakes the next in the queue, who opens a new one."""

    async def script(wire: Wire) -> None:
        await wire.request()
        if wire.number == 1:
            wire.reset()
        else:
            wire.send(answer())
            await wire.gone()

    async with talking_to(script, HttpOptions(max_connections=1)) as (platform, client):
        broken, served = await asyncio.gather(send(client), send(client), return_exceptions=True)
        assert isinstance(broken, CallError)
        assert isinstance(served, HttpAnswer)
        assert (platform.connections, len(platform.requests)) == (2, 2)


@on_both_loops
async def test_idle_connections_are_closed_in_time() -> None:
    """An idle connection goes after its time, without any call's help."""
    async with talking_to(steadily(answer()), HttpOptions(idle_s=0.02)) as (platform, client):
        await asyncio.gather(send(client), send(client))
        await asyncio.wait_for(platform.scripts_end(), 5)
        assert (client._slots, client._idle) == (0, [])
        await send(client)
        assert platform.connections == 3


@on_both_loops
async def test_the_last_connection_is_used_first() -> None:
    """One call at a time stays on one of several idle connections."""
    async with talking_to(steadily(answer())) as (platform, client):
        await asyncio.gather(*(send(client) for _ in range(4)))
        hot = client._idle[-1]
        for _ in range(5):
            await send(client)
            assert client._idle[-1] is hot
        assert platform.connections == 4


@on_both_loops
async def test_without_keep_alive_nothing_is_reused() -> None:
    """With the option off even an answer that would keep the connection ends it."""
    async with talking_to(steadily(answer()), HttpOptions(keep_alive=False)) as (platform, client):
        await send(client)
        await send(client)
        assert platform.connections == 2


@on_both_loops
async def test_close_lets_running_calls_end() -> None:
    """Closing refuses new calls, waits for the running one and its answer, and sees all connections gone."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        arrived.set()
        await go_on.wait()
        wire.send(answer())
        await wire.gone()

    async with RawPlatform(script) as platform:
        client = http_client(platform)
        call = asyncio.create_task(send(client))
        await arrived.wait()
        closing = asyncio.create_task(client.close())
        await asyncio.sleep(0)
        with pytest.raises(CallError, match="closed") as caught:
            await send(client)
        assert not caught.value.written
        go_on.set()
        assert (await call).status == 200
        await asyncio.wait_for(closing, 5)
        await asyncio.wait_for(platform.scripts_end(), 5)
        await client.close()


@on_both_loops
async def test_a_server_that_hangs_up_on_connecting_is_not_written() -> None:
    """A connection closed before the request is either found closed or breaks under it; nothing arrives twice."""

    async def script(wire: Wire) -> None:
        wire.reset()

    async with talking_to(script) as (platform, client):
        for _ in range(5):
            with pytest.raises(CallError):
                await send(client)
        assert platform.requests == []
        assert client._slots == 0


@on_both_loops
async def test_tls(tmp_path: Path) -> None:
    """Over TLS with a named authority: kept connections, short connections, and a clean end."""
    context, ca_file = self_signed(tmp_path)
    async with RawPlatform(steadily(answer()), context) as platform:
        client = http_client(platform, tls=TlsOptions(ca_file=ca_file))
        for _ in range(3):
            assert (await send(client)).body == SUCCESS
        assert (platform.connections, len(platform.requests)) == (1, 3)
        await asyncio.wait_for(client.close(), 5)
    async with RawPlatform(once(answer(headers="Connection: close\r\n"), then="close"), context) as platform:
        client = http_client(platform, tls=TlsOptions(ca_file=ca_file))
        for _ in range(3):
            assert (await send(client)).body == SUCCESS
        assert platform.connections == 3
        await asyncio.wait_for(client.close(), 5)


@on_both_loops
async def test_tls_checks_the_certificate(tmp_path: Path) -> None:
    """An unknown authority or another name ends before anything is written."""
    context, ca_file = self_signed(tmp_path)
    for tls in (TlsOptions(), TlsOptions(ca_file=ca_file, server_name="example.com")):
        async with RawPlatform(steadily(answer()), context) as platform:
            client = http_client(platform, tls=tls)
            with pytest.raises(CallError, match="certificate") as caught:
                await send(client)
            assert not caught.value.written
            assert platform.requests == []
            await asyncio.wait_for(client.close(), 5)


@on_both_loops
async def test_a_handshake_that_never_ends_is_not_written(tmp_path: Path) -> None:
    """A server that accepts and says nothing costs the deadline, and nothing was written."""
    _, ca_file = self_signed(tmp_path)

    async def silent(wire: Wire) -> None:
        await wire.gone()

    async with RawPlatform(silent) as platform:
        origin = Origin.parse(platform.base_url.replace("http:", "https:"))
        client = HttpClient(Dialer(origin, TlsOptions(ca_file=ca_file)), HttpOptions())
        with pytest.raises(CallError, match="no connection in time") as caught:
            await send(client, timeout_s=0.05)
        assert not caught.value.written
        await asyncio.wait_for(client.close(), 5)


@pytest.mark.parametrize(
    ("base_url", "expected", "host"),
    [
        ("https://rtcpns.cn-north-1.myhuaweicloud.com", ("rtcpns.cn-north-1.myhuaweicloud.com", 443, True, ""), None),
        ("https://h.example:12543/", ("h.example", 12543, True, ""), "h.example:12543"),
        ("http://h.example:80/gw/pn/", ("h.example", 80, False, "/gw/pn"), "h.example"),
        ("http://[::1]:8080", ("::1", 8080, False, ""), "[::1]:8080"),
    ],
)
def test_origin(base_url: str, expected: tuple[object, ...], host: str | None) -> None:
    """An access address splits into host, port, scheme and prefix; `Host` shows only a port that is not the default."""
    origin = Origin.parse(base_url)
    assert (origin.host, origin.port, origin.secure, origin.prefix) == expected
    assert origin.host_header == (host or origin.host)


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "h.example",
        "ftp://h.example",
        "https://",
        "https://h:70000",
        "https://h/p?q=1",
        "https://u:p@h",
        "https://h /",
        "https://h\r\nX: y",
        "https://é.example",
        "https://h/#f",
        "https://" + "a" * 70,
    ],
)
def test_bad_origin(base_url: str) -> None:
    """An address that could not be connected to, or would break a header, is refused at the start."""
    with pytest.raises(ValueError, match=r"."):
        Origin.parse(base_url)
