"""Mode X end to end: bindings that no platform hears of."""

from __future__ import annotations

from uuid import UUID

import pytest

from tests.contract.service import Client, Service, Tenant, add_app, add_key, eventually, phone, rows, settled_config

_X = "+8617099900001"


@pytest.fixture
async def exchange(service: Service, client: Client) -> Tenant:
    """An app in mode X with one number."""
    tenant = await add_app(service, "exchange", pools=[("all", "0755", [_X])], callers=())
    await rows(service, "UPDATE app SET mode = 'x' WHERE id = $1", tenant.app_id)
    # The key last: who knows it knows the rest.
    key = await add_key(service, tenant.app_id, "main", ("bind", "read"))
    await settled_config(service, client, key)
    return Tenant(tenant.app_id, {"main": key})


async def test_bound_changed_and_ended_without_a_platform_call(client: Client, exchange: Tenant) -> None:
    """Bind, change and release are confirmed by our own books, and whom a call reaches follows at once."""
    key, a, b, other = exchange.keys["main"], phone(), phone(), phone()

    async def reached(caller: str) -> tuple[str, str | None]:
        answer = await client.ask("POST", "/v1/reach:query", {"x": _X, "caller": caller}, key=key)
        assert answer.status == 200, answer.raw
        return answer.body["why"], answer.body["role"]

    made = await client.bind(a=a, b=b, key=key)
    assert (made.status, made.body["x"], made.body["mode"]) == (201, _X, "x"), made.raw
    assert made.body["platform_binding_id"] == f"local-{made.body['line']}"
    assert [await reached(caller) for caller in (a, b, other)] == [
        ("bound", "b"), ("bound", "a"), ("party_unknown", None),
    ]  # fmt: skip
    path = f"/v1/bindings/{made.body['id']}"
    changed = await client.ask("PATCH", path, {"b": other}, key=key)
    assert (changed.status, changed.body["pending_change"]) == (200, None), changed.raw
    assert [await reached(caller) for caller in (a, b, other)] == [
        ("bound", "b"), ("party_unknown", None), ("bound", "a"),
    ]  # fmt: skip
    ended = await client.ask("DELETE", path, key=key)
    assert (ended.status, ended.body["state"]) == (200, "released"), ended.raw
    assert await reached(a) == ("not_bound", None)
    assert not [entry for entry in await client.ledger() if _X in str(entry)]


async def test_who_does_not_wait_hears_that_it_is_bound(service: Service, client: Client) -> None:
    """There is nothing to wait for: the answer to `respond-async` is the binding, active, and it is told of once."""
    key = next(app["api_key"] for app in service.ready["apps"] if app["mode"] == "x")
    after = (await client.ask("GET", "/v1/events?after=latest", key=key)).body["next_after"]
    made = await client.bind(key=key, headers={"Prefer": "respond-async"})
    assert (made.status, made.body["state"]) == (201, "active"), made.raw
    told = await client.ask("GET", f"/v1/events?after={after}&wait_s=30&types=binding.active", key=key)
    assert [event["subject"] for event in told.body["items"]] == [made.body["id"]]
    assert told.body["items"][0]["data"]["x"] == made.body["x"]


async def test_the_platform_asks_us_where_a_call_goes(service: Service, client: Client) -> None:
    """`up`'s own app in mode X: the emulator's question is answered from the books, and the call becomes a row."""
    key = next(app["api_key"] for app in service.ready["apps"] if app["mode"] == "x")
    a, b = phone(), phone()
    made = await client.bind(a=a, b=b, key=key)
    assert made.status == 201, made.raw
    called = await client.call(a, made.body["x"])
    assert (called["connected_to"], called["shown"], called["state_code"]) == (b, made.body["x"], 0)
    assert (await client.call(phone(), made.body["x"]))["connected_to"] is None

    async def projected() -> object:
        return await rows(service, "SELECT 1 FROM call WHERE line_id = $1", UUID(made.body["line"]))

    await eventually(projected, "the call is in the books")
