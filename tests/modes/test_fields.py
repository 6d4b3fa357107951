"""Which fields each mode knows, over HTTP: what is wrong is told by place and code, and nothing comes of it."""

from __future__ import annotations

from typing import Any

import pytest

from broker.domain.modes import MODES
from tests.contract.service import Answer, Client, Json, phone

_PAIRS = frozenset({"axb", "x"})


async def _ask(client: Client, mode: str, method: str, path: str, body: object = None) -> Answer:
    (app,) = [app for app in client.service.ready["apps"] if app["mode"] == mode]
    return await client.ask(method, path, body, key=str(app["api_key"]))


async def _bind(client: Client, mode: str, **fields: Any) -> Answer:
    b = {"b": phone()} if mode in _PAIRS and fields.get("routing") != "one" else {}
    return await _ask(client, mode, "POST", "/v1/bindings", {"a": phone(), "ttl_s": 600} | b | fields)


async def _bound(client: Client, mode: str, **fields: Any) -> Json:
    answer = await _bind(client, mode, **fields)
    assert answer.status == 201, answer.raw
    return dict(answer.body)


@pytest.mark.parametrize(
    ("mode", "fields", "expected"),
    [
        ("axb", {"extension": "0042"}, {"/extension": "field_unknown_to_mode"}),
        ("ax", {"b": "+8613900000002"}, {"/b": "field_unknown_to_mode"}),
        ("axe", {"direction": "both"}, {"/direction": "field_unknown_to_mode"}),
        ("axyb", {"sms": True}, {"/sms": "field_unknown_to_mode"}),
        ("x", {"extension": "0042"}, {"/extension": "not_offered_by_platform"}),
        ("axe", {"extension": "042"}, {"/extension": "extension_digits"}),
        ("axe", {"extension": "0000"}, {"/extension": "extension_zero"}),
        ("axe", {"callback": {"number": "+8613900000002", "tone": "t.wav"}}, {"/callback": "callback_exclusive"}),
        ("axyb", {"ttl_s": 0}, {"/ttl_s": "ttl_out_of_range"}),
        ("axyb", {"ttl_s": 7_776_001}, {"/ttl_s": "ttl_out_of_range"}),
        ("ax", {"area_code": "9999"}, {"/area_code": "unknown_area"}),
        ("ax", {"area_code": "021"}, {"/area_code": "no_pool_in_area"}),
        ("ax", {"a": "+8695533"}, {"/a": "service_number"}),
        ("ax", {"a": "+85291234567"}, {"/a": "international_number"}),
        ("x", {"routing": "one", "b": "+8613900000002"}, {"/b": "routing_mismatch"}),
        ("axe", {"extension": "0000", "sms": True}, {"/extension": "extension_zero", "/sms": "field_unknown_to_mode"}),
    ],
)
async def test_a_mistake_has_its_code(
    client: Client, mode: str, fields: dict[str, Any], expected: dict[str, str]
) -> None:
    """The problem has the code of its mistakes if they share one; no binding is made."""
    order = f"wrong-{phone()[-8:]}"
    answer = await _bind(client, mode, order_id=order, **fields)
    assert answer.mistakes() == expected
    for error in answer.body["errors"]:
        if error["code"] == "field_unknown_to_mode":
            name = error["pointer"][1:]
            assert all(other in error["detail"] for other, row in MODES.items() if name in row.binds)
    listed = await _ask(client, mode, "GET", f"/v1/bindings?order_id={order}")
    assert (listed.status, listed.body["items"]) == (200, [])


@pytest.mark.parametrize(
    ("mode", "patch", "status", "code"),
    [
        ("axb", {"extension": "0042"}, 422, "field_unknown_to_mode"),
        ("axb", {"display": "x"}, 422, "field_unknown_to_mode"),
        ("axe", {"extension": "0042"}, 409, "not_modifiable"),
        ("axe", {"sms": True}, 422, "field_unknown_to_mode"),
        ("axyb", {"ttl_s": 900}, 409, "not_modifiable"),
        ("axyb", {"a": "+8613900000001"}, 409, "not_modifiable"),
        ("axyb", {"peer_ttl_s": 60}, 409, "not_modifiable"),
        ("axyb", {"b": "+8613900000001"}, 422, "field_unknown_to_mode"),
        ("x", {"extension": "0042"}, 422, "not_offered_by_platform"),
        ("axb", {"b": "+864001234567"}, 422, "service_number"),
    ],
)
async def test_a_patch_knows_its_mode(client: Client, mode: str, patch: Json, status: int, code: str) -> None:
    """What the mode never has is a 422, what it cannot change any more a 409; the binding stays as it was."""
    made = await _bound(client, mode)
    path = f"/v1/bindings/{made['id']}"
    (await _ask(client, mode, "PATCH", path, patch)).problem(status, code)
    assert (await _ask(client, mode, "GET", path)).body == made


async def test_what_is_ours_changes_in_every_mode(client: Client) -> None:
    """``user_data`` and ``metadata`` stay with us: no platform has a say."""
    for mode in MODES:
        made = await _bound(client, mode)
        changed = await _ask(client, mode, "PATCH", f"/v1/bindings/{made['id']}", {"user_data": "VIP"})
        assert (changed.status, changed.body) == (200, made | {"user_data": "VIP"}), mode


async def test_a_landline_is_warned_of(client: Client) -> None:
    """A landline that is to dial X is accepted with a warning at its place, now and later; one that is not is not."""
    landline = f"+86755{phone()[-8:]}"
    made = await _bound(client, "axb", b=landline)
    (warning,) = made["warnings"]
    assert (warning["code"], warning["pointer"]) == ("landline_cannot_dial", "/b")
    assert (await client.show(made["id"]))["warnings"] == [warning]
    one_way = await _bound(client, "axb", b=f"+86755{phone()[-8:]}", direction="a_to_b")
    assert one_way["warnings"] == []
    assert (await _bound(client, "ax", a=f"+8610{phone()[-8:]}"))["warnings"][0]["pointer"] == "/a"


async def test_members_of_the_modes(client: Client) -> None:
    """A binding shows what its mode has; what does not apply is null."""
    number = phone()
    axe = await _bound(client, "axe", callback={"number": number, "ttl_s": 300}, display="caller")
    assert (len(axe["extension"]), axe["b"], axe["display"]) == (4, None, "caller")
    assert axe["callback"] == {"number": f"+86*******{number[-4:]}", "tone": None, "ttl_s": 300}
    assert (await _ask(client, "axe", "GET", f"/v1/bindings/{axe['id']}")).body == axe
    ax = await _bound(client, "ax")
    assert (ax["mode"], ax["extension"], ax["b"], ax["callback"], ax["callee"]) == ("ax", None, None, None, None)
    axyb = await _bound(client, "axyb", peer_ttl_s=3600)
    assert (axyb["peer_ttl_s"], axyb["b"]) == (600, None)
    one, pair = await _bound(client, "x", routing="one"), await _bound(client, "x")
    assert (one["pool"], one["b"]) == ("shops", None)
    assert pair["pool"] != "shops"
    assert pair["b"] is not None


async def test_a_callback_is_replaced_and_not_taken_away(client: Client) -> None:
    """Another number takes the place of the first, with its time; the wire has no empty form, so null is a 409."""
    made = await _bound(client, "axe", callback={"number": phone()})
    path, other = f"/v1/bindings/{made['id']}", phone()
    changed = await _ask(client, "axe", "PATCH", path, {"callback": {"number": other, "ttl_s": 120}})
    assert changed.status == 200, changed.raw
    assert changed.body["callback"] == {"number": f"+86*******{other[-4:]}", "tone": None, "ttl_s": 120}
    (await _ask(client, "axe", "PATCH", path, {"callback": None})).problem(409, "not_modifiable")
    assert (await _ask(client, "axe", "GET", path)).body == changed.body


async def test_any_city_will_do_if_relaxed(client: Client) -> None:
    """Guangzhou has no pool: strict is refused, relaxed gets an X of Shenzhen, in its province."""
    (await _bind(client, "ax", area_code="020")).problem(422, "no_pool_in_area")
    assert (await _bound(client, "ax", area_code="020", area_match="relaxed"))["pool"] == "shenzhen"
