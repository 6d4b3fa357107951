"""``rebind-in`` between the demonstration's apps: what one mode has and another has not."""

from __future__ import annotations

import pytest

from tests.contract.service import Answer, Client, Json, Service, eventually, phone


def _key(service: Service, mode: str) -> str:
    (app,) = [app for app in service.ready["apps"] if app["mode"] == mode]
    return str(app["api_key"])


async def _rebind(client: Client, key: str, binding_id: str, **fields: object) -> Answer:
    return await client.ask("POST", f"/v1/bindings/{binding_id}:rebind-in", fields, key=key)


async def _over(client: Client, key: str, binding_id: str) -> Json:
    async def released() -> Json | None:
        found = (await client.ask("GET", f"/v1/bindings/{binding_id}", key=key)).body
        return found if found["state"] == "released" else None

    return dict(await eventually(released, f"{binding_id} is released"))


@pytest.mark.parametrize("mode", ["ax", "axe", "axyb", "x"])
async def test_a_pair_goes_on_in_every_mode(service: Service, client: Client, mode: str) -> None:
    """From AXB into another mode: A and its options go along, B only where the mode has one; then back, with a B."""
    a, b = phone(), phone()
    there, here = _key(service, mode), _key(service, "axb")
    old = (await client.bind(a=a, b=b, area_code="0755", ttl_s=3600, recording={"enabled": True})).body
    answer = await _rebind(client, here, old["id"], app=f"demo-{mode}")
    assert answer.status == 201, answer.raw
    new = answer.body
    assert (new["mode"], new["a"], new["b"]) == (mode, old["a"], old["b"] if mode == "x" else None)
    assert new["recording"] is not None
    assert (await _over(client, here, old["id"]))["reason"] == "moved"
    missing = await _rebind(client, there, new["id"], app="demo-axb")
    if mode != "x":
        assert missing.pointers() == {"/b"}
        missing = await _rebind(client, there, new["id"], app="demo-axb", b=b)
    assert missing.status == 201, missing.raw
    assert (await _over(client, there, new["id"]))["reason"] == "moved"
    assert (await client.call(a, missing.body["x"]))["connected_to"] == b


async def test_what_a_mode_does_not_know_is_named(service: Service, client: Client) -> None:
    """AXE has no B, direction, SMS switch or limit of calls: each is a warning, and the move goes through."""
    old = (await client.bind(direction="a_to_b", sms=True, max_call_minutes=5)).body
    answer = await _rebind(client, _key(service, "axb"), old["id"], app="demo-axe")
    assert answer.status == 201, answer.raw
    dropped = {item["pointer"] for item in answer.body["warnings"] if item["code"] == "not_carried_over"}
    assert dropped == {"/b", "/direction", "/sms", "/max_call_minutes"}


async def test_what_a_mode_does_not_know_cannot_be_given(service: Service, client: Client) -> None:
    """A field that the other mode has not is a 422 that names it; nothing changes."""
    old = (await client.bind()).body
    wrong = await _rebind(client, _key(service, "axb"), old["id"], app="demo-ax", policy="spread", b=phone())
    assert wrong.pointers() == {"/policy", "/b"}
    assert await client.show(old["id"]) == old
