"""``POST /v1/bindings/{id}:rebind-in``: a binding goes on in a sibling app, and the old one stands until then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.contract.service import (
    Answer,
    Client,
    Json,
    Service,
    add_app,
    add_key,
    client_of,
    eventually,
    memory,
    phone,
    rows,
    settled_config,
    up,
)
from tests.pg import state_folder

#: What add_app gives every app.
_SECRET = "secret"


@dataclass(frozen=True, slots=True)
class _Sibling:
    """An app of the demonstration's owner, known to the emulator, in which the caller `demo` binds."""

    name: str
    key: str


@asynccontextmanager
async def _sibling(service: Service, client: Client, name: str, number: int) -> AsyncIterator[_Sibling]:
    """Make the app with one pool of Beijing and one of Shenzhen, three numbers each."""
    numbers = [f"+86{number + place}" for place in range(6)]
    tenant = await add_app(
        service,
        name,
        pools=[("north", "010", numbers[:3]), ("south", "0755", numbers[3:])],
        callers=(),
    )
    await client.emulator("PUT", f"apps/key-of-{name}", {"secret": _SECRET, "mode": "axb", "rate": 0, "burst": None})
    rented = [{"number": one, "area_code": "010" if place < 3 else "0755"} for place, one in enumerate(numbers)]
    await client.emulator("PUT", f"apps/key-of-{name}/numbers", rented)
    await rows(service, "UPDATE app SET owner = 'demo' WHERE name = $1", name)
    key = await add_key(service, tenant.app_id, "demo", ("bind", "read"))  # last: who knows the key knows the rest
    await settled_config(service, client, key)
    try:
        yield _Sibling(name, key)
    finally:
        await rows(service, "UPDATE app SET owner = NULL WHERE name = $1", name)


async def _rebind(
    client: Client, binding_id: str, *, headers: dict[str, str] | None = None, **fields: object
) -> Answer:
    return await client.ask("POST", f"/v1/bindings/{binding_id}:rebind-in", fields, headers=headers)


async def _shown(client: Client, binding_id: str, key: str) -> Json:
    answer = await client.ask("GET", f"/v1/bindings/{binding_id}", key=key)
    assert answer.status == 200, answer.raw
    return dict(answer.body)


async def test_it_goes_on_in_the_sibling_app(service: Service, client: Client) -> None:
    """201 with another id and X; the old one ends as moved; parties, order, area, lifetime and options go along."""
    async with _sibling(service, client, "rebind-plain", 17012300000) as there:
        a, b = phone(), phone()
        made = await client.bind(
            a=a, b=b, area_code="0755", order_id="order-9", metadata={"n": 1}, user_data="ours", ttl_s=900, sms=True,
            max_call_minutes=30, direction="a_to_b",
        )  # fmt: skip
        old = made.body
        answer = await _rebind(client, old["id"], app=there.name)
        assert answer.status == 201, answer.raw
        new = answer.body
        assert answer.headers["Location"] == f"/v1/bindings/{new['id']}"
        assert (new["replaces"], new["warnings"]) == (old["id"], [])
        assert (new["state"], new["pool"], new["area_code"]) == ("active", "south", "0755")
        same = ("a", "b", "order_id", "metadata", "user_data", "sms", "max_call_minutes", "direction")
        assert {name: new[name] for name in same} == {name: old[name] for name in same}
        assert 60 <= new["ttl_s"] <= 900
        assert new["x"].startswith("+8617012300")
        over = await client.until(old["id"], "released")
        assert over["reason"] == "moved"
        assert (await _shown(client, new["id"], there.key))["state"] == "active"
        (await client.ask("GET", f"/v1/bindings/{new['id']}")).problem(404, "binding_not_found")
        assert [row["x"] for row in await client.platform_of(a)] == [new["x"]]
        (await _rebind(client, old["id"], app=there.name)).problem(409, "binding_ended")


async def test_fields_may_be_given_instead(service: Service, client: Client) -> None:
    """Any field of a bind but a replaces what would have gone along; null leaves it out."""
    async with _sibling(service, client, "rebind-other", 17012300100) as there:
        b = phone()
        old = (await client.bind(order_id="order-9", user_data="ours")).body
        answer = await _rebind(client, old["id"], app=there.name, b=b, pool="north", ttl_s=0, user_data=None)
        assert answer.status == 201, answer.raw
        new = answer.body
        assert (new["pool"], new["ttl_s"], new["user_data"], new["order_id"]) == ("north", 0, None, "order-9")
        assert new["b"] != old["b"]


async def test_what_does_not_go_along_is_named(service: Service, client: Client) -> None:
    """What the other app cannot do is left out with a warning: here a tone, and SMS."""
    async with _sibling(service, client, "rebind-less", 17012300200) as there:
        await rows(service, "UPDATE app SET sms = false WHERE name = $1", there.name)

        async def taken_in() -> bool:
            old = (await client.bind(sms=True, max_call_minutes=5, last_minute_tone="demo_tone.wav")).body
            answer = await _rebind(client, old["id"], app=there.name)
            assert answer.status == 201, answer.raw
            new = answer.body
            assert (new["last_minute_tone"], new["max_call_minutes"]) == (None, 5)
            assert all(warning["code"] == "not_carried_over" for warning in new["warnings"])
            places = {warning["pointer"] for warning in new["warnings"]}
            assert "/last_minute_tone" in places
            return "/sms" in places and new["sms"] is None

        await eventually(taken_in, "every worker knows that the app has no SMS")


@pytest.mark.parametrize("app", ["no-such-app", "rebind-stranger", "rebind-nobody"])
async def test_a_foreign_app_is_like_none(service: Service, client: Client, app: str) -> None:
    """An unknown app, another owner's, and a sibling in which the caller does not bind: one answer; nothing changes."""
    if app != "no-such-app":
        caller = "demo" if app == "rebind-stranger" else "somebody"
        tenant = await add_app(service, app, callers=())
        owner = "another" if app == "rebind-stranger" else "demo"
        await rows(service, "UPDATE app SET owner = $2 WHERE name = $1", app, owner)
        await settled_config(service, client, await add_key(service, tenant.app_id, caller, ("bind", "read")))
    old = (await client.bind()).body
    problem = (await _rebind(client, old["id"], app=app)).problem(404, "foreign_app")
    assert problem["detail"] == "There is no such app in which you bind, too."
    assert await client.show(old["id"]) == old


async def test_bad_requests_change_nothing(service: Service, client: Client) -> None:
    """Its own app, another a, unknown fields and pools are 422 and named; an unknown binding is 404."""
    async with _sibling(service, client, "rebind-bad", 17012300300) as there:
        old = (await client.bind()).body
        assert (await _rebind(client, old["id"])).pointers() == {"/app"}
        assert (await _rebind(client, old["id"], app="demo-axb")).pointers() == {"/app"}
        assert (await _rebind(client, old["id"], app=there.name, a=phone())).pointers() == {"/a"}
        wrong = await _rebind(client, old["id"], app=there.name, nonsense=1, pool="nowhere")
        assert wrong.pointers() == {"/nonsense", "/pool"}
        (await _rebind(client, "bnd_" + "0" * 32, app=there.name)).problem(404, "binding_not_found")
        assert await client.show(old["id"]) == old
        assert await rows(service, "SELECT FROM succession WHERE settled_at IS NULL") == []


async def test_a_refusing_platform_leaves_the_old_one(service: Service, client: Client) -> None:
    """Whether no X is free or the platform refuses the new one: the old one stands, and the next try may succeed."""
    async with _sibling(service, client, "rebind-refused", 17012300400) as there:
        a = phone()
        old = (await client.bind(a=a)).body
        await client.fault("bind", "code", code="1010002", count=1)
        (await _rebind(client, old["id"], app=there.name)).problem(422, "platform_rejected_request")
        assert await client.show(old["id"]) == old
        for place in range(6):  # A is behind every X of the app
            taken = await client.bind(key=there.key, a=a, b=phone())
            assert taken.status == 201, place
        (await _rebind(client, old["id"], app=there.name)).problem(409, "pool_exhausted")
        assert await client.show(old["id"]) == old
        await client.ask("DELETE", f"/v1/bindings/{taken.body['id']}", key=there.key)
        other = (await client.bind(a=phone())).body
        assert (await _rebind(client, other["id"], app=there.name)).status == 201


async def test_pending_then_active_ends_the_old_one(service: Service, client: Client) -> None:
    """202 while the platform has not confirmed: both stand; a second request is refused; then the old one ends."""
    async with _sibling(service, client, "rebind-slow", 17012300500) as there:
        old = (await client.bind()).body
        await client.fault("bind", "delay", ms=1500, count=1)
        answer = await _rebind(client, old["id"], headers={"Prefer": "respond-async"}, app=there.name)
        assert (answer.status, answer.body["state"]) == (202, "pending"), answer.raw
        assert (await client.show(old["id"]))["state"] == "active"
        (await _rebind(client, old["id"], app=there.name)).problem(409, "change_in_progress")
        assert (await client.until(old["id"], "released"))["reason"] == "moved"
        assert (await _shown(client, answer.body["id"], there.key))["state"] == "active"


async def test_two_at_once_make_one(service: Service, client: Client) -> None:
    """Of many requests at once exactly one makes a binding; the others are refused or find the old one ended."""
    async with _sibling(service, client, "rebind-twice", 17012300600) as there:
        a = phone()
        old = (await client.bind(a=a)).body
        answers = await asyncio.gather(*(_rebind(client, old["id"], app=there.name) for _ in range(8)))
        made = [answer.body for answer in answers if answer.status < 300]
        assert len(made) == 1
        refused = {answer.body["code"] for answer in answers if answer.status >= 300}
        assert refused <= {"change_in_progress", "binding_ended"}, refused
        await client.until(old["id"], "released")
        assert [row["x"] for row in await client.platform_of(a)] == [made[0]["x"]]


async def test_a_repeat_is_answered_the_same(service: Service, client: Client) -> None:
    """With an Idempotency-Key the request is carried out once."""
    async with _sibling(service, client, "rebind-once", 17012300700) as there:
        old = (await client.bind()).body
        headers = {"Idempotency-Key": "move-once"}
        first = await _rebind(client, old["id"], headers=headers, app=there.name)
        again = await _rebind(client, old["id"], headers=headers, app=there.name)
        assert (first.status, again.status, again.raw) == (201, 201, first.raw)
        assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("place", ["after_intent", "after_commit", "after_send", "after_answer", "after_outcome"])
async def test_whoever_dies_in_between(place: str, tmp_path: Path) -> None:
    """The worker is killed on the way: a repeat with the key ends with one new binding, and the old one has moved."""
    # The bind of the old binding passes all places but the new one's own once before.
    nth = 1 if place in {"after_intent", "after_outcome"} else 2
    settings = {
        "BROKER_TEST_CRASH_AT": f"{place}:kill:{nth}",
        "BROKER_RESCUE_INTERVAL_S": "0.2",
        "BROKER_LEASE_S": "6",
        "TEST_CRASH_ONCE": str(tmp_path / "hit"),
    }
    with state_folder(memory()) as folder, up(folder, "--workers", "1", settings=settings) as service:
        async with client_of(service) as client, _sibling(service, client, "rebind-crash", 17012300000) as there:
            a = phone()
            old = (await client.bind(a=a)).body
            headers = {"Idempotency-Key": "crash", "Request-Timeout": "1"}
            with pytest.raises(aiohttp.ClientError):
                await _rebind(client, old["id"], headers=headers, app=there.name)

            async def repeated() -> Answer | None:
                try:
                    answer = await _rebind(client, old["id"], headers=headers, app=there.name)
                except aiohttp.ClientError:
                    return None
                if answer.status < 300:
                    return answer
                assert answer.body["code"] in {"idempotency_in_progress", "change_in_progress"}, answer.raw
                return None

            answer: Answer = await eventually(repeated, "the repeat is answered", 60)
            assert answer.body["replaces"] == old["id"]
            over = await client.until(old["id"], "released")
            assert over["reason"] == "moved"
            new = await _shown(client, answer.body["id"], there.key)
            assert new["state"] == "active"
            assert [row["x"] for row in await client.platform_of(a)] == [new["x"]]
            assert len(await rows(service, "SELECT FROM binding WHERE state = 'active'")) == 1
