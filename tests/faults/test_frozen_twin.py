"""One worker is frozen under load; the other one keeps serving at its rate."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.faults.service import QUICK, Load, Service, send, service

pytestmark = pytest.mark.slow

CLIENTS = 16
WINDOW_S = 2.5


@dataclass
class Client:
    """One kept connection, and so one worker."""

    http: aiohttp.ClientSession
    served_by_living: bool = False
    done: list[float] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)


async def ping(running: Service, client: Client) -> bool:
    """Whether the worker behind the connection answers at once."""
    url = f"{running.told['api']}/healthz"
    try:
        async with client.http.get(url, timeout=aiohttp.ClientTimeout(total=0.7)) as answer:
            await answer.read()
    except (TimeoutError, aiohttp.ClientError):
        return False
    return True


async def orders(running: Service, client: Client, numbers: range) -> None:
    """Bind and release, one after the other, until told to stop; every bind is noted."""
    url = f"{running.told['api']}/v1/bindings"
    for number in numbers:
        body = {"a": f"+86137{number:08d}", "b": f"+86136{number:08d}"}
        begun = time.monotonic()
        async with client.http.post(url, json=body, headers=running.headers) as answer:
            assert answer.status in {201, 202}, await answer.text()
            made = await answer.json()
        client.done.append(time.monotonic())
        client.took_s.append(time.monotonic() - begun)
        async with client.http.delete(f"{url}/{made['id']}", headers=running.headers) as answer:
            assert answer.status in {200, 202}


async def run_for(seconds: float) -> tuple[float, float]:
    """Let the load run; returns when it began and ended."""
    begun = time.monotonic()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), seconds)
    return begun, time.monotonic()


def rate(clients: list[Client], window: tuple[float, float]) -> float:
    """Binds a second of these clients within the window."""
    begun, ended = window
    return sum(begun <= at < ended for client in clients for at in client.done) / (ended - begun)


async def test_the_other_worker_keeps_its_rate(make_database: Callable[[], str], folder: Path) -> None:
    """While one of two workers is frozen with calls in its hands, connections to the other are served as before."""
    async with service(folder, database=make_database(), **QUICK) as running, contextlib.AsyncExitStack() as stack:
        timeout = aiohttp.ClientTimeout(total=30)
        clients = [
            Client(
                await stack.enter_async_context(
                    aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), timeout=timeout)
                )
            )
            for _ in range(CLIENTS)
        ]
        await asyncio.gather(*(ping(running, client) for client in clients))
        victim = running.workers[0]
        send(victim, signal.SIGSTOP)
        answered = await asyncio.gather(*(ping(running, client) for client in clients))
        send(victim, signal.SIGCONT)
        living = [client for client, good in zip(clients, answered, strict=True) if good]
        assert living
        tasks = [
            asyncio.create_task(orders(running, client, range(place * 100_000, (place + 1) * 100_000)))
            for place, client in enumerate(living)
        ]
        others = Load(running, clients=CLIENTS - len(living))
        victims = asyncio.create_task(others.run(1_000_000))
        await run_for(0.5)
        before = await run_for(WINDOW_S)
        send(victim, signal.SIGSTOP)
        during = await run_for(WINDOW_S)
        send(victim, signal.SIGCONT)
        victims.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(victims, *tasks, return_exceptions=True)
        was, kept = rate(living, before), rate(living, during)
        slow = sorted(s for c in living for at, s in zip(c.done, c.took_s, strict=True) if during[0] <= at < during[1])
        print(  # noqa: T201
            f"frozen twin: {was:.0f} binds/s before, {kept:.0f} during ({kept / was:.0%}),"
            f" p99 {1000 * slow[int(len(slow) * 0.99)]:.0f} ms during"
        )
        assert kept >= 0.7 * was
