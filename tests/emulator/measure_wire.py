"""Server CPU per bind of two ways to serve the wire, on this machine only and bounded (decision 0003).

Run as ``.venv/bin/python -m tests.emulator.measure_wire``. Each run starts a server process, sends ``--binds`` binds
over ``--connections`` kept connections from this process, and reads the server's own CPU time before and after.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import structlog
import uvloop
from aiohttp import web

from broker.emulator import server as composition
from broker.emulator.__main__ import run
from broker.emulator.admin import Admin
from broker.emulator.core import Core
from broker.emulator.faults import Faults
from broker.emulator.registry import AppConfig, ModeName
from broker.emulator.settings import EmulatorSettings
from broker.emulator.times import http_date
from broker.emulator.wire import Wire, WireRequest
from broker.platform.huawei.sign import aksk_digest

KEY, SECRET = "measured", "secret"
PATH = "/rest/caas/relationnumber/partners/v1.0"
AUTHORIZATION = 'AKSK realm="SDP",profile="UsernameToken",type="Appkey"'
NUMBERS = 100


async def serve_aiohttp(settings: EmulatorSettings) -> None:
    """Serve the same wire object through ``aiohttp.web.Server`` with one raw handler."""
    core = Core(settings)
    wire = Wire(settings, core, Faults(None))
    runner = web.AppRunner(Admin(settings, core, Faults(None), wire).application(), access_log=None)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        headers = request.headers
        peer = request.transport.get_extra_info("peername")[0] if request.transport else ""
        answer = wire.handle(
            WireRequest(
                peer,
                request.method,
                request.raw_path,
                headers.get("Authorization"),
                headers.get("X-AKSK"),
                headers.get("X-WSSE"),
                body=await request.read(),
            )
        )
        return web.Response(
            body=answer.body,
            status=answer.http,
            headers={"Content-Type": "application/json;charset=utf-8", "Date": http_date(core.clock.now_ms())},
        )

    await runner.setup()
    admin_sock = composition._bind("127.0.0.1", 0)
    wire_sock = composition._bind("127.0.0.1", 0)
    await web.SockSite(runner, admin_sock).start()
    raw = web.Server(handle, access_log=None)
    await asyncio.get_running_loop().create_server(raw, sock=wire_sock)
    urls = {"emulator": f"http://127.0.0.1:{wire_sock.getsockname()[1]}", "emulator_admin": ""}
    print(json.dumps(urls), flush=True)  # noqa: T201
    await asyncio.Event().wait()


def seed(folder: Path) -> None:
    """Put the application and its numbers into a fresh state folder."""
    core = Core(EmulatorSettings(state_dir=folder))
    core.put_app(AppConfig(KEY, SECRET, ModeName.AXB))
    core.put_numbers(core.registry.apps[KEY], [(f"+8617{index:09d}", "0755") for index in range(NUMBERS)])
    core.journal.close()


def signed_binds(count: int) -> list[bytes]:
    """Return whole requests, signed now, each a new pair."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    requests = []
    for index in range(count):
        nonce = os.urandom(16).hex()
        digest = aksk_digest(SECRET, nonce, created)
        body = json.dumps(
            {
                "relationNum": f"+8617{index % NUMBERS:09d}",
                "callerNum": f"+86139{index:08d}",
                "calleeNum": f"+86138{index:08d}",
                "duration": 86_400,
                "callDirection": 0,
                "userData": f"line-{index:012d}-1",
            }
        ).encode()
        head = (
            f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json;charset=UTF-8\r\n"
            f"Accept: application/json\r\nAuthorization: {AUTHORIZATION}\r\n"
            f'X-AKSK: UsernameToken Username="{KEY}",PasswordDigest="{digest}",Nonce="{nonce}",Created="{created}"\r\n'
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


class Sender(asyncio.Protocol):
    """Sends the next request as soon as the answer to the last one is complete."""

    def __init__(self, requests: list[bytes], done: asyncio.Future[None]) -> None:
        self._requests = requests
        self._done = done
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass
        self._transport.write(self._requests.pop())

    def data_received(self, data: bytes) -> None:
        """Count a complete answer and go on."""
        self._seen += data
        if not self._seen.endswith(b"}"):
            return
        if b'"resultcode":"0"' not in self._seen:
            self._done.set_exception(RuntimeError(self._seen.decode()))
        elif self._requests:
            self._seen = b""
            self._transport.write(self._requests.pop())
        else:
            self._transport.close()
            self._done.set_result(None)


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used, in user and system mode."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def load(port: int, requests: list[bytes], connections: int) -> None:
    """Send all requests."""
    loop = asyncio.get_running_loop()
    share = -(-len(requests) // connections)
    endings = []
    for index in range(connections):
        mine = requests[index * share : (index + 1) * share]
        done: asyncio.Future[None] = loop.create_future()
        endings.append(done)
        await loop.create_connection(lambda mine=mine, done=done: Sender(mine, done), "127.0.0.1", port)  # type: ignore[misc]
    await asyncio.wait_for(asyncio.gather(*endings), 30)


def measure(kind: str, binds: int, connections: int) -> tuple[float, float]:
    """Return (server CPU µs per bind, binds per second) of one run."""
    with tempfile.TemporaryDirectory() as folder:
        seed(Path(folder))
        command = [sys.executable, "-m", "tests.emulator.measure_wire", "--serve", kind, "--state-dir", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
            assert server.stdout is not None
            port = int(json.loads(server.stdout.readline())["emulator"].rpartition(":")[2])
            requests = signed_binds(binds)
            before, started = cpu_s(server.pid), time.monotonic()
            try:
                uvloop.run(load(port, requests, connections))
                took = time.monotonic() - started
                used = cpu_s(server.pid) - before
            finally:
                server.terminate()
    return used / binds * 1e6, binds / took


def main() -> None:
    """Run the servers in turn and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binds", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--serve", choices=["httptools", "aiohttp"])
    parser.add_argument("--state-dir", type=Path)
    options = parser.parse_args()
    if options.serve:
        settings = EmulatorSettings(state_dir=options.state_dir)
        if options.serve == "httptools":
            run(settings, as_json=True)
        else:
            structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
            uvloop.run(serve_aiohttp(settings))
        return
    results: dict[str, list[tuple[float, float]]] = {"httptools": [], "aiohttp": []}
    for _ in range(options.runs):
        for kind, figures in results.items():
            figures.append(measure(kind, options.binds, options.connections))
    for kind, figures in results.items():
        costs = sorted(cost for cost, _ in figures)
        rate = statistics.median(rate for _, rate in figures)
        print(f"{kind:10} {statistics.median(costs):6.1f} µs CPU/bind ({costs[0]:.1f}-{costs[-1]:.1f}), {rate:,.0f}/s")  # noqa: T201


if __name__ == "__main__":
    main()
