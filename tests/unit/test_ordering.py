"""What a bind may ask for in each mode: the table of modes against real bodies."""

from __future__ import annotations

from typing import Any

import pytest

from broker.api import parse
from broker.domain.modes import MODES, Allocation, modes_with
from broker.domain.phone import PhoneNumber
from broker.errors import Invalid
from tests.unit.orders import A, B, X, mistakes, order, pools

#: A good value of every field that some mode does not know.
_VALUES: dict[str, Any] = {
    "b": B,
    "extension": "0042",
    "display": "x",
    "callback": {"ttl_s": 60},
    "peer_ttl_s": 60,
    "routing": "pair",
    "direction": "both",
    "policy": "pack",
    "share": True,
    "max_call_minutes": 5,
    "last_minute_tone": "last.wav",
    "sms": True,
    "tones": {},
}
_TONES = {"last.wav": "approved"}


def _body(mode: str) -> dict[str, Any]:
    return {"a": A} | ({"b": B} if MODES[mode].allocation is Allocation.PAIR else {})


def test_every_field_is_in_the_table() -> None:
    """No field of a bind is known to no mode, and none of the table's is no field; so with changes."""
    assert set(parse.BindRequest.model_fields) == {name for mode in MODES.values() for name in mode.binds}
    changing = {name for mode in MODES.values() for name in mode.changes}
    assert changing < set(parse.ChangeRequest.model_fields)
    assert set(parse.ChangeRequest.model_fields) - {"on_conflict"} <= {n for mode in MODES.values() for n in mode.binds}


@pytest.mark.parametrize("mode", MODES)
def test_the_example_is_accepted(mode: str) -> None:
    """The table's example of a bind is one; every field of it is known."""
    example = MODES[mode].example
    assert order(mode, example).mode.name == mode
    assert set(example) <= set(MODES[mode].binds)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", _VALUES)
def test_a_field_is_refused_where_it_is_unknown(mode: str, name: str) -> None:
    """A field that the mode does not know is an error that names those that do; a field that it knows is none."""
    body = _body(mode) | {name: _VALUES[name]} | ({"max_call_minutes": 5} if name == "last_minute_tone" else {})
    if name in MODES[mode].binds:
        order(mode, body, tones=_TONES, sms=True)
        return
    with pytest.raises(Invalid) as refused:
        order(mode, body, tones=_TONES, sms=True)
    (error,) = (error for error in refused.value.errors if error.pointer == f"/{name}")
    if name in MODES[mode].refuses:
        assert error.code == "not_offered_by_platform"
    else:
        assert error.code == "field_unknown_to_mode"
        assert all(known in error.detail for known in modes_with(name))


@pytest.mark.parametrize(
    ("mode", "body"),
    [
        ("axb", {"a": A, "b": B}),
        ("ax", {"a": A}),
        ("axe", {"a": A}),
        ("axyb", {"a": A}),
        ("x", {"a": A, "b": B}),
        ("x", {"a": A, "routing": "one"}),
    ],
)
def test_parties(mode: str, body: dict[str, Any]) -> None:
    """A mode's parties are needed, and become the order's; without a B it is a sole line."""
    made = order(mode, body)
    assert made.a == PhoneNumber(A)
    assert (made.b is None) == ("b" not in body) == (made.b_key is None)
    assert set(mistakes(mode, {name: value for name, value in body.items() if name == "b"})) >= {"/a"}


def test_a_pair_needs_both() -> None:
    """Where two parties are behind X, a missing one is an error at its place, whatever else is wrong."""
    for body in ({"a": A}, {"a": A, "b": None}):
        assert mistakes("axb", body) == {"/b": None}
        assert mistakes("x", {**body, "routing": "pair"}) == {"/b": None}
    assert mistakes("axb", {"a": A, "ttl_s": 1, "pool": "atlantis"}) == {
        "/ttl_s": "ttl_out_of_range",
        "/b": None,
        "/pool": None,
    }
    assert mistakes("axb", {"a": A, "b": A}) == {"/b": None}


@pytest.mark.parametrize(
    ("mode", "body", "expected"),
    [
        ("axe", {"extension": "042"}, {"/extension": "extension_digits"}),
        ("axe", {"extension": "00042"}, {"/extension": "extension_digits"}),
        ("axe", {"extension": "0000"}, {"/extension": "extension_zero"}),
        ("axe", {"extension": "4x2"}, {"/extension": None}),
        ("axe", {"extension": "\u0661\u0662\u0663\u0664"}, {"/extension": None}),
        ("axe", {"extension": 42}, {"/extension": None}),
        ("x", {"b": B, "extension": "0042"}, {"/extension": "not_offered_by_platform"}),
        ("axe", {"callback": {"number": B, "tone": "t.wav"}}, {"/callback": "callback_exclusive"}),
        ("axe", {"callback": {"number": A}}, {"/callback/number": "callee_is_a"}),
        ("axe", {"callback": {"number": X}}, {"/callback/number": None}),
        ("axe", {"callback": {"number": "+8695533"}}, {"/callback/number": "service_number"}),
        ("axe", {"callback": {"ttl_s": 30}}, {"/callback/ttl_s": "ttl_out_of_range"}),
        ("axe", {"callback": {"ttl_s": 2_592_001}, "ttl_s": 0}, {"/callback/ttl_s": "ttl_out_of_range"}),
        ("axe", {"callback": {"ttl_s": 3601}, "ttl_s": 3600}, {"/callback/ttl_s": "ttl_out_of_range"}),
        ("axe", {"callback": {"tone": "t.wav"}}, {"/callback/tone": None}),
        ("axyb", {"ttl_s": 0}, {"/ttl_s": "ttl_out_of_range"}),
        ("axyb", {"ttl_s": 7_776_001}, {"/ttl_s": "ttl_out_of_range"}),
        ("axyb", {"ttl_s": 59}, {"/ttl_s": "ttl_out_of_range"}),
        ("axyb", {"peer_ttl_s": 59}, {"/peer_ttl_s": "ttl_out_of_range"}),
        ("ax", {"ttl_s": 31_536_001}, {"/ttl_s": "ttl_out_of_range"}),
        ("ax", {"a": "+864001234567"}, {"/a": "service_number"}),
        ("ax", {"a": "+85291234567"}, {"/a": "international_number"}),
        ("ax", {"a": "+8610086"}, {"/a": "special_number"}),
        ("axb", {"b": "+864001234567"}, {"/b": "service_number"}),
        ("ax", {"area_code": "9999"}, {"/area_code": "unknown_area"}),
        ("ax", {"area_code": "021"}, {"/area_code": "no_pool_in_area"}),
        ("ax", {"areas": ["0755", "021", "0000"]}, {"/areas/1": "no_pool_in_area", "/areas/2": "unknown_area"}),
        ("ax", {"area_code": "0000", "area_match": "relaxed"}, {"/area_code": "unknown_area"}),
        ("ax", {"area_match": "relaxed"}, {"/area_match": None}),
        ("ax", {"pool": "shenzhen", "area_match": "relaxed"}, {"/area_match": None}),
        ("x", {"b": B, "routing": "one"}, {"/b": "routing_mismatch"}),
        ("x", {"b": B, "routing": "pair", "pool": "shops"}, {"/routing": "routing_mismatch"}),
        ("x", {"pool": "shops", "b": B}, {"/b": "routing_mismatch"}),
        ("x", {"pool": "shenzhen"}, {"/b": None}),
    ],
)
def test_each_mistake_has_its_code(mode: str, body: dict[str, Any], expected: dict[str, str | None]) -> None:
    """What is wrong is told by place and code."""
    assert mistakes(mode, {"a": A} | body) == expected


@pytest.mark.parametrize(("mode", "ttl_s"), [("axb", 0), ("ax", 0), ("axe", 31_536_000), ("axyb", 7_776_000), ("x", 0)])
def test_lifetimes(mode: str, ttl_s: int) -> None:
    """The longest lifetime of each mode is allowed, the app's own maximum is not passed, its default is taken."""
    assert order(mode, _body(mode) | {"ttl_s": ttl_s}).ttl_s == ttl_s
    assert order(mode, _body(mode), default_ttl_s=7200).ttl_s == 7200
    assert mistakes(mode, _body(mode) | {"ttl_s": 601}, max_ttl_s=600, default_ttl_s=60) == {
        "/ttl_s": "ttl_out_of_range"
    }
    assert mistakes(mode, _body(mode) | {"ttl_s": 0}, max_ttl_s=600) == {"/ttl_s": "ttl_out_of_range"}


def test_pools_by_area() -> None:
    """Strict is the city alone; relaxed then goes to the province, then anywhere; lists keep their order."""
    assert pools(order("ax", {"a": A, "area_code": "0755"})) == ["shenzhen", "shops"]
    assert pools(order("ax", {"a": A, "area_code": "0755", "area_match": "relaxed"})) == [
        "shenzhen", "shops", "guangzhou", "beijing",
    ]  # fmt: skip
    relaxed = order("ax", {"a": A, "area_code": "0756", "area_match": "relaxed"})  # Zhuhai, of Guangdong as well
    assert pools(relaxed) == ["shenzhen", "guangzhou", "shops", "beijing"]
    assert relaxed.options.relaxed is None
    assert pools(order("ax", {"a": A, "areas": ["010", "0755"]})) == ["beijing", "shenzhen", "shops"]
    assert order("axyb", {"a": A, "area_code": "0755", "area_match": "relaxed"}).options.relaxed is True


def test_pools_by_routing() -> None:
    """Where pools differ in what is behind their X, an order goes to those of its kind; other modes do not ask."""
    assert pools(order("x", {"a": A, "b": B})) == ["shenzhen", "guangzhou", "beijing"]
    assert pools(order("x", {"a": A})) == pools(order("x", {"a": A, "routing": "one"})) == ["shops"]
    assert pools(order("x", {"a": A, "pool": "shops"})) == ["shops"]
    assert order("x", {"a": A}).allocation is Allocation.PLACE
    assert order("x", {"a": A, "b": B}).allocation is Allocation.PAIR


def test_options() -> None:
    """What is asked for is in the order; what is the platform's default anyway is as if not asked for."""
    made = order(
        "axe",
        {"a": A, "extension": "0042", "display": "caller", "callback": {"number": B, "ttl_s": 600}},
    )
    assert (made.extension, made.callback) == (42, PhoneNumber(B))
    assert (made.options.display, made.options.callback_ttl_s) == ("caller", 600)
    assert order("axe", {"a": A, "display": "x"}).options == order("axe", {"a": A}).options
    peers = [order("axyb", {"a": A, "ttl_s": 3600, "peer_ttl_s": s}).options.peer_ttl_s for s in (0, 600, 7200)]
    assert peers == [None, 600, 3600]
