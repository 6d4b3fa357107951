"""Posting to webhooks: only where it is allowed, never further, never for long."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from standardwebhooks import Webhook

from broker.domain.webhook import Network, may_reach, new_secret
from broker.workers.webhook_client import Answer, WebhookClient

_Answer = web.StreamResponse | Callable[[web.Request], Awaitable[web.StreamResponse]]
_LOCAL: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"),)


@asynccontextmanager
async def _client(allowed: Sequence[Network] = _LOCAL, timeout_s: float = 20) -> AsyncIterator[WebhookClient]:
    client = WebhookClient(timeout_s=timeout_s, allowed=allowed)
    yield client
    await client.close()


@asynccontextmanager
async def _server(answer: _Answer) -> AsyncIterator[tuple[str, list[web.Request]]]:
    heard: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        heard.append(request)
        await request.read()
        return answer if isinstance(answer, web.StreamResponse) else await answer(request)

    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    sock = socket.create_server(("127.0.0.1", 0))
    await web.SockSite(runner, sock).start()
    yield f"http://127.0.0.1:{sock.getsockname()[1]}/events", heard
    await runner.cleanup()


async def _post(client: WebhookClient, url: str) -> Answer:
    return await client.post(url, (new_secret(),), "evt_1", b"{}")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
        "255.255.255.255", "192.0.2.1", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "fec0::1",
        "64:ff9b:1::a00:1", "::127.0.0.1", "::10.0.0.1", "5f00::1", "4000::1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public_are_refused(address: str) -> None:
    """Loopback, private, link-local, metadata, multicast and documentation addresses, also inside IPv6."""
    assert not may_reach(address, ())


@pytest.mark.parametrize("address", ["1.1.1.1", "120.46.0.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_reached(address: str) -> None:
    """What the internet routes."""
    assert may_reach(address, ())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "127.1", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_nothing_connects_to_what_is_not_allowed(scheme: str, host: str) -> None:
    """However loopback is spelt, the port behind it never sees a connection."""
    listening = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    listening.setblocking(False)  # noqa: FBT003 - its own interface
    async with _client(allowed=()) as client:
        answer = await _post(client, f"{scheme}://{host}:{listening.getsockname()[1]}/x")
    assert answer.error is not None
    assert "allowed" in answer.error or "no address" in answer.error or "cannot be read" in answer.error
    with pytest.raises(BlockingIOError):
        listening.accept()
    listening.close()


async def test_a_redirect_is_no_way_round() -> None:
    """A receiver that points elsewhere is a failure; nobody goes there."""
    async with _server(web.Response()) as (inside, reached):

        async def away(_request: web.Request) -> web.Response:
            return web.Response(status=302, headers={"Location": inside})

        async with _server(away) as (url, _), _client() as client:
            assert await _post(client, url) == Answer("HTTP 302")
        assert reached == []


async def test_what_is_sent_is_signed() -> None:
    """Each live secret verifies by the `standardwebhooks` package, another one does not."""
    seen: list[tuple[dict[str, str], bytes]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(({name.lower(): value for name, value in request.headers.items()}, await request.read()))
        return web.Response(status=200)

    new, old = new_secret(), new_secret()
    async with _server(answer) as (url, _), _client() as client:
        assert await client.post(url, (new, old), "evt_1", b'{"a": 1}') == Answer(None)
    ((headers, body),) = seen
    for secret in (new, old):
        assert Webhook(secret).verify(body, headers) == {"a": 1}
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(new_secret()).verify(body, headers)


async def test_a_receiver_can_keep_nobody_waiting() -> None:
    """No answer in time, and an answer without end, both end."""
    never = asyncio.Event()

    async def silent(_request: web.Request) -> web.Response:
        await never.wait()
        return web.Response()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)

    async with _server(silent) as (url, _), _client(timeout_s=0.3) as client:
        assert await _post(client, url) == Answer("no answer in time")
        never.set()
    async with _server(endless) as (url, _), _client() as client:
        assert await _post(client, url) == Answer(None)


async def test_endpoints_of_one_host_do_not_wait_for_each_other() -> None:
    """However many messages one of them leaves without an answer, the other one at the same port has its own."""
    silent, asked = asyncio.Event(), asyncio.Semaphore(0)

    async def answer(request: web.Request) -> web.Response:
        if "silent" in request.query:
            asked.release()
            await silent.wait()
        return web.Response()

    many = 100  # the most that one may have at once
    async with _server(answer) as (url, _), _client(timeout_s=60) as client:
        waiting = [asyncio.create_task(_post(client, f"{url}?silent")) for _ in range(many)]
        for _ in waiting:
            await asyncio.wait_for(asked.acquire(), 60)
        assert await _post(client, url) == Answer(None)
        silent.set()
        assert await asyncio.gather(*waiting) == [Answer(None)] * many


@pytest.mark.parametrize(
    ("status", "after", "expected"),
    [
        (410, None, Answer("HTTP 410", gone=True)),
        (429, None, Answer("HTTP 429", wait_s=5.0)),
        (429, "7", Answer("HTTP 429", wait_s=7.0)),
        (503, "99999999", Answer("HTTP 503", wait_s=3600.0)),
        (503, "soon", Answer("HTTP 503")),
        (429, "Thu, 01 Jan 1970 00:00:00 GMT", Answer("HTTP 429", wait_s=0.0)),
        (500, "7", Answer("HTTP 500")),
    ],
)
async def test_what_receivers_say(status: int, after: str | None, expected: Answer) -> None:
    """Gone, too busy, broken."""
    headers = {} if after is None else {"Retry-After": after}

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers)

    async with _server(answer) as (url, _), _client() as client:
        assert await _post(client, url) == expected


async def test_nobody_listens() -> None:
    """A closed port is told as such."""
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    sock.close()
    async with _client() as client:
        assert await _post(client, f"http://127.0.0.1:{port}/") == Answer("connection refused")
