"""What the issue promises of POST, GET and DELETE when all goes well."""

from __future__ import annotations

import asyncio
import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.contract.service import Client, Tenant, phone

_FIELDS = {
    "id", "mode", "state", "reason", "x", "extension", "y", "a", "b", "direction", "pool", "area_code", "order_id",
    "user_data", "metadata", "ttl_s", "expires_at", "created_at", "ended_at", "platform_binding_id", "shadow", "line",
    "shared", "recording", "max_call_minutes", "last_minute_tone", "sms", "tones", "display", "peer_ttl_s", "callback",
    "callee", "gap_ms", "warnings", "pending_change", "change_failed",
}  # fmt: skip
#: Those of a line that only a wish brings about.
OPTIONS = ("recording", "max_call_minutes", "last_minute_tone", "sms", "tones")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def _time(text: str) -> datetime:
    assert _TIME.fullmatch(text), text
    return datetime.fromisoformat(text)


async def test_create_answers_201_with_location_and_every_field(client: Client) -> None:
    """A confirmed bind answers 201, a Location, all fields, phones masked and times in UTC with Z."""
    a, b = phone(), phone()
    answer = await client.bind(
        a=a, b=b, area_code="0755", ttl_s=120, direction="a_to_b", policy="spread", order_id="order-1",
        user_data="for you", metadata={"kind": ["courier", 1]}, share=False,
    )  # fmt: skip
    assert answer.status == 201
    assert answer.headers["Content-Type"].startswith("application/json")
    body = answer.body
    assert set(body) == _FIELDS
    assert answer.headers["Location"] == f"/v1/bindings/{body['id']}"
    assert re.fullmatch(r"bnd_[0-9a-v]{32}", body["id"])
    assert (body["mode"], body["state"], body["reason"]) == ("axb", "active", None)
    assert re.fullmatch(r"\+86170755000\d\d", body["x"])
    assert (body["extension"], body["y"], body["ended_at"]) == (None, None, None)
    assert body["a"] == f"+86*******{a[-4:]}"
    assert body["b"] == f"+86*******{b[-4:]}"
    assert (body["pool"], body["area_code"], body["direction"]) == ("shenzhen", "0755", "a_to_b")
    assert (body["order_id"], body["user_data"]) == ("order-1", "for you")
    assert body["metadata"] == {"kind": ["courier", 1]}
    assert body["ttl_s"] == 120
    lived = _time(body["expires_at"]) - _time(body["created_at"])
    assert timedelta(seconds=120) <= lived < timedelta(seconds=130)
    (held,) = await client.platform_of(a)
    assert held["subscription_id"] == body["platform_binding_id"]
    assert (held["x"], held["b"]) == (body["x"], b)


async def test_the_location_shows_the_same_binding(client: Client) -> None:
    """GET of the Location answers 200 with what POST answered."""
    created = await client.bind(order_id="order-2", metadata={"b": 1, "a": [True, None, "x"]})
    shown = await client.ask("GET", created.headers["Location"])
    assert shown.status == 200
    assert shown.body == created.body


async def test_defaults_come_from_the_app(client: Client) -> None:
    """Without ttl_s the app's default counts; direction is both; an absent pool means all open ones in name order."""
    body = (await client.bind()).body
    assert body["ttl_s"] == 86_400
    assert body["direction"] == "both"
    assert (body["pool"], body["area_code"]) == ("beijing", "010")
    assert (body["order_id"], body["user_data"], body["metadata"]) == (None, None, None)


async def test_ttl_0_never_expires(client: Client) -> None:
    """ttl_s 0 means no expiry: expires_at stays null, here and at the platform."""
    a = phone()
    body = (await client.bind(a=a, ttl_s=0)).body
    assert (body["state"], body["ttl_s"], body["expires_at"]) == ("active", 0, None)
    (held,) = await client.platform_of(a)
    assert held["expires_at"] is None


@pytest.mark.parametrize(
    ("choice", "pool"),
    [
        ({"pool": "shenzhen"}, "shenzhen"),
        ({"area_code": "0755"}, "shenzhen"),
        ({"areas": ["0755", "010"]}, "shenzhen"),
        ({"areas": ["010", "0755"]}, "beijing"),
        ({"areas": ["0755", "0755"]}, "shenzhen"),
        ({"pool": None, "area_code": None, "areas": None}, "beijing"),
    ],
)
async def test_the_choice_of_pools(client: Client, choice: dict[str, Any], pool: str) -> None:
    """A pool by name, an area, areas in the order given; nulls are as good as absent."""
    answer = await client.bind(**choice)
    assert (answer.status, answer.body["pool"]) == (201, pool)


async def test_areas_fall_through_to_the_next_pool(client: Client) -> None:
    """When every X of the first area is taken for a party, the next area of the list serves."""
    a = phone()
    first = await asyncio.gather(*(client.bind(a=a, areas=["010"]) for _ in range(24)))
    assert {answer.status for answer in first} == {201}
    assert len({answer.body["x"] for answer in first}) == 24
    answer = await client.bind(a=a, areas=["010", "0755"])
    assert (answer.status, answer.body["area_code"]) == (201, "0755")
    refused = (await client.bind(a=a, pool="beijing")).problem(409, "pool_exhausted")
    assert refused["reasons"] == {"not_open": 0, "full": 0, "a_busy": 24, "b_busy": 0, "resting": 0}
    assert refused["pools"] == ["beijing"]


@pytest.mark.parametrize("policy", ["pack", "sticky", "avoid_sticky", "spread"])
async def test_every_policy_serves(client: Client, policy: str) -> None:
    """Each policy of the contract is taken and finds an X."""
    assert (await client.bind(policy=policy)).status == 201


@pytest.mark.parametrize("direction", ["both", "a_to_b", "b_to_a"])
async def test_direction_decides_who_may_call(client: Client, direction: str) -> None:
    """The platform connects the calls that the direction allows, and no others."""
    a, b = phone(), phone()
    x = (await client.bind(a=a, b=b, direction=direction)).body["x"]
    assert (await client.call(a, x))["connected_to"] == (b if direction != "b_to_a" else None)
    assert (await client.call(b, x))["connected_to"] == (a if direction != "a_to_b" else None)


@pytest.mark.parametrize(
    "body",
    [
        {"order_id": "ü" * 128, "user_data": "漢" * 1024},
        {"ttl_s": 60},
        {"ttl_s": 31_536_000},
        {"metadata": {"k": "v" * 2040}},
        {"metadata": {"text": "a backslash and \\u0000 spelled out"}},
        {"metadata": {"deep": {"er": [[[{"x": 1.5e300}]]]}, "n": -(2**63)}},
        {"metadata": {}},
    ],
)
async def test_limits_are_inclusive(client: Client, body: dict[str, Any]) -> None:
    """The longest and the least values of the contract are taken and come back unchanged."""
    answer = await client.bind(**body)
    assert answer.status == 201, answer.raw
    shown = await client.show(answer.body["id"])
    assert {name: shown[name] for name in body} == body


async def test_the_largest_body_is_taken(client: Client) -> None:
    """A body of exactly 64 KiB is read; it is white space that fills it here."""
    core = b'{"a":"%s","b":"%s"}' % (phone().encode(), phone().encode())
    assert (await client.ask("POST", "/v1/bindings", data=core.ljust(65_536))).status == 201
    (await client.ask("POST", "/v1/bindings", data=core.ljust(65_537))).problem(413, "body_too_large")


async def test_delete_ends_it_at_the_platform(client: Client) -> None:
    """DELETE answers 200 once the platform has confirmed: nobody is behind X any more."""
    a, b = phone(), phone()
    created = (await client.bind(a=a, b=b)).body
    answer = await client.ask("DELETE", f"/v1/bindings/{created['id']}")
    assert answer.status == 200
    assert (answer.body["state"], answer.body["reason"]) == ("released", "released")
    assert _time(answer.body["ended_at"]) >= _time(created["created_at"])
    assert await client.platform_of(a) == []
    assert (await client.call(a, created["x"]))["connected_to"] is None


async def test_delete_is_idempotent(client: Client) -> None:
    """Repeated and concurrent DELETEs answer 200 with the same ended binding; the platform hears of one."""
    created = (await client.bind()).body
    before = (await client.ledger())[-1]["seq"]
    path = f"/v1/bindings/{created['id']}"
    answers = await asyncio.gather(*(client.ask("DELETE", path) for _ in range(10)))
    answers.append(await client.ask("DELETE", path))
    assert {answer.status for answer in answers} == {200}
    assert len({answer.body["ended_at"] for answer in answers}) == 1
    unbinds = [row for row in await client.ledger(before) if row["op"] == "unbind"]
    assert [row["subscription_id"] for row in unbinds] == [created["platform_binding_id"]]


async def test_other_apps_bindings_do_not_exist(client: Client, other: Tenant) -> None:
    """GET and DELETE of another app's binding answer exactly as for one that never was."""
    created = (await client.bind()).body
    missing = created["id"][:-8] + ("0" * 8 if created["id"][-8:] != "0" * 8 else "1" * 8)
    for method in ("GET", "DELETE"):
        theirs = await client.ask(method, f"/v1/bindings/{created['id']}", key=other.keys["main"])
        none = await client.ask(method, f"/v1/bindings/{missing}", key=other.keys["main"])
        assert _but_instance(theirs.problem(404, "binding_not_found")) == _but_instance(
            none.problem(404, "binding_not_found")
        )
    assert (await client.show(created["id"]))["state"] == "active"


def _but_instance(problem: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in problem.items() if name != "instance"}


async def test_an_app_without_pools_has_nothing_to_give(client: Client, other: Tenant) -> None:
    """An app without an open pool answers 409 with reasons; its own pool names are unknown to it."""
    problem = (await client.bind(key=other.keys["main"])).problem(409, "pool_exhausted")
    assert problem["pools"] == []
    assert (await client.bind(key=other.keys["main"], pool="shenzhen")).pointers() == {"/pool"}
    assert (await client.bind(key=other.keys["main"], area_code="0755")).pointers() == {"/area_code"}


async def test_health_needs_no_key(client: Client) -> None:
    """/livez, /readyz and /version answer without a key, on every listener."""
    for base in (client.service.ready["api"], client.service.ready["admin"], client.service.ready["edge"]):
        assert (await client.ask("GET", f"{base}/livez", key=None)).body == {"status": "ok"}
        ready = await client.ask("GET", f"{base}/readyz?verbose", key=None)
        assert (ready.status, ready.body["status"]) == (200, "ok")
        assert all(ready.body["required"].values())
        assert (await client.ask("GET", f"{base}/version", key=None)).body["version"]
    shown = (await client.ask("GET", "/readyz?verbose", key=None)).body["shown"]
    assert shown["database"] is True


async def test_type_of_a_problem_is_a_page_we_serve(client: Client) -> None:
    """The page behind ``type`` explains every code."""
    page = await client.ask("GET", "/problems", key=None)
    assert page.status == 200
    for code in ("pool_exhausted", "validation_failed", "platform_refused", "app_suspended", "binding_not_found"):
        assert f'id="{code}"'.encode() in page.raw


async def test_released_with_grace(client: Client) -> None:
    """The order has ended at once; X goes on to connect the two, and who binds them again shares the line."""
    a, b = phone(), phone()
    bound = await client.bind(a=a, b=b)
    gone = await client.ask("DELETE", f"/v1/bindings/{bound.body['id']}?grace_s=600")
    assert (gone.status, gone.body["state"], gone.body["reason"]) == (200, "released", "released")
    assert [held["x"] for held in await client.platform_of(a)] == [bound.body["x"]]
    again = await client.bind(a=a, b=b)
    assert (again.body["line"], again.body["x"]) == (bound.body["line"], bound.body["x"])
    assert (await client.ask("DELETE", f"/v1/bindings/{again.body['id']}?grace_s=0")).body["state"] == "released"
    assert await client.platform_of(a) == []
    wrong = await client.ask("DELETE", f"/v1/bindings/{again.body['id']}?grace_s=86401")
    assert wrong.pointers() == {"/grace_s"}
