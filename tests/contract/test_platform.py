"""What order systems see when the platform refuses, is slow, or answers nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.contract.service import Client, add_app, eventually, phone, rows, settled_config


async def test_refused_because_of_the_body_is_422(client: Client) -> None:
    """The platform's "invalid request" answers 422 platform_rejected_request with its words, and holds no number."""
    await client.fault("bind", "code", code="1010002", count=1)
    a = phone()
    problem = (await client.bind(a=a)).problem(422, "platform_rejected_request")
    assert (problem["platform_code"], problem["platform_http"]) == ("1010002", 403)
    failed = await client.show(problem["binding"])
    assert (failed["state"], failed["reason"]) == ("failed", "platform_rejected_request")
    assert await client.platform_of(a) == []
    assert (await client.bind(a=a)).status == 201


@pytest.mark.parametrize("code", ["1010003", "1010040", "1012012", "1020166", "1023036", "1020150"])
async def test_refused_because_of_configuration_is_502(client: Client, code: str) -> None:
    """What only an operator can mend answers 502 platform_refused and names the platform's code."""
    await client.fault("bind", "code", code=code, count=1)
    problem = (await client.bind()).problem(502, "platform_refused")
    assert problem["platform_code"] == code
    assert (await client.bind()).status == 201


@pytest.mark.parametrize("code", ["1010004", "1010008", "1010021"])
async def test_suspended_by_the_platform_is_503(client: Client, code: str) -> None:
    """An application that the platform has suspended answers 503 app_suspended with Retry-After."""
    await client.fault("bind", "code", code=code, count=1)
    answer = await client.bind()
    assert answer.problem(503, "app_suspended")["platform_code"] == code
    assert int(answer.headers["Retry-After"]) > 0


async def test_a_frozen_account_suspends_its_app_until_an_operator_resumes_it(client: Client) -> None:
    """1010029 answers 503 app_suspended; from then on nothing is asked for this app, others go on."""
    x = "+8617955000001"
    await client.emulator("PUT", "apps/key-of-arrears", {"secret": "secret", "mode": "axb", "rate": 0, "burst": None})
    await client.emulator("PUT", "apps/key-of-arrears/numbers", [{"number": x, "area_code": "021"}])
    tenant = await add_app(client.service, "arrears", pools=[("east", "021", [x])])
    await settled_config(client.service, client, tenant.keys["main"])
    await client.fault("bind", "code", code="1010029", count=1)
    answer = await client.bind(key=tenant.keys["main"])
    assert answer.problem(503, "app_suspended")["platform_code"] == "1010029"
    ((state, reason),) = await rows(client.service, "SELECT state, state_reason FROM app WHERE name = 'arrears'")
    assert (state, "1010029" in reason) == ("suspended", True)

    async def refused_here() -> bool:
        told = await client.bind(key=tenant.keys["main"])
        return told.status == 503 and "platform_code" not in told.problem(503, "app_suspended")

    await eventually(refused_here, "the workers know that the app is suspended")
    assert (await client.bind()).status == 201


async def test_another_x_is_tried_when_the_platform_refuses_one(client: Client) -> None:
    """A full or foreign X costs the order nothing: another one is bound and answered."""
    await client.fault("bind", "code", code="1012008", count=1)
    await client.fault("bind", "code", code="1012001", count=1)
    a = phone()
    body = (await client.bind(a=a)).body
    (held,) = await client.platform_of(a)
    assert (held["x"], body["state"]) == (body["x"], "active")


@pytest.mark.parametrize(
    "fault", [{"kind": "drop_answer"}, {"kind": "reset"}, {"kind": "code", "code": "1023002"}, {"kind": "late_commit"}]
)
async def test_an_answer_that_is_lost_makes_one_binding(client: Client, fault: dict[str, Any]) -> None:
    """When nobody knows what the platform did, the broker finds out: 201 or 202, and one binding in the end."""
    extra: dict[str, Any] = {"ms": 150} if fault["kind"] == "late_commit" else {}
    await client.fault("bind", **{**fault, **extra}, count=1)
    a = phone()
    answer = await client.bind(a=a, headers={"Request-Timeout": "10"})
    assert answer.status == 201, answer.raw
    (held,) = await client.platform_of(a)
    assert (held["x"], held["subscription_id"]) == (answer.body["x"], answer.body["platform_binding_id"])


async def test_not_confirmed_in_time_is_202(client: Client) -> None:
    """At the deadline the answer is 202 with nothing promised; the binding becomes active and X stays what it is."""
    await client.fault("bind", "delay", ms=900, count=1)
    before = asyncio.get_running_loop().time()
    answer = await client.bind(headers={"Request-Timeout": "0.3"}, order_id="slow")
    took = asyncio.get_running_loop().time() - before
    assert answer.status == 202
    assert 0.25 <= took < 0.8
    body = answer.body
    assert answer.headers["Location"] == f"/v1/bindings/{body['id']}"
    nothing = ("x", "y", "extension", "expires_at", "platform_binding_id", "ended_at")
    assert (body["state"], [body[name] for name in nothing]) == ("pending", [None] * 6)
    assert body["order_id"] == "slow"
    shown = await client.show(body["id"])
    assert shown == body
    active = await client.until(body["id"], "active")
    assert active["x"] is not None
    assert active["expires_at"] is not None
    assert {name for name in body if body[name] != active[name]} == {"state", "x", "expires_at", "platform_binding_id"}
    assert await client.show(body["id"]) == active


async def test_the_default_deadline_is_3_seconds(client: Client) -> None:
    """Without Request-Timeout the answer comes after 3 s at the latest."""
    await client.fault("bind", "delay", ms=3_600, count=1)
    before = asyncio.get_running_loop().time()
    answer = await client.bind()
    assert answer.status == 202
    assert 2.9 <= asyncio.get_running_loop().time() - before < 3.5
    await client.until(answer.body["id"], "active")


@pytest.mark.parametrize("prefer", ["respond-async", "return=minimal, Respond-Async; x=1"])
async def test_respond_async_is_202_at_once(client: Client, prefer: str) -> None:
    """Prefer: respond-async answers 202 as soon as the binding is committed."""
    await client.fault("bind", "delay", ms=400, count=1)
    answer = await client.bind(headers={"Prefer": prefer})
    assert (answer.status, answer.body["state"], answer.body["x"]) == (202, "pending", None)
    await client.until(answer.body["id"], "active")


async def test_a_slow_release_is_202_and_ends(client: Client) -> None:
    """DELETE answers 202 when the platform has not confirmed in time, then 200; a repeat changes nothing."""
    created = (await client.bind()).body
    path = f"/v1/bindings/{created['id']}"
    await client.fault("unbind", "delay", ms=700, count=1)
    answer = await client.ask("DELETE", path, headers={"Request-Timeout": "0.2"})
    assert (answer.status, answer.body["state"]) == (202, "releasing")
    answer = await client.ask("DELETE", path, headers={"Prefer": "respond-async"})
    assert (answer.status, answer.body["state"]) == (202, "releasing")
    answer = await client.ask("DELETE", path)
    assert (answer.status, answer.body["state"]) == (200, "released")


async def test_releasing_what_is_still_pending(client: Client) -> None:
    """A binding released before the platform confirmed it ends there too; nobody is ever told its X."""
    await client.fault("bind", "delay", ms=600, count=1)
    a = phone()
    created = (await client.bind(a=a, headers={"Prefer": "respond-async"})).body
    answer = await client.ask("DELETE", f"/v1/bindings/{created['id']}", headers={"Request-Timeout": "0.1"})
    assert (answer.status, answer.body["state"]) == (202, "releasing")
    await client.until(created["id"], "released")
    assert await client.platform_of(a) == []
    assert (await client.ask("DELETE", f"/v1/bindings/{created['id']}")).status == 200


async def test_a_refused_release_keeps_the_number(client: Client) -> None:
    """A release that the platform refuses is repeated until it is done; the X is not given away meanwhile."""
    a, b = phone(), phone()
    created = (await client.bind(a=a, b=b)).body
    await client.fault("unbind", "code", code="1010001", count=2)
    answer = await client.ask("DELETE", f"/v1/bindings/{created['id']}", headers={"Request-Timeout": "0.1"})
    assert answer.status in {200, 202}
    await client.until(created["id"], "released")
    assert await client.platform_of(a) == []
