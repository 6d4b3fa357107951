"""Lifetimes of bindings that share a line, and of those that outlast the platform's longest, on a movable clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.contract.service import Client, Service, client_of, eventually, memory, phone, up
from tests.pg import state_folder

_DAY_S = 86_400
_PLATFORM_S = 90 * _DAY_S


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A broker whose clock, and whose platform's, tests can move."""
    with state_folder(memory()) as folder, up(folder, "--test-clock", "--workers", "2") as running:
        yield running


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    """Requests to it."""
    async with client_of(service) as made:
        yield made


async def _advance(client: Client, seconds: float) -> None:
    clock = f"{client.service.ready['admin']}/test/clock"
    assert (await client.ask("POST", clock, {"advance_s": seconds}, key=None)).status == 200


async def _rows(client: Client, a: str) -> list[dict[str, Any]]:
    return [row for row in await client.ledger() if row["a"] == a and row["op"] != "query"]


async def _reached(client: Client, x: str, *callers: str) -> list[str | None]:
    return [(await client.call(caller, x))["connected_to"] for caller in callers]


async def _renewed(client: Client, a: str, times: int) -> list[dict[str, Any]]:
    """Wait for so many modifies of the line of ``a`` and return its rows."""

    async def there() -> list[dict[str, Any]] | None:
        rows = await _rows(client, a)
        return rows if [row["op"] for row in rows].count("modify") >= times else None

    return list(await eventually(there, f"{times} renewals"))


async def test_each_binding_expires_by_itself(client: Client) -> None:
    """The shorter order of a shared line expires alone; the line lives on without any call to the platform."""
    a, b = phone(), phone()
    long = (await client.bind(a=a, b=b, ttl_s=3600)).body
    short = (await client.bind(a=a, b=b, ttl_s=300)).body
    assert short["line"] == long["line"]
    await _advance(client, 301)
    ended = await client.until(short["id"], "released")
    assert (ended["reason"], ended["x"]) == ("expired", long["x"])
    assert (await client.show(long["id"]))["state"] == "active"
    assert await _reached(client, long["x"], a, b) == [b, a]
    assert [row["op"] for row in await _rows(client, a)] == ["bind"]
    await _advance(client, 3600)
    assert (await client.until(long["id"], "released"))["reason"] == "expired"
    assert await _reached(client, long["x"], a, b) == [None, None]


async def test_a_lines_lifetime_is_raised_lazily(client: Client) -> None:
    """A longer order that joins costs nothing at once; before the line would end, one modify raises it."""
    a, b = phone(), phone()
    short = (await client.bind(a=a, b=b, ttl_s=3600)).body
    long = (await client.bind(a=a, b=b, ttl_s=10_800)).body
    assert [row["op"] for row in await _rows(client, a)] == ["bind"]
    await _advance(client, 3500)
    rows = await _renewed(client, a, 1)
    assert [row["op"] for row in rows] == ["bind", "modify"]
    wanted, held = (datetime.fromisoformat(text) for text in (long["expires_at"], rows[-1]["expires_at"]))
    assert held >= wanted
    await _advance(client, 200)
    await client.until(short["id"], "released")
    assert await _reached(client, long["x"], a, b) == [b, a]
    assert (await client.show(long["id"])) == long | {"shared": False}
    await _advance(client, 7200)
    await client.until(long["id"], "released")
    assert await _reached(client, long["x"], a, b) == [None, None]


async def test_an_order_that_was_released_raises_nothing(client: Client) -> None:
    """When the longer order has ended, the line ends with the shorter one and no modify is spent on it."""
    a, b = phone(), phone()
    short = (await client.bind(a=a, b=b, ttl_s=3600)).body
    long = (await client.bind(a=a, b=b, ttl_s=10_800)).body
    assert (await client.ask("DELETE", f"/v1/bindings/{long['id']}")).status == 200
    await _advance(client, 3601)
    await client.until(short["id"], "released")
    assert await _reached(client, short["x"], a, b) == [None, None]
    assert "modify" not in [row["op"] for row in await _rows(client, a)]


async def test_an_order_without_end_joins_a_line_that_has_one(client: Client) -> None:
    """ttl_s 0 on a finite line: the platform is told in time, and nothing ends it but a release."""
    a, b = phone(), phone()
    finite = (await client.bind(a=a, b=b, ttl_s=3600)).body
    endless = (await client.bind(a=a, b=b, ttl_s=0)).body
    assert (endless["line"], endless["expires_at"]) == (finite["line"], None)
    await _advance(client, 3500)
    rows = await _renewed(client, a, 1)
    assert rows[-1]["expires_at"] is None
    await _advance(client, 100 * _DAY_S)
    assert (await client.until(finite["id"], "released"))["reason"] == "expired"
    assert await _reached(client, endless["x"], a, b) == [b, a]
    assert (await client.ask("DELETE", f"/v1/bindings/{endless['id']}")).body["state"] == "released"
    assert [row["op"] for row in await _rows(client, a)] == ["bind", "modify", "unbind"]


async def test_what_is_not_kept_any_more_is_not_there(client: Client) -> None:
    """A binding is shown for the app's 90 days after its end, then it is a 404 with its whole line; others stay."""
    a, b = phone(), phone()
    stays = (await client.bind(a=phone(), b=phone(), ttl_s=0)).body
    ended = (await client.bind(a=a, b=b, ttl_s=3600)).body
    await client.ask("DELETE", f"/v1/bindings/{ended['id']}")
    await client.until(ended["id"], "released")
    await _advance(client, 89 * _DAY_S)
    assert (await client.show(ended["id"]))["state"] == "released"
    await _advance(client, 2 * _DAY_S)

    async def gone() -> bool:
        if (await client.ask("GET", f"/v1/bindings/{ended['id']}")).status == 404:
            return True
        # Bindings are walked through once an hour, and the walk under way may have passed this one already.
        await _advance(client, 3600)
        return False

    await eventually(gone, "the binding is forgotten")
    assert (await client.ask("DELETE", f"/v1/bindings/{ended['id']}")).body["code"] == "binding_not_found"
    assert (await client.show(stays["id"]))["state"] == "active"
    assert (await client.bind(a=a, b=b, ttl_s=3600)).status == 201


async def test_200_days_without_a_gap(client: Client) -> None:
    """A lifetime beyond the platform's 90 days is renewed before each end, and ends when it was asked to."""
    a, b = phone(), phone()
    created = (await client.bind(a=a, b=b, ttl_s=200 * _DAY_S)).body
    assert created["ttl_s"] == 200 * _DAY_S
    lived = datetime.fromisoformat(created["expires_at"]) - datetime.fromisoformat(created["created_at"])
    assert 0 <= lived.total_seconds() - 200 * _DAY_S < 60
    (bound,) = await _rows(client, a)
    assert bound["duration"] == _PLATFORM_S
    ahead, renewals = 0, 0
    while ahead < 199:
        (held,) = await client.platform_of(a)
        before = held["expires_at"]
        await _advance(client, _DAY_S)
        ahead += 1
        assert await _reached(client, created["x"], a, b) == [b, a], f"day {ahead}"
        if ahead in {90 - 1, 179 - 1}:
            renewals += 1
            rows = await _renewed(client, a, renewals)
            assert datetime.fromisoformat(rows[-1]["expires_at"]) > datetime.fromisoformat(before)
    assert await client.show(created["id"]) == created
    await _advance(client, _DAY_S + 60)
    ended = await client.until(created["id"], "released")
    assert ended["reason"] == "expired"
    assert await _reached(client, created["x"], a, b) == [None, None]


async def test_a_lifetime_is_changed_without_a_call(client: Client) -> None:
    """A ttl_s that shrinks ends the binding early, one that grows is told to the platform only when it is needed."""
    a, b = phone(), phone()
    created = (await client.bind(a=a, b=b, ttl_s=3600)).body
    path = f"/v1/bindings/{created['id']}"
    assert (await client.ask("PATCH", path, {"ttl_s": 14_400})).body["ttl_s"] == 14_400
    assert [row["op"] for row in await _rows(client, a)] == ["bind"]
    await _advance(client, 3500)
    await _renewed(client, a, 1)
    await _advance(client, 3600)
    assert await _reached(client, created["x"], a, b) == [b, a]
    assert (await client.ask("PATCH", path, {"ttl_s": 60})).status == 200
    await _advance(client, 61)
    ended = await client.until(created["id"], "released")
    assert ended["reason"] == "expired"

    async def nobody() -> bool:
        return await _reached(client, created["x"], a, b) == [None, None]

    await eventually(nobody, "nobody is behind X")
