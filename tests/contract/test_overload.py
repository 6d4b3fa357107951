"""More than can be done: the database is made to stand still, so that requests pile up."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import orjson
import pytest

from broker.domain.admission import FEWEST
from tests.contract.service import (
    LIMIT_S,
    Answer,
    Client,
    Service,
    client_of,
    eventually,
    memory,
    phone,
    raw_request,
    rows,
    up,
)
from tests.pg import state_folder

#: Without any knowledge a request is taken to add 1 ms: so many in work are more than the 0.05 s of the setting.
_CROWD = 80


@pytest.fixture(scope="module")
def slow() -> Iterator[Service]:
    """A broker with one worker that sheds early, and waits long for its database."""
    settings = {"BROKER_OVERLOAD_WAIT_S": "0.05", "BROKER_DB_TIMEOUT_S": "60", "BROKER_REQUEST_TIMEOUT_S": "30"}
    with state_folder(memory()) as folder, up(folder, "--workers", "1", settings=settings) as running:
        yield running


@pytest.fixture
async def client(slow: Service) -> AsyncIterator[Client]:
    """Requests to it."""
    async with client_of(slow) as made:
        yield made


@asynccontextmanager
async def _standing_still(service: Service) -> AsyncIterator[None]:
    """Nobody can be bound."""
    connection = await asyncpg.connect(service.database)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE slot IN ACCESS EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


@asynccontextmanager
async def _overloaded(service: Service, client: Client) -> AsyncIterator[list[asyncio.Task[Answer]]]:
    """Requests that wait, so many and so long that others are turned away."""
    async with _standing_still(service):
        waiting = [asyncio.create_task(client.bind(headers={"Idempotency-Key": phone()})) for _ in range(_CROWD)]

        async def shedding() -> bool:
            probe = asyncio.create_task(client.bind())
            await asyncio.wait((probe,), timeout=0.1)
            waiting.append(probe)
            return probe.done() and probe.result().status == 503

        await eventually(shedding, "requests are turned away")
        waiting.pop()
        yield waiting


async def _metrics(service: Service, client: Client) -> dict[str, float]:
    page = (await client.ask("GET", f"{service.ready['admin']}/metrics", key=None)).raw.decode()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in page.splitlines() if line[0] != "#"}


async def _sure(client: Client, method: str, path: str) -> Answer:
    return await asyncio.wait_for(client.ask(method, path), LIMIT_S)


@pytest.mark.parametrize("headers", [{}, {"Connection": "close"}], ids=["from the wire", "the usual way"])
async def test_who_would_wait_too_long_is_told_so_at_once(
    slow: Service, client: Client, headers: dict[str, str]
) -> None:
    """503 with when to come back, nothing written; health is answered; who waits is served; then all are let in."""
    before = await _kept(slow)
    async with _overloaded(slow, client) as waiting:
        keys = [phone() for _ in range(5)]
        for key in keys:
            sent = {**headers, "Idempotency-Key": key, "X-Request-Id": "mine"}
            answer = await asyncio.wait_for(client.bind(headers=sent, order_id=f"turned-away-{key}"), LIMIT_S)
            assert answer.problem(503, "overloaded")["instance"] == "mine"
            assert int(answer.headers["Retry-After"]) >= 1
            assert answer.headers["X-Request-Id"] == "mine"
        assert (await _sure(client, "GET", "/livez")).status == 200
        assert (await _sure(client, "GET", "/readyz")).status == 200
        assert (await client.ask("GET", f"{slow.ready['edge']}/livez", key=None)).status == 200

        async def shown() -> bool:
            found = await _metrics(slow, client)
            return (
                found.get('broker_requests_refused_total{reason="standing"}', 0) >= len(keys)
                and found["broker_shedding"] == 1
                and found["broker_requests_in_work"] >= FEWEST
                and found["broker_request_wait_seconds"] > 0
            )

        await eventually(shown, "the metrics tell")
        turned_away = [task for task in waiting if task.done()]
    served = [task for task in waiting if task not in turned_away]
    assert {answer.status for answer in await asyncio.gather(*turned_away)} <= {503}
    assert Counter([answer.status for answer in await asyncio.gather(*served)]) == {201: len(served)}
    assert len(served) >= FEWEST
    assert await _kept(slow) - before == len([task for task in waiting[:_CROWD] if task in served])
    assert await rows(slow, "SELECT 1 FROM binding WHERE order_id LIKE 'turned-away-%'") == []
    await eventually(lambda: _let_in(client), "requests are let in again")
    assert (await client.bind(headers={"Idempotency-Key": keys[0]})).status == 201


async def _kept(service: Service) -> int:
    return int((await rows(service, "SELECT count(*) AS n FROM idempotency"))[0]["n"])


async def _let_in(client: Client) -> bool:
    return (await client.bind()).status == 201


async def test_operators_are_not_turned_away(slow: Service, client: Client) -> None:
    """The admin listener's routes answer as ever."""
    async with _overloaded(slow, client) as waiting:
        answer = await _sure(client, "GET", f"{slow.ready['admin']}/v1/operator/apps")
        assert answer.status != 503
    await asyncio.gather(*waiting)
    await eventually(lambda: _let_in(client), "requests are let in again")


async def test_a_connection_goes_on_after_a_refusal(slow: Service, client: Client) -> None:
    """Whole requests on one connection, one after another, half of them while others are turned away."""
    address = urlsplit(slow.api)
    body = orjson.dumps({"a": phone(), "b": phone()})
    request = (
        f"POST /v1/bindings HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {slow.key}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    reader, writer = await asyncio.open_connection(address.hostname, address.port)

    async def ask() -> int:
        writer.write(request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT_S)
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        await reader.readexactly(int(length.partition(b":")[2]))
        return int(head.split()[1])

    try:
        await eventually(lambda: _let_in(client), "requests are let in")
        assert await ask() == 201
        async with _overloaded(slow, client) as waiting:
            assert [await ask() for _ in range(3)] == [503, 503, 503]
        await asyncio.gather(*waiting)
        await eventually(lambda: _let_in(client), "requests are let in again")
        assert await ask() == 201
    finally:
        writer.close()


async def test_what_is_unusual_is_left_to_the_framework(slow: Service, client: Client) -> None:
    """While others are turned away, nonsense is still called nonsense, and an unknown path unknown."""
    async with _overloaded(slow, client) as waiting:
        known = f"POST /v1/bindings HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {slow.key}\r\n"
        two = b"GET /v1/pools HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n"
        assert (await raw_request(slow, two))[0] == 400
        assert (await raw_request(slow, b"GET /v2/pools HTTP/1.1\r\nHost: h\r\n\r\n"))[0] == 404
        timeout = f"{known}Content-Length: 0\r\nRequest-Timeout: soon\r\n\r\n".encode()
        assert (await raw_request(slow, timeout))[0] == 422
        async with aiohttp.ClientSession() as http, http.get(f"{slow.api}/problems") as page:
            assert page.status == 200
        chunked = f"{known}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode()
        assert (await raw_request(slow, chunked))[0] == 503
    await asyncio.gather(*waiting)
    await eventually(lambda: _let_in(client), "requests are let in again")
