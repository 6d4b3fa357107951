"""CPU per platform call: the driver's HTTP client against aiohttp's, in turn within one run on loopback.

``python -m bench.http_client [--rounds 7] [--calls 4000]`` prints microseconds of this process's CPU (user and
system) per call; the server is a process of its own. Compare columns of one run only: the machine is shared.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import cast

import aiohttp
import uvloop

from broker.platform.huawei.app import AppAccess
from broker.platform.huawei.axb import HuaweiAxb
from broker.platform.huawei.http import HttpClient, HttpOptions
from broker.platform.huawei.origin import Dialer, Origin
from broker.platform.protocol import BindLine, Direction, Verdict

BODY = (
    b'{"resultcode":"0","resultdesc":"Success","subscriptionId":"5d0c0b9e-7a51-4d6f-9d3e-3d1f3a9b0c11",'
    b'"relationNum":"+8617000000101","callDirection":0,"duration":86400,"maxDuration":0}'
)
ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json;charset=utf-8\r\nDate: Tue, 01 Jan 2030 00:00:00 GMT\r\n"
    b"Server: x\r\n%sContent-Length: " + str(len(BODY)).encode() + b"\r\n\r\n" + BODY
)
HEADERS = {
    "Content-Type": "application/json;charset=UTF-8",
    "Accept": "application/json",
    "Authorization": 'AKSK realm="SDP",profile="UsernameToken",type="Appkey"',
    "X-AKSK": 'UsernameToken Username="ABCD1234",PasswordDigest="' + "x" * 44 + '",Nonce="' + "0" * 32 + '",Created='
    '"2030-01-01T00:00:00Z"',
}
REQUEST_BODY = b'{"relationNum":"+8617000000101","callerNum":"+8613900000001","calleeNum":"+8613900000002"}'
PATH = "/rest/caas/relationnumber/partners/v1.0"
BIND = BindLine("+8617000000101", "+8613900000001", "+8613900000002", Direction.BOTH, 86400, "bnd_1.1")
TIMEOUT_S = 10.0

Call = Callable[[], Awaitable[None]]


class Server(asyncio.Protocol):
    """Answers each request, which comes in one piece here, with the same bytes."""

    def __init__(self, *, keep: bool) -> None:
        self._keep = keep

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer."""
        if not data.endswith(b"}"):
            return  # aiohttp writes the body apart: the request ends with it
        self._transport.write(ANSWER % (b"" if self._keep else b"Connection: close\r\n"))
        if not self._keep:
            self._transport.close()


async def serve() -> None:
    """Serve kept connections on one port and short ones on another; print both."""
    loop = asyncio.get_running_loop()
    kept = await loop.create_server(lambda: Server(keep=True), "127.0.0.1", 0)
    short = await loop.create_server(lambda: Server(keep=False), "127.0.0.1", 0)
    print(*(server.sockets[0].getsockname()[1] for server in (kept, short)), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def permit() -> bool:
    """Permit."""
    return True


@asynccontextmanager
async def own_client(base: str, concurrency: int) -> AsyncIterator[Call]:
    """HttpClient with a request that is composed already."""
    client = HttpClient(Dialer(Origin.parse(base)), HttpOptions(max_connections=concurrency))
    lines = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    head = f"POST {PATH} HTTP/1.1\r\nHost: h\r\n{lines}Content-Length: {len(REQUEST_BODY)}\r\n\r\n"
    request = head.encode() + REQUEST_BODY
    loop = asyncio.get_running_loop()

    async def call() -> None:
        got = await client.call(lambda: request, permit=permit, deadline=loop.time() + TIMEOUT_S)
        if got is None or got.body != BODY:
            raise AssertionError(got)

    yield call
    await client.close()


@asynccontextmanager
async def own_driver(base: str, concurrency: int) -> AsyncIterator[Call]:
    """The whole driver: encode, sign, send, parse, judge."""
    driver = HuaweiAxb(AppAccess("ABCD1234", "bench", base), HttpOptions(max_connections=concurrency))

    async def call() -> None:
        got = await driver.bind(BIND, permit=permit, timeout_s=TIMEOUT_S)
        if got.verdict is not Verdict.DONE:
            raise AssertionError(got)

    yield call
    await driver.close()


@asynccontextmanager
async def aiohttp_client(base: str, concurrency: int) -> AsyncIterator[Call]:
    """The client of aiohttp as it would be used: fixed headers, total time-out, no redirects, body read."""
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(
        connector=connector, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), cookie_jar=aiohttp.DummyCookieJar()
    ) as session:

        async def call() -> None:
            async with session.post(base + PATH, data=REQUEST_BODY, headers=HEADERS, allow_redirects=False) as got:
                if await got.read() != BODY:
                    raise AssertionError(got)

        yield call


CLIENTS = {"aiohttp": aiohttp_client, "own HTTP client": own_client, "whole driver": own_driver}


async def cpu_us(call: Call, calls: int, concurrency: int) -> float:
    """Return the process's CPU in microseconds per call."""

    async def lane() -> None:
        for _ in range(calls // concurrency):
            await call()

    began = time.process_time()
    await asyncio.gather(*(lane() for _ in range(concurrency)))
    return (time.process_time() - began) / (calls // concurrency * concurrency) * 1e6


async def compare(base: str, rounds: int, calls: int, concurrency: int) -> dict[str, list[float]]:
    """Measure the clients in turn, ``rounds`` times, after one round that does not count."""
    figures: dict[str, list[float]] = {name: [] for name in CLIENTS}
    async with AsyncExitStack() as stack:
        ready = {name: await stack.enter_async_context(make(base, concurrency)) for name, make in CLIENTS.items()}
        for round_ in range(rounds + 1):
            for name, call in ready.items():
                spent = await cpu_us(call, calls, concurrency)
                if round_:
                    figures[name].append(spent)
    return figures


async def measure(rounds: int, calls: int, kept: str, short: str) -> None:
    """Print one table row per loop load and kind of connection."""
    loop = type(asyncio.get_running_loop()).__module__.split(".")[0]
    for label, base, concurrency, share in (
        ("kept, 1 at a time", kept, 1, 1.0),
        ("kept, 32 at a time", kept, 32, 1.0),
        ("short, 8 at a time", short, 8, 0.25),
    ):
        figures = await compare(base, rounds, int(calls * share), concurrency)
        rival = statistics.median(figures["aiohttp"])
        for name, spent in figures.items():
            middle = statistics.median(spent)
            spread = f"{min(spent):.1f}-{max(spent):.1f}"
            print(f"{loop:8} {label:20} {name:16} {middle:7.1f} us  ({spread})  1/{rival / middle:.1f} of aiohttp")


def main() -> None:
    """Start the server and measure on uvloop, then on asyncio's own loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=4000, help="per client and round")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(serve())
        return
    command = [sys.executable, "-m", "bench.http_client", "--serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None  # noqa: S101 - narrows for mypy
        kept, short = (f"http://127.0.0.1:{port}" for port in server.stdout.readline().split())
        uvloop.run(measure(options.rounds, options.calls, kept, short))
        asyncio.run(measure(options.rounds, options.calls, kept, short))
        server.communicate()


if __name__ == "__main__":
    main()
