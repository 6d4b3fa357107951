"""Profile, rotation, moving and clearing over HTTP."""

from __future__ import annotations

from tests.admin.test_operator_routes import Operator, operate
from tests.contract.service import Client, add_app, eventually, rows, settled_config

__all__ = ["operate"]


async def test_the_profile_is_patched_field_by_field(operate: Operator, client: Client) -> None:
    """A patch names fields of the profile; null takes away; what breaks a rule is named and changes nothing."""
    await add_app(client.service, "profiled")
    before = (await operate.ask("GET", "apps/profiled")).body
    change = {
        "max_ttl_s": 31536000, "default_ttl_s": 31536000, "heat": 12, "recording": False, "extension_digits": 1,
        "event_url": "https://edge.example.com/n/e", "call_script": "Good day.\nGoodbye.",
    }  # fmt: skip
    assert (await operate.ask("PATCH", "apps/profiled", change)).body == {**before, **change}
    wrong = {"max_ttl_s": 59, "heat": -1, "sms": 1, "cdr_url": "file:///etc", "second_secret": "staged"}
    assert (await operate.ask("PATCH", "apps/profiled", wrong)).pointers() == {f"/{name}" for name in wrong}
    assert (await operate.ask("PATCH", "apps/profiled", {"max_ttl_s": 60})).pointers() == {"/default_ttl_s"}
    both = {"end_after_call_s": 300, "renew_by_call_s": 600, "longest_life_s": 3600}
    assert (await operate.ask("PATCH", "apps/profiled", both)).pointers() == {"/renew_by_call_s"}
    assert (await operate.ask("PATCH", "apps/profiled", {"renew_by_call_s": 600})).pointers() == {"/longest_life_s"}
    ends = {"end_after_call_s": 300, "release_grace_s": 60}
    assert (await operate.ask("PATCH", "apps/profiled", ends)).body == {**before, **change, **ends}
    await operate.ask("PATCH", "apps/profiled", {"end_after_call_s": None, "release_grace_s": 0})
    back = {**{name: before[name] for name in change}, "heat": None, "event_url": None, "call_script": None}
    assert (await operate.ask("PATCH", "apps/profiled", back)).body == before
    limits = {"requests_per_s": 5, "max_live_bindings": 7}
    caller = (await operate.ask("PATCH", "apps/profiled/callers/main", limits)).body
    assert (caller["weight"], caller["requests_per_s"], caller["max_live_bindings"]) == (1, 5.0, 7)


async def test_no_renewal_where_the_platform_has_none(operate: Operator) -> None:
    """In mode axyb calls may end a binding, but not renew it."""
    app = {"name": "fixed", "mode": "axyb", "app_key": "fixed", "secret": "secret", "base_url": "http://127.0.0.1:1"}
    refused = await operate.ask("POST", "apps", {**app, "renew_by_call_s": 600, "longest_life_s": 3600})
    assert [(error["pointer"], error["code"]) for error in refused.body["errors"]] == [
        ("/renew_by_call_s", "not_modifiable")
    ]
    assert (await operate.ask("POST", "apps", {**app, "end_after_call_s": 600})).status == 201


async def test_a_secret_and_a_key_are_rotated(operate: Operator, client: Client) -> None:
    """Stage, prove, promote, drop; a step out of order is a conflict; a rotated key has the scopes of the old one."""
    await client.emulator("PUT", "apps/key-of-rota", {"secret": "new", "mode": "axb", "rate": 0, "burst": None})
    tenant = await add_app(client.service, "rota", callers=[("main", ["read"])])
    for path in ("apps/rota/secret:promote", "apps/rota/secret:drop"):
        (await operate.ask("POST", path)).problem(409, "conflict")
    (await operate.ask("POST", "apps/rota:check", {"staged": True})).problem(409, "conflict")
    assert (await operate.ask("POST", "apps/rota/secret:stage", {"secret": ""})).pointers() == {"/secret"}
    staged = await operate.ask("POST", "apps/rota/secret:stage", {"secret": "new"})
    assert (staged.body["second_secret"], b'"new"' in staged.raw) == ("staged", False)
    assert (await operate.ask("POST", "apps/rota:check", {"staged": True})).body["ok"] is True
    assert (await operate.ask("POST", "apps/rota/secret:promote")).body["second_secret"] == "previous"
    assert (await operate.ask("POST", "apps/rota:check")).body["ok"] is True
    (await operate.ask("POST", "apps/rota/secret:stage", {"secret": "third"})).problem(409, "conflict")
    assert (await operate.ask("POST", "apps/rota/secret:drop")).body["second_secret"] is None
    made = await operate.ask("POST", "apps/rota/callers/main/keys:rotate")
    assert (made.status, made.body["scopes"], made.body["replaces"]) == (201, ["read"], "....")
    for key in (made.body["key"], tenant.keys["main"]):
        await settled_config(client.service, client, key)
    (await operate.ask("POST", "apps/rota/callers/main/keys:rotate")).problem(409, "conflict")


async def test_a_number_is_cleared_and_moved(operate: Operator, client: Client) -> None:
    """Clear answers at once with what is ending; when nothing lives or rests on the number any more, it moves."""
    x = "+8617941000001"
    await client.emulator("PUT", "apps/key-of-mover", {"secret": "secret", "mode": "axb", "rate": 0, "burst": None})
    await client.emulator("PUT", "apps/key-of-mover/numbers", [{"number": x, "area_code": "021"}])
    tenant = await add_app(client.service, "mover", pools=[("east", "021", [x]), ("west", "028", [])])
    key = tenant.keys["main"]
    await settled_config(client.service, client, key)
    bound = [(await client.bind(key=key)).body["id"] for _ in range(2)]
    to_west = {"number": x, "to": "west"}
    (await operate.ask("POST", "apps/mover/numbers:move", to_west)).problem(409, "conflict")
    await operate.ask("POST", "apps/mover/numbers:freeze", {"numbers": [x]})
    cleared = (await operate.ask("POST", "apps/mover/numbers:clear", {"number": x})).body["items"]
    assert {row["id"] for row in cleared} == set(bound)

    async def all_over() -> bool:
        return bool((await operate.ask("POST", "apps/mover/numbers:clear", {"number": x})).body == {"items": []})

    await eventually(all_over, "nothing is on the number")
    assert [held for held in await client.platform_bindings() if held["x"] == x] == []
    await rows(client.service, "UPDATE x_number SET state_since = state_since - interval '11 s' WHERE number = $1", x)
    resting = (await operate.ask("POST", "apps/mover/numbers:move", to_west)).problem(409, "conflict")
    assert "rests" in resting["detail"]
    await rows(client.service, "UPDATE slot SET until = now() WHERE pool_id IN (SELECT id FROM pool WHERE app_id = $1)",
               tenant.app_id)  # fmt: skip
    (moved,) = (await operate.ask("POST", "apps/mover/numbers:move", to_west)).body["items"]
    assert (moved["pool"], moved["state"]) == ("west", "frozen")
    told = {"number": x, "reason": "spam"}
    (blamed,) = (await operate.ask("POST", "apps/mover/numbers:complain", told)).body["items"]
    assert (blamed["number"], blamed["complaints"], blamed["state"]) == (x, 1, "frozen")
    for binding in bound:
        assert (await client.ask("GET", f"/v1/bindings/{binding}", key=key)).body["x"] == x
    assert (await operate.ask("POST", "apps/mover/numbers:move", {"number": "1"})).pointers() == {"/number", "/to"}
    for what in ("clear", "complain"):
        wrong = await operate.ask("POST", f"apps/mover/numbers:{what}", {"number": "+8617000000009"})
        assert wrong.pointers() == {"/number"}
