"""The whole story over HTTP, with a clock that can be moved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.contract.service import Answer, Client, Service, client_of, eventually, memory, phone, up, without_sample
from tests.pg import state_folder

_QUARANTINE_S = 7200
_POOL = "beijing"
_SIZE = 24


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """A broker whose clock, and whose platform's, tests can move."""
    with state_folder(memory()) as folder, up(folder, "--test-clock", "--workers", "2") as running:
        asyncio.run(without_sample(running))
        yield running


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    """Requests to it."""
    async with client_of(service) as made:
        yield made


async def _advance(client: Client, seconds: float) -> Answer:
    clock = f"{client.service.ready['admin']}/test/clock"
    return await client.ask("POST", clock, {"advance_s": seconds}, key=None)


async def _release(client: Client, binding_id: str) -> None:
    answer = await client.ask("DELETE", f"/v1/bindings/{binding_id}")
    assert (answer.status, answer.body["state"]) == (200, "released")


async def _reached(client: Client, caller: str, x: str) -> str | None:
    return str(found) if (found := (await client.call(caller, x))["connected_to"]) else None


async def test_bound_called_released(client: Client) -> None:
    """A reaches B and B reaches A through X, a stranger reaches nobody; after the release nobody is reached."""
    a, b, stranger = phone(), phone(), phone()
    created = (await client.bind(a=a, b=b)).body
    x = created["x"]
    assert (await client.call(a, x))["shown"] == x
    assert [await _reached(client, caller, x) for caller in (a, b, stranger)] == [b, a, None]
    await _release(client, created["id"])
    assert [await _reached(client, caller, x) for caller in (a, b, stranger)] == [None, None, None]


async def test_a_released_x_rests(client: Client) -> None:
    """Inside the quarantine neither party gets that X with anybody else; afterwards they do; a is never misrouted."""
    a, b = phone(), phone()
    first = (await client.bind(a=a, b=b, pool=_POOL)).body
    await _release(client, first["id"])
    # A takes every other X of the pool with other parties: the resting one is the only one left, and is refused.
    others = await asyncio.gather(*(client.bind(a=a, pool=_POOL) for _ in range(_SIZE - 1)))
    assert {answer.status for answer in others} == {201}
    taken = {answer.body["x"] for answer in others}
    assert len(taken) == _SIZE - 1
    assert first["x"] not in taken
    problem = (await client.bind(a=a, pool=_POOL)).problem(409, "pool_exhausted")
    assert (problem["reasons"]["resting"], problem["reasons"]["a_busy"]) == (1, _SIZE - 1)
    # B rests on it as well, whichever side it takes.
    for turn in range(5):
        sides: dict[str, Any] = {"a": b, "b": phone()} if turn % 2 else {"a": phone(), "b": b}
        assert (await client.bind(**sides, pool=_POOL)).body["x"] != first["x"]
    # The very same pair may have it back before its rest is over; then only the clock frees it for others.
    again = (await client.bind(a=a, b=b, pool=_POOL)).body
    assert again["x"] == first["x"]
    await _release(client, again["id"])
    assert (await _advance(client, _QUARANTINE_S - 60)).status == 200
    (await client.bind(a=a, pool=_POOL)).problem(409, "pool_exhausted")
    assert (await _advance(client, 120)).body["ahead_s"] >= _QUARANTINE_S
    c = phone()
    last = (await client.bind(a=a, b=c, pool=_POOL)).body
    assert last["x"] == first["x"]
    assert [await _reached(client, caller, last["x"]) for caller in (a, c, b)] == [c, a, None]


async def test_a_lifetime_ends(client: Client) -> None:
    """ttl_s 60: after 61 s the binding is over at the broker and at the platform, and calls reach nobody."""
    a, b = phone(), phone()
    created = (await client.bind(a=a, b=b, ttl_s=60)).body
    lasting = (await client.bind(a=phone(), b=phone(), ttl_s=0)).body
    assert (await _advance(client, 50)).status == 200
    assert await _reached(client, a, created["x"]) == b
    assert (await client.show(created["id"]))["state"] == "active"
    assert (await _advance(client, 12)).status == 200
    assert [await _reached(client, caller, created["x"]) for caller in (a, b)] == [None, None]
    assert await client.platform_of(a) == []
    ended = await client.until(created["id"], "released")
    assert (ended["reason"], ended["x"]) == ("expired", created["x"])
    assert (await client.ask("DELETE", f"/v1/bindings/{created['id']}")).status == 200
    assert (await client.show(lasting["id"]))["state"] == "active"
    unbinds = [row for row in await client.ledger() if row["op"] == "unbind" and row.get("a") == a]
    assert unbinds == []


async def test_expired_numbers_rest_too(client: Client) -> None:
    """An X that was given up by expiry rests like a released one."""
    a = phone()
    created = (await client.bind(a=a, pool=_POOL, ttl_s=60)).body
    assert (await _advance(client, 70)).status == 200
    await client.until(created["id"], "released")
    others = await asyncio.gather(*(client.bind(a=a, pool=_POOL, ttl_s=0) for _ in range(_SIZE - 1)))
    assert created["x"] not in {answer.body["x"] for answer in others}
    problem = (await client.bind(a=a, pool=_POOL)).problem(409, "pool_exhausted")
    assert problem["reasons"]["resting"] == 1


async def test_keys_are_kept_for_a_day(client: Client) -> None:
    """An Idempotency-Key is answered from store for 24 hours and is fresh after them."""
    headers, fields = {"Idempotency-Key": "a-day"}, {"a": phone(), "b": phone()}
    first = await client.bind(headers=headers, **fields)
    await _advance(client, 86_000)
    assert (await client.bind(headers=headers, **fields)).headers["Idempotency-Replayed"] == "true"
    await _advance(client, 500)

    async def fresh() -> Answer | None:
        answer = await client.bind(headers=headers, **fields)
        return answer if "Idempotency-Replayed" not in answer.headers else None

    answer = await eventually(fresh, "the key is fresh")
    assert answer.status == 201
    assert answer.body["id"] != first.body["id"]


@pytest.mark.parametrize("body", [None, {}, {"advance_s": -1}, {"advance_s": "1"}, {"advance_s": True}, [1], {"x": 1}])
async def test_the_clock_refuses_nonsense(client: Client, body: object) -> None:
    """The clock only goes forward, by a number of seconds."""
    clock = f"{client.service.ready['admin']}/test/clock"
    assert (await client.ask("POST", clock, body, key=None)).status == 422


async def test_the_clock_is_on_the_admin_listener_only(client: Client) -> None:
    """Order systems cannot move the clock."""
    for listener in ("api", "edge"):
        clock = f"{client.service.ready[listener]}/test/clock"
        assert (await client.ask("POST", clock, {"advance_s": 1}, key=None)).status == 404
    assert (await _advance(client, 0)).status == 200
