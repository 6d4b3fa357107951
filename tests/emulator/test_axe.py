from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from broker.emulator.axe import PATH
from tests.emulator.support import KEY, X1, X2, X3, A, B, C, D, Emulated, Json, Reply, as_query, emulator, signed

LANDLINE = "+861065550001"
APP = {"mode": "axe", "extension_digits": 2}
DONE = {"resultcode": "0", "resultdesc": "Success"}
HOUR = 3_600


@pytest.fixture
async def emu(tmp_path: Path) -> AsyncIterator[Emulated]:
    """A fresh emulator with the default settings, an AXE app of two digits and three numbers."""
    async with emulator(tmp_path / "state", app=APP) as running:
        yield running


async def bind(emu: Emulated, extension: Any = "07", a: str | None = A, x: str | None = X1, **more: Any) -> Reply:
    """Bind; ``None`` leaves a field out."""
    fields = {"virtualNum": x, "bindNum": a, "extendNum": extension, **more}
    return await emu.send(path=PATH, body={name: value for name, value in fields.items() if value is not None})


async def bound(emu: Emulated, extension: str = "07", a: str = A, x: str = X1, **more: Any) -> str:
    """Bind what must be accepted; returns the subscription id."""
    reply = await bind(emu, extension, a, x, **more)
    assert reply.outcome == (200, "0"), reply
    return str(reply.body["subscriptionId"])


async def unbind(emu: Emulated, **fields: str) -> Reply:
    """Unbind by the given parameters."""
    return await emu.send("DELETE", path=PATH, query=as_query(fields))


async def modify(emu: Emulated, extension: str = "07", **fields: Any) -> Reply:
    """Modify what has an extension of X1, unless told otherwise."""
    return await emu.send("PUT", path=PATH, body={"virtualNum": X1, "extendNum": extension, **fields})


async def query(emu: Emulated, **fields: str) -> Reply:
    """Query by the given parameters."""
    return await emu.send("GET", path=PATH, query=as_query(fields))


async def shown(emu: Emulated, extension: str = "07") -> Json:
    """Return what a query shows of an extension of X1."""
    return (await query(emu, virtualNum=X1, extendNum=extension)).body


# --- bind


async def test_bind_answers_what_the_contract_lists(emu: Emulated) -> None:
    """The answer has exactly the documented fields; the extension is text with its zeros."""
    body = (await bind(emu, userData="^u-1")).body
    assert 1 <= len(body.pop("subscriptionId")) <= 64
    assert body == {**DONE, "virtualNum": X1, "extendNum": "07", "userData": "^u-1"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("virtualNum", None),
        ("virtualNum", ""),
        ("virtualNum", "+" * 33),
        ("areaCode", "755"),
        ("areaMatchMode", "2"),
        ("areaMatchMode", "0"),  # without areaCode
        ("bindNum", None),
        ("bindNum", "13900000001"),
        ("bindNum", "+8695533"),
        ("extendNum", "7"),
        ("extendNum", "007"),
        ("extendNum", "00"),
        ("extendNum", "0a"),
        ("extendNum", "\u0660\u0667"),
        ("extendNum", "00007"),
        ("extendNum", True),
        ("displayNumMode", "2"),
        ("recordFlag", "yes"),
        ("recordHintTone", ""),
        ("recordHintTone", "unknown.wav"),
        ("callbackTone", "a b.wav"),
        ("callbackTone", "unknown.wav"),
        ("callbackNum", ""),
        ("callbackNum", "95533"),
        ("timeUnit", "2"),
        ("timeUnit", "hour"),
        ("bindExpiredTime", 721),
        ("bindExpiredTime", -1),
        ("bindExpiredTime", "24h"),
        ("bindExpiredTime", 1.5),
        ("callbackExpiredTime", 721),
        ("callbackExpiredTime", 169),  # more than the binding's 168
        ("userData", "}"),
        ("userData", "订单"),
        ("userData", ""),
    ],
)
async def test_bind_refuses_and_names_the_parameter(emu: Emulated, name: str, value: Any) -> None:
    """A malformed field, or a file that nobody approved, is 403/1010002 that names it; nothing is bound."""
    arguments = {"virtualNum": "x", "bindNum": "a", "extendNum": "extension"}
    reply = await bind(emu, **{arguments.get(name, name): value})
    assert reply.outcome == (403, "1010002")
    assert f" {name} " in reply.body["resultdesc"]
    assert await emu.bindings() == []


@pytest.mark.parametrize(
    "more",
    [
        {"displayNumMode": 0, "recordFlag": True, "recordHintTone": "a.wav"},
        {"displayNumMode": "1", "recordFlag": "false", "callbackTone": "a.wav"},
        {"extension": 12, "timeUnit": 1, "bindExpiredTime": "43200", "callbackExpiredTime": 43_200},
        {"extension": "", "timeUnit": "0", "bindExpiredTime": 720, "callbackExpiredTime": 720},
        {"bindExpiredTime": 0, "callbackExpiredTime": 720, "callbackNum": "+864001234567"},
        {"bindExpiredTime": 1, "callbackExpiredTime": 0, "a": LANDLINE},
        {"areaCode": "010", "areaMatchMode": 1},
    ],
)
async def test_bind_accepts_every_documented_form(emu: Emulated, more: Json) -> None:
    """Edges of the ranges; text, numbers and Booleans for one another, as the platform coerces them."""
    await emu.tones("a.wav")
    assert (await bind(emu, **more)).outcome == (200, "0")


async def test_callback_number_and_tone_exclude_each_other(emu: Emulated) -> None:
    """Both in one request are 1010002, at bind and at modification."""
    await emu.tones("a.wav")
    assert (await bind(emu, callbackNum=B, callbackTone="a.wav")).outcome == (403, "1010002")
    await bound(emu)
    assert (await modify(emu, callbackNum=B, callbackTone="a.wav")).outcome == (403, "1010002")
    assert "callbackNum" not in await shown(emu)


@pytest.mark.parametrize(("digits", "first", "last"), [(1, "1", "9"), (2, "01", "99"), (3, "001", "999")])
async def test_extensions_of_an_x(emu: Emulated, digits: int, first: str, last: str) -> None:
    """The platform gives out each extension once, none all zero; then it is 1020167, and 1013102 for a wanted one."""
    await emu.numbers()
    await emu.app(mode="axe", extension_digits=digits)
    await emu.numbers(X1, X2)
    assert (await bind(emu, "0" * digits)).code == "1010002"
    taken = [(await bind(emu, None)).body["extendNum"] for _ in range(10**digits - 1)]
    assert sorted(taken) == [str(number).zfill(digits) for number in range(1, 10**digits)]
    assert (min(taken), max(taken)) == (first, last)
    assert (await bind(emu, None, B)).outcome == (403, "1020167")
    assert (await bind(emu, last, B)).outcome == (403, "1013102")
    await unbind(emu, virtualNum=X1, extendNum=last)
    assert (await bind(emu, "", B)).body["extendNum"] == last
    assert (await bind(emu, last, B, X2)).code == "0"


async def test_extensions_of_four_digits_are_the_default(emu: Emulated) -> None:
    """An app put without ``extension_digits`` has four; from 0001 to 9999."""
    await emu.app("other", "s", mode="axe")
    await emu.numbers("+8617000000900", key="other")
    for extension, code in (("0001", "0"), ("9999", "0"), ("0000", "1010002"), ("999", "1010002")):
        body = {"virtualNum": "+8617000000900", "bindNum": A, "extendNum": extension}
        reply = await emu.send(path=PATH, body=body, headers=signed(key="other", secret="s"))
        assert reply.code == code


async def test_digits_of_an_app_with_numbers_are_fixed(emu: Emulated) -> None:
    """They change only by moving the numbers to another app (4.5); one to four of them are possible."""
    body = {"secret": "secret-one", "mode": "axe", "rate": None}
    assert (await emu.ask("PUT", f"apps/{KEY}", {**body, "extension_digits": 3})).http == 409
    assert (await emu.ask("PUT", f"apps/{KEY}", {**body, "extension_digits": 2})).http == 200
    assert (await emu.ask("PUT", "apps/other", {**body, "extension_digits": 5})).http == 422


async def test_several_a_share_an_x(emu: Emulated) -> None:
    """Each has its extension, one A may have several; the same extension of another X is another."""
    await bound(emu, "07", A)
    await bound(emu, "08", B)
    await bound(emu, "09", A)
    await bound(emu, "07", C, X2)
    assert (await bind(emu, "07", D)).outcome == (403, "1013102")
    for extension, a in (("07", A), ("08", B), ("09", A)):
        assert await emu.call(D, X1, extension) == (a, X1, 0)
    assert await emu.call(D, X2, "07") == (C, X2, 0)


async def test_by_city_the_platform_picks_x_and_extension(emu: Emulated) -> None:
    """Strict: the city, else 1012008, or 1020167 when its X are full. Relaxed: its province, then any."""
    await emu.numbers()
    await emu.app(mode="axe", extension_digits=1)
    await emu.numbers(f"{X1}@0755", f"{X2}@020", f"{X3}@010")
    assert (await bind(emu, None, x=None, areaCode="0571")).outcome == (403, "1012008")
    picked = {(await bind(emu, "0", x=None, areaCode="0755")).body["virtualNum"] for _ in range(9)}
    assert picked == {X1}  # the extension is read beside a wanted X only
    assert (await bind(emu, None, x=None, areaCode="0755")).outcome == (403, "1020167")
    relaxed = {"areaCode": "0755", "areaMatchMode": "1"}
    wider = [(await bind(emu, None, x=None, **relaxed)).body.get("virtualNum") for _ in range(19)]
    assert wider == [X2] * 9 + [X3] * 9 + [None]
    await unbind(emu, virtualNum=X2, extendNum="3")
    assert (await bind(emu, None, x=X2, areaCode="0755")).body["extendNum"] == "3"


async def test_an_x_that_is_not_the_apps(emu: Emulated) -> None:
    """X of another app and of nobody are refused."""
    await emu.app("other", "s", mode="axe")
    await emu.numbers("+8617000000900", key="other")
    for x in ("+8617000000900", "+8617999999999"):
        assert (await bind(emu, x=x)).outcome == (403, "1012001")


# --- lifetimes


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"bindExpiredTime": 3}, 3 * HOUR),
        ({"bindExpiredTime": 3, "timeUnit": "0"}, 3 * HOUR),
        ({"bindExpiredTime": 3, "timeUnit": "1", "callbackExpiredTime": 1}, 180),
        ({}, 168 * HOUR),
        ({"timeUnit": "1"}, 168 * HOUR),
    ],
)
async def test_a_binding_lives_its_time(emu: Emulated, fields: Json, seconds: int) -> None:
    """Hours or minutes, 168 hours unless told; then X and extension lead nowhere (8022) and are free."""
    subscription_id = await bound(emu, **fields)
    await emu.advance(seconds - 30)
    assert (await emu.call(B, X1, "07"))[0] == A
    assert (await bind(emu)).code == "1013102"
    await emu.advance(30)
    assert await emu.call(B, X1, "07") == (None, None, 8022)
    assert (await query(emu, subscriptionId=subscription_id)).outcome == (403, "1016001")
    assert [row["op"] for row in await emu.ledger() if row["result_code"] == "0"] == ["bind", "call", "expire"]
    assert (await bind(emu, a=C)).code == "0"


async def test_zero_never_expires(emu: Emulated) -> None:
    """``bindExpiredTime`` 0 lives for ever, and so does the caller it remembers with ``callbackExpiredTime`` 0."""
    await bound(emu, bindExpiredTime=0, callbackExpiredTime=0)
    await emu.call(B, X1, "07")
    await emu.advance(366 * 86_400)
    assert await emu.call(A, X1) == (B, X1, 0)


# --- unbind, query, modify


async def test_unbind(emu: Emulated) -> None:
    """By id, which wins, or by X and extension together; what is not there is 1016001, half a key 1010002."""
    first, _ = await bound(emu, "07"), await bound(emu, "08")
    reply = await unbind(emu, subscriptionId=first, virtualNum=X1, extendNum="08")
    assert (reply.http, reply.body) == (200, DONE)
    assert [item["extension"] for item in await emu.bindings()] == ["08"]
    assert (await unbind(emu, subscriptionId=first)).outcome == (403, "1016001")
    assert (await unbind(emu, virtualNum=X1, extendNum="07")).outcome == (403, "1016001")
    assert (await unbind(emu, virtualNum=X2, extendNum="08")).code == "1016001"
    for fields, missing in (
        ({"virtualNum": X1}, "extendNum"),
        ({"extendNum": "08"}, "virtualNum"),
        ({}, "subscriptionId"),
        ({"subscriptionId": "s" * 65}, "subscriptionId"),
    ):
        reply = await unbind(emu, **fields)
        assert reply.outcome == (403, "1010002")
        assert f" {missing} " in reply.body["resultdesc"]
    assert (await unbind(emu, virtualNum=X1, extendNum="08")).code == "0"
    assert await emu.bindings() == []


async def test_bindings_of_others_are_not_found(emu: Emulated) -> None:
    """Another app reaches a binding neither by id nor by X and extension."""
    subscription_id = await bound(emu)
    await emu.app("other", "s", mode="axe")
    for key in (f"subscriptionId={subscription_id}", f"virtualNum=%2B{X1[1:]}&extendNum=07"):
        for method in ("GET", "DELETE"):
            reply = await emu.send(method, path=PATH, query=key, headers=signed(key="other", secret="s"))
            assert reply.code == "1016001"


async def test_query_shows_the_binding(emu: Emulated) -> None:
    """Fields with their defaults, in the unit that was asked for, and what was given as it was given."""
    await emu.tones("a.wav")
    plain = await bound(emu, "07")
    given: Json = {"displayNumMode": "1", "recordFlag": "true", "recordHintTone": "a.wav", "callbackTone": "a.wav"}
    times: Json = {"timeUnit": "1", "bindExpiredTime": 90, "callbackExpiredTime": 45}
    second = await bound(emu, "08", B, **given, **times, userData="u-1")
    assert await shown(emu, "07") == {
        **DONE,
        "subscriptionId": plain,
        "virtualNum": X1,
        "extendNum": "07",
        "bindNum": A,
        "displayNumMode": "0",
        "recordFlag": "false",
        "timeUnit": "0",
        "bindExpiredTime": 168,
        "callbackExpiredTime": 24,
    }
    body = (await query(emu, subscriptionId=second, virtualNum=X1, extendNum="07")).body
    assert body == {
        **DONE,
        "subscriptionId": second,
        "virtualNum": X1,
        "extendNum": "08",
        "bindNum": B,
        **given,
        **times,
        "userData": "u-1",
    }
    await bound(emu, "09", timeUnit="1")
    assert {**await shown(emu, "09"), "bindExpiredTime": 10_080, "callbackExpiredTime": 1_440} == await shown(emu, "09")
    await bound(emu, "10", bindExpiredTime=2)
    assert (await shown(emu, "10"))["callbackExpiredTime"] == 2


async def test_modify_replaces_only_what_is_given(emu: Emulated) -> None:
    """By id or by X and extension; of callback number and tone the new one replaces the old; A and E stay."""
    await emu.tones("a.wav")
    subscription_id = await bound(emu, userData="u-1", callbackNum=B)
    before = await shown(emu)
    reply = await modify(emu, subscriptionId=subscription_id, virtualNum=X2, displayNumMode=1, recordFlag=True)
    assert (reply.http, reply.body) == (200, DONE)
    assert await shown(emu) == {**before, "displayNumMode": "1", "recordFlag": "true"}
    await modify(emu, callbackTone="a.wav", bindNum=C, userData="u-2")
    after = await shown(emu)
    assert (after["callbackTone"], after["bindNum"], after["userData"]) == ("a.wav", A, "u-2")
    assert "callbackNum" not in after
    await modify(emu, callbackNum=C)
    after = await shown(emu)
    assert (after["callbackNum"], "callbackTone" in after) == (C, False)
    assert await emu.call(B, X1, "07") == (A, B, 0)


async def test_a_modified_lifetime_counts_anew_and_is_not_shown(emu: Emulated) -> None:
    """The clock restarts; the query goes on to show the bind's unit and lifetime, but the new callback time."""
    await bound(emu, bindExpiredTime=10, callbackExpiredTime=5)
    before = await shown(emu)
    await emu.advance(9 * HOUR)
    assert (await modify(emu, timeUnit="1", bindExpiredTime=120, callbackExpiredTime=60)).code == "0"
    assert await shown(emu) == {**before, "callbackExpiredTime": 60}
    await emu.advance(HOUR)
    await modify(emu, userData="the clock runs on")
    assert (await emu.call(B, X1, "07"))[0] == A
    await emu.advance(HOUR - 60)
    assert (await emu.call(A, X1))[0] == B
    await emu.advance(60)
    assert await emu.bindings() == []
    assert (await emu.ledger())[-1]["op"] == "expire"


async def test_modify_to_never_and_in_hours_by_default(emu: Emulated) -> None:
    """0 takes the end away; without ``timeUnit`` it is hours, whatever the bind was in."""
    await bound(emu, timeUnit="1", bindExpiredTime=60, callbackExpiredTime=60)
    assert (await modify(emu, bindExpiredTime=2)).code == "0"
    await emu.advance(HOUR)
    assert len(await emu.bindings()) == 1
    assert (await modify(emu, bindExpiredTime=0, callbackExpiredTime=0)).code == "0"
    assert (await shown(emu))["callbackExpiredTime"] == 0
    await emu.call(B, X1, "07")
    await emu.advance(366 * 86_400)
    assert await emu.call(A, X1) == (B, X1, 0)


async def test_modify_refusals(emu: Emulated) -> None:
    """Unknown bindings 1016001, half a key, bad fields and unapproved files 1010002; nothing changes."""
    await bound(emu, bindExpiredTime=10, callbackExpiredTime=5)
    before = await emu.bindings()
    assert (await modify(emu, "08", recordFlag=True)).outcome == (403, "1016001")
    assert (await modify(emu, subscriptionId="none", recordFlag=True)).outcome == (403, "1016001")
    wrong: list[Json] = [
        {"virtualNum": None},
        {"timeUnit": "2"},
        {"bindExpiredTime": 721},
        {"bindExpiredTime": 4},  # less than the callback records' 5
        {"callbackExpiredTime": 11},
        {"displayNumMode": "x"},
        {"callbackTone": "unknown.wav"},
        {"userData": "{"},
    ]
    for fields in wrong:
        assert (await modify(emu, **fields)).outcome == (403, "1010002")
    assert await emu.bindings() == before


# --- calls


async def test_others_reach_a_by_extension(emu: Emulated) -> None:
    """A sees X, or with ``displayNumMode`` 1 the caller; a 400 number may call, also without a binding of its own."""
    await bound(emu, "07")
    await bound(emu, "08", B, displayNumMode="1")
    for caller in (C, "+864001234567"):
        assert await emu.call(caller, X1, "07") == (A, X1, 0)
        assert await emu.call(caller, X1, "08") == (B, caller, 0)


async def test_calls_that_reach_nobody(emu: Emulated) -> None:
    """No digits 8033; an extension that is unbound, unwhole or of another X 8022; a landline caller 8023."""
    assert await emu.call(B, X1, "07") == (None, None, 8022)
    subscription_id = await bound(emu, "07", LANDLINE)
    for digits, code in (("", 8033), (None, 8033), ("08", 8022), ("7", 8022), ("007", 8022), ("*7", 8022)):
        assert await emu.call(B, X1, digits) == (None, None, code)
    assert await emu.call(B, X2, "07") == (None, None, 8022)
    assert await emu.call(B, X1, "07") == (LANDLINE, X1, 0)
    assert await emu.call("+8675528000001", X1, "07") == (None, None, 8023)
    assert await emu.call(LANDLINE, X1) == (None, None, 8023)
    await unbind(emu, subscriptionId=subscription_id)
    assert await emu.call(B, X1, "07") == (None, None, 8022)


async def test_a_calls_back_the_last_who_reached_them(emu: Emulated) -> None:
    """Each A its own last caller, who sees X; who did not get through is not remembered."""
    await bound(emu, "07", A)
    await bound(emu, "08", B)
    await bound(emu, "07", A, X2)
    assert await emu.call(A, X1) == (None, None, 8019)
    await emu.call(C, X1, "07")
    await emu.call(D, X1, "08")
    assert await emu.call(A, X1) == (C, X1, 0)
    assert await emu.call(B, X1, "07") == (D, X1, 0)
    assert await emu.call(A, X2) == (None, None, 8019)
    await emu.call(D, X1, "07")
    await emu.call(C, X1, "99")
    await emu.call(C, X1, "")
    assert await emu.call(A, X1) == (D, X1, 0)


async def test_a_caller_is_remembered_for_a_time(emu: Emulated) -> None:
    """``callbackExpiredTime`` after the call the record is gone: ``callbackNum``, else 8019; 24 hours unless told."""
    await emu.tones("a.wav")
    await bound(emu, "07", A, callbackNum=D, bindExpiredTime=5, callbackExpiredTime=1)
    await bound(emu, "08", B, callbackTone="a.wav", bindExpiredTime=0)
    assert await emu.call(A, X1) == (D, X1, 0)
    assert await emu.call(B, X1) == (None, None, 8019)
    await emu.call(C, X1, "07")
    await emu.call(C, X1, "08")
    for passed, expected in ((HOUR - 30, (C, C)), (30, (D, C)), (23 * HOUR - 60, (None, C)), (60, (None, None))):
        await emu.advance(passed)
        assert ((await emu.call(A, X1))[0], (await emu.call(B, X1))[0]) == expected
    assert await emu.call(A, X1) == (None, None, 8033)  # its binding has expired: A is anyone


async def test_the_records_of_one_a_on_one_x_are_one(emu: Emulated) -> None:
    """With two extensions of X the later caller counts, whichever was dialled; the newest bind's number else."""
    await bound(emu, "07", callbackNum=C)
    await bound(emu, "08", callbackNum=D)
    assert await emu.call(A, X1) == (D, X1, 0)
    for extension, caller in (("08", B), ("07", C), ("08", D)):
        await emu.advance(1)
        await emu.call(caller, X1, extension)
        assert (await emu.call(A, X1))[0] == caller


async def test_a_record_ends_with_its_binding(emu: Emulated) -> None:
    """Who gets the extension next does not reach the callers of the one before, and nor does A bound anew."""
    for a in (A, B, B):
        subscription_id = await bound(emu, "07", a)
        assert await emu.call(a, X1) == (None, None, 8019)
        await emu.call(C, X1, "07")
        assert await emu.call(a, X1) == (C, X1, 0)
        await unbind(emu, subscriptionId=subscription_id)


# --- ledger, durability, modes, settings


async def test_ledger_rows(emu: Emulated) -> None:
    """Rows have the extension; a callback record is a row of the platform's own, without a request."""
    subscription_id = await bound(emu, bindExpiredTime=2, callbackExpiredTime=1, userData="u-1")
    await bind(emu, a=B)
    await emu.call(C, X1, "07")
    await emu.call(A, X1)
    first, refused, call = await emu.ledger()
    assert [first[name] for name in ("op", "x", "extension", "a", "duration")] == ["bind", X1, "07", A, 2 * HOUR]
    assert (first["callback_s"], first["mode"]) == (HOUR, "axe")
    assert [refused[name] for name in ("op", "x", "a", "result_code")] == ["bind", X1, B, "1013102"]
    assert (call["op"], call["subscription_id"], call["request"]) == ("call", subscription_id, None)
    assert (call["callee"]["number"], call["callee"]["at"], call["was"]) == (C, call["at"], {"callee": None})
    assert (call["reason"], call["http"]) == ("call", None)
    assert (await emu.ask("POST", "faults", {"interface": "call", "kind": "reset"})).http == 422


@pytest.mark.parametrize("options", [{}, {"compact_after": 1}])
async def test_everything_is_restored(tmp_path: Path, options: Json) -> None:
    """Bindings, lifetimes, callback records with their ends and the query's quirk come back as they were."""
    async with emulator(tmp_path, app=APP) as emu:
        await bound(emu, "07", A, callbackExpiredTime=2, userData="u-1")
        await bound(emu, "08", B, timeUnit="1", bindExpiredTime=120, callbackExpiredTime=60, callbackNum=D)
        await unbind(emu, subscriptionId=await bound(emu, "09"))
        await emu.advance(60)
        await modify(emu, "07", bindExpiredTime=3)
        await emu.call(C, X1, "07")
        await emu.call(C, X1, "08")
        await modify(emu, "07", recordFlag="true")
        before, first = await emu.bindings(), await shown(emu)
    assert [item["callee"]["number"] for item in before] == [C, C]
    for _ in range(2):
        async with emulator(tmp_path, **options) as emu:
            emu.skew_s = 60
            assert await emu.bindings() == before
            assert await shown(emu) == first
            assert await emu.call(A, X1) == (C, X1, 0)
            assert (await bind(emu, "08")).code == "1013102"
            assert (await bind(emu, "7")).code == "1010002"
    async with emulator(tmp_path) as emu:
        emu.skew_s = 60
        await emu.call(C, X1, "07")
        await emu.advance(HOUR)
        assert ((await emu.call(A, X1))[0], (await emu.call(B, X1))[0]) == (C, D)
        await emu.advance(HOUR)
        assert await emu.call(B, X1) == (None, None, 8033)
        assert await emu.call(A, X1) == (None, None, 8019)
        await emu.advance(HOUR)
        assert await emu.bindings() == []


async def test_interfaces_of_another_mode(emu: Emulated) -> None:
    """An AXE app may not use AXB's interfaces, nor an AXB app AXE's: 1010040."""
    assert (await emu.bind(X1)).outcome == (403, "1010040")
    await emu.app("other", "s", mode="axb")
    for method in ("POST", "PUT", "GET", "DELETE"):
        reply = await emu.send(method, path=PATH, headers=signed(key="other", secret="s"))
        assert reply.outcome == (403, "1010040")


async def test_a_number_taken_away_ends_its_bindings(emu: Emulated) -> None:
    """All extensions of an X that is transferred end with it (9.4)."""
    await bound(emu, "07")
    await bound(emu, "08", B)
    await bound(emu, "07", C, X2)
    await emu.numbers(X2, X3)
    assert [item["x"] for item in await emu.bindings()] == [X2]


async def test_unconfirmed_codes(tmp_path: Path) -> None:
    """Codes that the contract leaves open follow the settings."""
    codes = {"axe_foreign_x_code": "1011001", "axe_none_in_area_code": "1011002", "axe_taken_code": "1020167"}
    async with emulator(tmp_path, app=APP, axe_repeats_a=False, real_caller_allowed=False, **codes) as emu:
        await bound(emu, displayNumMode="1")
        assert (await bind(emu, x="+8617999999999")).code == "1011001"
        assert (await bind(emu, x=None, areaCode="010")).code == "1011002"
        assert (await bind(emu, a=B)).code == "1020167"
        assert (await bind(emu, "08", A)).outcome == (403, "1016002")
        picked = {(await bind(emu, None, A, None, areaCode="0755")).body["virtualNum"] for _ in range(2)}
        assert picked == {X2, X3}
        assert await emu.call(B, X1, "07") == (None, None, 8024)


async def test_unconfirmed_lifetimes(tmp_path: Path) -> None:
    """Defaults, what 0 means for callback records, and the clock after a modification follow the settings."""
    hours = {"axe_bind_hours": 0, "axe_callback_hours": 2, "axe_extension_digits": 1}
    settings: Json = {**hours, "axe_callback_zero": "at_once", "axe_modify_restarts_clock": False}
    async with emulator(tmp_path, app={"mode": "axe"}, **settings) as emu:
        await bound(emu, "1")
        await bound(emu, "2", B, callbackExpiredTime=0)
        assert ((await shown(emu, "1"))["bindExpiredTime"], (await shown(emu, "1"))["callbackExpiredTime"]) == (0, 2)
        for extension in ("1", "2"):
            await emu.call(C, X1, extension)
        assert await emu.call(B, X1) == (None, None, 8019)
        await emu.advance(HOUR)
        assert await emu.call(A, X1) == (C, X1, 0)
        await emu.advance(HOUR)
        assert await emu.call(A, X1) == (None, None, 8019)
        await modify(emu, "1", bindExpiredTime=3)  # two of them are over
        await emu.advance(HOUR)
        assert [item["a"] for item in await emu.bindings()] == [B]


async def test_whether_a_modification_changes_a_is_a_setting(tmp_path: Path) -> None:
    """With it, the new A is reached, and the former one is anyone."""
    async with emulator(tmp_path, app=APP, axe_modify_changes_a=True) as emu:
        await bound(emu)
        assert (await modify(emu, bindNum="+8695533")).code == "1010002"
        assert (await modify(emu, bindNum=B)).code == "0"
        assert await emu.call(A, X1, "07") == (B, X1, 0)
        assert await emu.call(B, X1) == (A, X1, 0)
