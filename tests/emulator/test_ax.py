from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.emulator.ax import CALLEE_PATH, PATH
from tests.emulator.support import KEY, X1, X2, X3, A, B, C, D, Emulated, Json, Reply, as_query, emulator, signed

SIX = [f"+861700000020{index}" for index in range(6)]
LANDLINE = "+861065550001"
APP = {"mode": "ax"}
DONE = {"resultcode": "0", "resultdesc": "Success"}


@pytest.fixture
async def emu(tmp_path: Path) -> AsyncIterator[Emulated]:
    """A fresh emulator with the default settings, an AX app and three numbers."""
    async with emulator(tmp_path / "state", app=APP) as running:
        yield running


async def bind(emu: Emulated, x: str | None = X1, a: str | None = A, **more: Any) -> Reply:
    """Bind; ``None`` leaves a field out."""
    fields = {"origNum": a, "privateNum": x, "calleeNumDisplay": "0", **more}
    return await emu.send(path=PATH, body={name: value for name, value in fields.items() if value is not None})


async def bound(emu: Emulated, x: str | None = X1, a: str = A, **more: Any) -> str:
    """Bind what must be accepted; returns the subscription id."""
    reply = await bind(emu, x, a, **more)
    assert reply.outcome == (200, "0"), reply
    return str(reply.body["subscriptionId"])


async def unbind(emu: Emulated, **fields: str) -> Reply:
    """Unbind by the given parameters."""
    return await emu.send("DELETE", path=PATH, query=as_query(fields))


async def modify(emu: Emulated, **fields: Any) -> Reply:
    """Modify by the given body."""
    return await emu.send("PUT", path=PATH, body=fields)


async def query(emu: Emulated, **fields: str) -> Reply:
    """Query by the given parameters."""
    return await emu.send("GET", path=PATH, query=as_query(fields))


async def the_only(emu: Emulated, **fields: str) -> Json:
    """Return the one binding a query must find."""
    (item,) = (await query(emu, **fields)).body["privateNumList"]
    return dict(item)


async def set_callee(emu: Emulated, number: str | None = B, **more: Any) -> Reply:
    """Set a temporary callee, on X1 unless told otherwise."""
    fields = {"privateNum": X1, "calleeNum": number, **more}
    body = {name: value for name, value in fields.items() if value is not None}
    return await emu.send("PUT", path=CALLEE_PATH, body=body)


# --- bind


async def test_bind_answers_what_the_contract_lists(emu: Emulated) -> None:
    """The answer has exactly the documented fields."""
    body = (await bind(emu, maxDuration=60, userData="u-1")).body
    assert 1 <= len(body.pop("subscriptionId")) <= 64
    assert body == {**DONE, "origNum": A, "privateNum": X1}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("origNum", None),
        ("origNum", "13900000001"),
        ("origNum", "+864001234567"),
        ("privateNum", None),
        ("privateNum", ""),
        ("privateNum", 8617000000101),
        ("privateNumType", "mobile"),
        ("areaCode", "755"),
        ("areaMatchMode", "2"),
        ("areaMatchMode", "1"),  # without areaCode
        ("calleeNumDisplay", None),
        ("calleeNumDisplay", "2"),
        ("recordFlag", "yes"),
        ("recordHintTone", "a b.wav"),
        ("recordHintTone", "unknown.wav"),
        ("privateSms", "TRUE"),
        ("callDirection", 3),
        ("preVoice", "tone.wav"),
        ("preVoice", {"calleeHintTone": "unknown.wav"}),
        ("maxDuration", 1441),
        ("lastMinVoice", "unknown.wav"),
        ("turnFlag", "ON"),
        ("userData", "a{b"),
        ("userData", "订单"),
    ],
)
async def test_bind_refuses_and_names_the_parameter(emu: Emulated, name: str, value: Any) -> None:
    """A malformed field, or a file that nobody approved, is 403/1010002 that names it; nothing is bound."""
    reply = await bind(emu, **{"x" if name == "privateNum" else "a" if name == "origNum" else name: value})
    assert reply.outcome == (403, "1010002")
    assert f" {name}" in reply.body["resultdesc"]
    assert await emu.bindings() == []


@pytest.mark.parametrize(
    "more",
    [
        {"calleeNumDisplay": 1, "callDirection": 2, "turnFlag": "off"},
        {"recordFlag": True, "recordHintTone": "a.wav", "privateSms": False},
        {"maxDuration": 1440, "lastMinVoice": "a.wav", "preVoice": {"callerHintTone": "a.wav", "calleeHintTone": ""}},
        {"userData": "^" * 256},
        {"a": LANDLINE, "areaCode": "010", "areaMatchMode": 1},
    ],
)
async def test_bind_accepts_every_documented_form(emu: Emulated, more: Json) -> None:
    """Edges of the ranges, numbers and Booleans for text, and in this mode ``^`` are accepted."""
    await emu.tones("a.wav")
    assert (await bind(emu, **more)).outcome == (200, "0")


@pytest.mark.parametrize(("fields", "parameter"), [({"areaCode": "0755"}, "privateNumType"), ({}, "privateNum")])
async def test_a_city_needs_the_number_type(emu: Emulated, fields: Json, parameter: str) -> None:
    """Without X both ``areaCode`` and ``privateNumType`` are wanted."""
    reply = await bind(emu, None, **fields)
    assert reply.code == "1010002"
    assert f" {parameter} " in reply.body["resultdesc"]


async def test_by_city_the_platform_picks_a_free_x(emu: Emulated) -> None:
    """Strict: an X of the city or 1011002. Relaxed: the city, its province, then any. A given X wins over both."""
    await emu.numbers(f"{X1}@0755", f"{X2}@020", f"{X3}@010", SIX[0])
    by_city = {"areaCode": "0755", "privateNumType": "mobile-virtual"}
    assert (await bind(emu, SIX[0], D, **by_city)).body["privateNum"] == SIX[0]
    assert (await bind(emu, None, A, **by_city)).body["privateNum"] == X1
    assert (await bind(emu, None, B, **by_city)).outcome == (403, "1011002")
    picked = [(await bind(emu, None, B, **by_city, areaMatchMode="1")).body.get("privateNum") for _ in range(3)]
    assert picked == [X2, X3, None]


async def test_one_x_has_one_a(emu: Emulated) -> None:
    """Another A on a bound X is 1011005, the same A 1016002; released, X is free."""
    subscription_id = await bound(emu)
    assert (await bind(emu, X1, B)).outcome == (403, "1011005")
    assert (await bind(emu, X1, A)).outcome == (403, "1016002")
    await unbind(emu, subscriptionId=subscription_id)
    assert (await bind(emu, X1, B)).code == "0"


async def test_one_a_has_five_x(emu: Emulated) -> None:
    """The sixth X of one A is 1011003, by X, by city and by modification; of another A it is fine."""
    await emu.numbers(*SIX)
    for x in SIX[:5]:
        await bound(emu, x)
    assert (await bind(emu, SIX[5])).outcome == (403, "1011003")
    assert (await bind(emu, None, areaCode="0755", privateNumType="mobile-virtual")).outcome == (403, "1011003")
    await bound(emu, SIX[5], B)
    assert (await modify(emu, privateNum=SIX[5], origNum=A)).outcome == (403, "1011003")
    assert (await modify(emu, privateNum=SIX[0], origNum=A)).code == "0"
    await unbind(emu, privateNum=SIX[0])
    assert (await modify(emu, privateNum=SIX[5], origNum=A)).code == "0"


async def test_an_x_that_is_not_the_apps(emu: Emulated) -> None:
    """X of another app, of nobody, and of a bad form are 1011001."""
    await emu.app("other", "s", mode="ax")
    await emu.numbers(SIX[0], key="other")
    for x in (SIX[0], "+8617999999999", "17000000101"):
        assert (await bind(emu, x)).outcome == (403, "1011001")


async def test_bindings_never_expire(emu: Emulated) -> None:
    """There is no duration: a year later the binding is there, and a field of that name means nothing."""
    await bound(emu, duration=60)
    await emu.advance(366 * 86_400)
    assert await emu.call(B, X1) == (A, X1, 0)
    assert (await emu.bindings())[0]["expires_at"] is None


# --- unbind, query, modify


async def test_unbind(emu: Emulated) -> None:
    """By id, which wins over X, or by X; what is not there is 1016001 or 1011004, nothing named 1010002."""
    first, _ = await bound(emu, X1), await bound(emu, X2)
    reply = await unbind(emu, subscriptionId=first, privateNum=X2, origNum="not-read")
    assert (reply.http, reply.body) == (200, DONE)
    assert [item["x"] for item in await emu.bindings()] == [X2]
    assert (await unbind(emu, subscriptionId=first)).outcome == (403, "1016001")
    assert (await unbind(emu, privateNum=X1)).outcome == (403, "1011004")
    assert (await unbind(emu, privateNum="+8617999999999")).code == "1011004"
    assert (await unbind(emu, origNum=A)).code == "1010002"
    assert (await unbind(emu, subscriptionId="s" * 65)).code == "1010002"
    assert (await unbind(emu, subscriptionId="", privateNum=X2)).code == "0"
    assert await emu.bindings() == []


async def test_bindings_of_others_are_not_found(emu: Emulated) -> None:
    """Another app reaches a binding neither by id nor by X."""
    subscription_id = await bound(emu)
    await emu.app("other", "s", mode="ax")
    for field, code in ((f"subscriptionId={subscription_id}", "1016001"), (f"privateNum=%2B{X1[1:]}", "1011004")):
        reply = await emu.send("DELETE", path=PATH, query=field, headers=signed(key="other", secret="s"))
        assert reply.code == code
    found = await emu.send("GET", path=PATH, query=f"origNum=%2B{A[1:]}", headers=signed(key="other", secret="s"))
    assert found.code == "1016001"


async def test_query_shows_the_binding(emu: Emulated) -> None:
    """An element has the documented fields with their defaults, and what was given as it was given."""
    await emu.tones("a.wav")
    plain = await bound(emu, X1)
    given = {"recordFlag": "true", "recordHintTone": "a.wav", "privateSms": "false", "calleeNumDisplay": "1"}
    more = {"preVoice": {"callerHintTone": "a.wav"}, "lastMinVoice": "a.wav", "turnFlag": "off", "userData": "u-1"}
    await bound(emu, X2, B, callDirection=1, maxDuration=9, **given, **more)
    item = await the_only(emu, subscriptionId=plain)
    assert len(item.pop("subscribeTime")) == len("2024-05-13 05:24:57")
    assert item == {
        "origNum": A,
        "privateNum": X1,
        "privateNumType": "mobile-virtual",
        "subscriptionId": plain,
        "recordFlag": "false",
        "calleeNumDisplay": "0",
        "privateSms": "true",
        "callDirection": 0,
        "maxDuration": 0,
        "turnFlag": "on",
    }
    item = await the_only(emu, privateNum=X2)
    assert {**item, **given, **more} == item
    assert (item["callDirection"], item["maxDuration"]) == (1, 9)


async def test_query_keys_and_their_order(emu: Emulated) -> None:
    """The id wins over A, A over X; A finds all its X; nothing found is 1016001, nothing asked 1010002."""
    first, second, third = await bound(emu, X1), await bound(emu, X2), await bound(emu, X3, B)
    of_a = (await query(emu, origNum=A, privateNum=X3)).body["privateNumList"]
    assert [item["subscriptionId"] for item in of_a] == [first, second]
    assert (await the_only(emu, subscriptionId=third, origNum=A))["privateNum"] == X3
    for fields in ({"subscriptionId": "none"}, {"origNum": C}, {"privateNum": "+8617999999999"}):
        assert (await query(emu, **fields)).outcome == (403, "1016001")
    assert (await query(emu)).outcome == (403, "1010002")


async def test_modify_replaces_only_what_is_given(emu: Emulated) -> None:
    """By id or by X; a new A takes the binding with it, ``subscribeTime`` stays that of the bind."""
    subscription_id = await bound(emu, userData="u-1", maxDuration=5, privateSms="false")
    before = await the_only(emu, privateNum=X1)
    await emu.advance(3_600)
    reply = await modify(emu, subscriptionId=subscription_id, privateNum=X2, origNum=B, callDirection=2)
    assert (reply.http, reply.body) == (200, DONE)
    assert (await modify(emu, privateNum=X1, calleeNumDisplay="1", recordFlag=True, turnFlag="on")).code == "0"
    assert await the_only(emu, privateNum=X1) == {
        **before,
        "origNum": B,
        "callDirection": 2,
        "calleeNumDisplay": "1",
        "recordFlag": "true",
    }
    assert (await query(emu, origNum=A)).code == "1016001"
    assert await emu.call(A, X1) == (B, A, 0)
    was = [row["was"] for row in await emu.ledger() if row["op"] == "modify"]
    extras = {name: before[name] for name in ("recordFlag", "privateSms", "turnFlag", "calleeNumDisplay")}
    assert was == [{"a": A, "call_direction": 0}, {"extras": extras}]


async def test_modify_refusals(emu: Emulated) -> None:
    """Unknown id 1016001, unbound X 1011004, no key, bad fields and unapproved files 1010002; nothing changes."""
    await bound(emu)
    before = await emu.bindings()
    assert (await modify(emu, subscriptionId="none", maxDuration=1)).outcome == (403, "1016001")
    assert (await modify(emu, privateNum=X2, maxDuration=1)).outcome == (403, "1011004")
    wrong: list[Json] = [
        {"privateNum": None},
        {"origNum": "+864001234567"},
        {"maxDuration": 1441},
        {"callDirection": 3},
        {"userData": "{"},
        {"calleeNumDisplay": "2"},
        {"maxDuration": 5, "lastMinVoice": "unknown.wav"},
    ]
    for fields in wrong:
        assert (await modify(emu, **{"privateNum": X1, **fields})).outcome == (403, "1010002")
    assert await emu.bindings() == before


# --- calls and the temporary callee


async def test_anyone_reaches_a(emu: Emulated) -> None:
    """Whoever dials X gets A, who sees X, or with ``calleeNumDisplay`` 1 the caller; a 400 number may call too."""
    await bound(emu, X1)
    await bound(emu, X2, calleeNumDisplay="1")
    for caller in (B, C, "+864001234567"):
        assert await emu.call(caller, X1) == (A, X1, 0)
        assert await emu.call(caller, X2) == (A, caller, 0)


async def test_a_reaches_the_temporary_callee_who_sees_x(emu: Emulated) -> None:
    """Set again it is overwritten; it belongs to its X, and outlives calls."""
    await bound(emu, X1)
    await bound(emu, X2)
    reply = await set_callee(emu, B, userData="call-1", origNum="not read")
    assert (reply.http, reply.body) == (200, {**DONE, "userData": "call-1"})
    assert [await emu.call(A, X1) for _ in range(2)] == [(B, X1, 0)] * 2
    assert (await set_callee(emu, C)).body == DONE
    assert await emu.call(A, X1) == (C, X1, 0)
    assert await emu.call(A, X2) == (None, None, 8013)
    assert await emu.call(C, X1) == (A, X1, 0)


async def test_a_temporary_callee_lives_its_time(emu: Emulated) -> None:
    """60 s unless told; past its time, and without one, A's call ends in 8013; it may live three days."""
    await bound(emu)
    assert await emu.call(A, X1) == (None, None, 8013)
    for duration, lifetime in ((None, 60), (259_200, 259_200)):
        await set_callee(emu, B, duration=duration)
        await emu.advance(lifetime - 30)
        assert await emu.call(A, X1) == (B, X1, 0)
        await emu.advance(30)
        assert await emu.call(A, X1) == (None, None, 8013)
        assert await emu.call(B, X1) == (A, X1, 0)


@pytest.mark.parametrize("number", ["+864001234567", "+8695533", LANDLINE, C])
async def test_who_may_be_a_temporary_callee(emu: Emulated, number: str) -> None:
    """400 and 95 numbers, landlines and mobiles; the subscription id wins over X."""
    subscription_id = await bound(emu, X2)
    assert (await set_callee(emu, number, subscriptionId=subscription_id)).code == "0"
    assert await emu.call(A, X2) == (number, X2, 0)


async def test_temporary_callee_refusals(emu: Emulated) -> None:
    """A itself, no number, bad durations and data are 1010002; unbound X 1011004, unknown id 1016001."""
    await bound(emu)
    wrong: list[Json] = [
        {"number": A},
        {"number": None},
        {"number": "95533"},
        {"duration": 0},
        {"duration": 259_201},
        {"duration": "60"},
        {"userData": "}"},
        {"privateNum": None},
    ]
    for fields in wrong:
        assert (await set_callee(emu, **fields)).outcome == (403, "1010002")
    assert (await set_callee(emu, privateNum=X2)).outcome == (403, "1011004")
    assert (await set_callee(emu, subscriptionId="none")).outcome == (403, "1016001")
    assert await emu.call(A, X1) == (None, None, 8013)


async def test_a_new_a_never_reaches_themselves(emu: Emulated) -> None:
    """The temporary callee stays when A changes, unless the callee becomes A."""
    await bound(emu)
    await set_callee(emu, C)
    await modify(emu, privateNum=X1, origNum=B)
    assert await emu.call(B, X1) == (C, X1, 0)
    await modify(emu, privateNum=X1, origNum=C)
    assert await emu.call(C, X1) == (None, None, 8013)


@pytest.mark.parametrize(("direction", "barred"), [(1, B), (2, A)])
async def test_call_direction(emu: Emulated, direction: int, barred: str) -> None:
    """1 lets only A dial X, 2 only the others; the one barred is told 8016."""
    await bound(emu, callDirection=direction)
    await set_callee(emu, B)
    allowed = A if barred == B else B
    assert await emu.call(barred, X1) == (None, None, 8016)
    assert await emu.call(allowed, X1) == (barred, X1, 0)


async def test_calls_that_reach_nobody(emu: Emulated) -> None:
    """No binding 8018, before and after one; a landline caller 8023, be it A or another; X turned off 8055."""
    assert await emu.call(B, X1) == (None, None, 8018)
    await bound(emu, X1, LANDLINE)
    await set_callee(emu, B)
    assert await emu.call(LANDLINE, X1) == (None, None, 8023)
    assert await emu.call("+8675528000001", X1) == (None, None, 8023)
    assert await emu.call(B, X1) == (LANDLINE, X1, 0)
    await modify(emu, privateNum=X1, turnFlag="off")
    assert await emu.call(B, X1) == (None, None, 8055)
    await unbind(emu, privateNum=X1)
    assert await emu.call(B, X1) == (None, None, 8018)


# --- ledger, durability, modes, settings


async def test_ledger_of_a_temporary_callee(emu: Emulated) -> None:
    """Effects show the callee and its end; a refusal shows what was asked; the fault port knows the interface."""
    subscription_id = await bound(emu)
    await set_callee(emu, B, duration=70, userData="call-1")
    await set_callee(emu, C, privateNum=X2)
    await emu.fault(interface="callee", kind="code", code="1010001", count=1)
    assert (await set_callee(emu, C)).outcome == (500, "1010001")
    _, row, refused, hit = await emu.ledger()
    assert (row["op"], row["subscription_id"], row["x"], row["a"]) == ("callee", subscription_id, X1, A)
    assert (row["result_code"], row["http"], row["was"]) == ("0", 200, {"callee": None})
    assert (row["callee"]["number"], row["callee"]["user_data"]) == (B, "call-1")
    assert row["callee"]["at"] == row["at"]
    assert [refused[name] for name in ("op", "x", "b", "result_code")] == ["callee", X2, C, "1011004"]
    assert (hit["op"], hit["fault"]) == ("callee", "code")


@pytest.mark.parametrize("options", [{}, {"compact_after": 1}])
async def test_everything_is_restored(tmp_path: Path, options: Json) -> None:
    """Bindings, A's index, the temporary callee with its end, and ``subscribeTime`` come back as they were."""
    async with emulator(tmp_path, app=APP) as emu:
        await bound(emu, X1, calleeNumDisplay="1", userData="u-1")
        await bound(emu, X2)
        await unbind(emu, subscriptionId=await bound(emu, X3))
        await emu.advance(100)
        await modify(emu, privateNum=X1, maxDuration=7)
        await set_callee(emu, B, duration=300)
        await set_callee(emu, D, privateNum=X2)
        before, items = await emu.bindings(), (await query(emu, origNum=A)).body
    for _ in range(2):
        async with emulator(tmp_path, **options) as emu:
            emu.skew_s = 100
            assert await emu.bindings() == before
            assert (await query(emu, origNum=A)).body == items
            assert await emu.call(A, X1) == (B, X1, 0)
            assert (await bind(emu, X1, B)).code == "1011005"
    async with emulator(tmp_path) as emu:
        emu.skew_s = 100
        await emu.advance(60)
        assert (await emu.call(A, X1))[0] == B
        assert await emu.call(A, X2) == (None, None, 8013)
        await emu.advance(240)
        assert await emu.call(A, X1) == (None, None, 8013)


async def test_interfaces_of_another_mode(emu: Emulated) -> None:
    """An AX app may not use AXB's interfaces, nor an AXB app AX's: 1010040."""
    assert (await emu.bind(X1)).outcome == (403, "1010040")
    await emu.app("other", "s", mode="axb")
    for method, path in (("POST", PATH), ("GET", PATH), ("PUT", CALLEE_PATH)):
        reply = await emu.send(method, path=path, body={}, headers=signed(key="other", secret="s"))
        assert reply.outcome == (403, "1010040")


async def test_a_number_taken_away_ends_its_binding(emu: Emulated) -> None:
    """What is transferred to another app comes there unbound (9.4)."""
    await bound(emu)
    await emu.numbers(X2, X3)
    assert await emu.bindings() == []
    assert (await emu.ask("PUT", f"apps/{KEY}", {"secret": "s", "mode": "axe"})).http == 409


async def test_unconfirmed_codes_and_states(tmp_path: Path) -> None:
    """What the contract leaves open follows the settings."""
    settings: Json = {"ax_same_pair_code": "1011005", "ax_query_missing_code": "1011004", "ax_x_per_a": 1}
    states: Json = {"ax_no_callee_state": 8019, "ax_turned_off_state": 7108, "ax_turn_flag": "off"}
    async with emulator(tmp_path, app=APP, **settings, **states, real_caller_allowed=False) as emu:
        await bound(emu)
        assert (await bind(emu)).code == "1011005"
        assert (await bind(emu, X2)).code == "1011003"
        assert (await query(emu, subscriptionId="none")).code == "1011004"
        assert await emu.call(B, X1) == (None, None, 7108)
        await modify(emu, privateNum=X1, turnFlag="on")
        assert await emu.call(A, X1) == (None, None, 8019)
        assert await emu.call(B, X1) == (A, X1, 0)
        await modify(emu, privateNum=X1, calleeNumDisplay="1")
        assert await emu.call(B, X1) == (None, None, 8024)


async def test_unconfirmed_fields(tmp_path: Path) -> None:
    """A modification may know the newest page's fields alone, ``turnFlag`` be unknown, a callee serve one call."""
    settings: Json = {"ax_modify_fields": "newest", "ax_turn_flag": "unknown", "ax_call_uses_up_callee": True}
    async with emulator(tmp_path, app=APP, **settings) as emu:
        await bound(emu, turnFlag="off")
        assert (await modify(emu, privateNum=X1, calleeNumDisplay="1", callDirection=1, maxDuration=3)).code == "0"
        item = await the_only(emu, privateNum=X1)
        assert (item["calleeNumDisplay"], item["callDirection"], item["maxDuration"]) == ("0", 0, 3)
        assert "turnFlag" not in item
        await set_callee(emu, B)
        assert await emu.call(C, X1) == (A, X1, 0)
        assert await emu.call(A, X1) == (B, X1, 0)
        assert await emu.call(A, X1) == (None, None, 8013)
        assert [(row["op"], row["reason"], row["http"]) for row in await emu.ledger()][-1] == ("call", "call", None)
    async with emulator(tmp_path, **settings) as emu:
        assert await emu.call(A, X1) == (None, None, 8013)
