from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.emulator.support import KEY, PATH, X1, X2, X3, A, B, C, D, Emulated, emulator, signed

BEIJING_LANDLINE = "+861065550001"


async def test_bind_answers_what_the_contract_lists(emu: Emulated) -> None:
    """The answer has exactly the documented fields; numbers are numbers, the result code is text."""
    reply = await emu.bind(duration=86_400, callDirection=1, maxDuration=30, userData="line-1")
    subscription_id = reply.body.pop("subscriptionId")
    assert 1 <= len(subscription_id) <= 64
    assert reply.body == {
        "resultcode": "0",
        "resultdesc": "Success",
        "relationNum": X1,
        "callDirection": 1,
        "duration": 86_400,
        "maxDuration": 30,
        "userData": "line-1",
    }
    assert reply.headers["Content-Type"] == "application/json;charset=utf-8"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("callerNum", None),
        ("callerNum", "13900000001"),
        ("callerNum", "+12"),
        ("callerNum", "+" + "1" * 31),
        ("callerNum", 8613900000001),
        ("callerNum", "+864001234567"),
        ("calleeNum", None),
        ("calleeNum", "+86 1390000002"),
        ("calleeNum", A),
        ("calleeNum", "+8695533"),
        ("relationNum", None),
        ("relationNum", "+86"),
        ("relationNum", "+" + "8" * 31),
        ("areaCode", "755"),
        ("areaCode", "07555"),
        ("areaMatchMode", "2"),
        ("areaMatchMode", 1),
        ("callDirection", 3),
        ("callDirection", -1),
        ("callDirection", "0"),
        ("callDirection", True),
        ("duration", -1),
        ("duration", 7_776_001),
        ("duration", "60"),
        ("duration", 1.5),
        ("recordFlag", "yes"),
        ("recordFlag", 1),
        ("recordHintTone", "a" * 129),
        ("recordHintTone", "a b.wav"),
        ("maxDuration", 1441),
        ("lastMinVoice", 5),
        ("privateSms", "TRUE"),
        ("preVoice", "tone.wav"),
        ("preVoice", {"callerHintTone": "x" * 129}),
        ("userData", ""),
        ("userData", "u" * 257),
        ("userData", "a{b"),
        ("userData", "a}b"),
        ("userData", "a^b"),
        ("userData", "订单"),
        ("userData", 7),
    ],
)
async def test_bind_refuses_and_names_the_parameter(emu: Emulated, name: str, value: Any) -> None:
    """A malformed field is 403/1010002 and the text names it; nothing is bound."""
    fields: dict[str, Any] = {"relationNum": X1, "callerNum": A, "calleeNum": B}
    fields[name] = value
    reply = await emu.send(body=fields)
    assert reply.outcome == (403, "1010002")
    assert name in reply.body["resultdesc"]
    assert await emu.bindings() == []


@pytest.mark.parametrize(
    "more",
    [
        {"duration": 0},
        {"duration": 7_776_000},
        {"callDirection": 2},
        {"maxDuration": 1440, "lastMinVoice": "last_min.wav"},
        {"recordFlag": "true", "recordHintTone": "hint.wav"},
        {"recordFlag": True, "privateSms": False},
        {"privateSms": "false"},
        {"preVoice": {"callerHintTone": "a.wav", "calleeHintTone": ""}},
        {"userData": "u" * 256},
        {"userData": "é~!@#$%&*()<>"},
        {"areaMatchMode": "1"},
        {"areaCode": "010", "areaMatchMode": "0"},
        {"unknownField": {"is": "ignored"}},
        {"calleeNum": BEIJING_LANDLINE},
    ],
)
async def test_bind_accepts_every_documented_form(emu: Emulated, more: dict[str, Any]) -> None:
    """Values at the edges of their ranges and both spellings of flags are accepted."""
    await emu.tones("last_min.wav", "hint.wav", "a.wav")
    assert (await emu.send(body={"relationNum": X1, "callerNum": A, "calleeNum": B, **more})).outcome == (200, "0")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b'{"callerNum":' + b" " * 70_000 + b"1}"])
async def test_bad_bodies_are_invalid_requests(emu: Emulated, body: bytes) -> None:
    """Bodies that are no JSON object, or over 64 KiB, are 1010002 and leave the connection usable."""
    reply = await emu.send(body=body)
    assert reply.outcome == (403, "1010002")
    assert (await emu.bind()).code == "0"


async def test_x_must_belong_to_the_app(emu: Emulated) -> None:
    """An X of another app, and one of nobody, are 1012001."""
    await emu.app("other", "s")
    await emu.numbers("+8617000000900", key="other")
    assert (await emu.bind("+8617000000900")).outcome == (403, "1012001")
    assert (await emu.bind("+8617999999999")).outcome == (403, "1012001")


@pytest.mark.parametrize(("a", "b"), [(A, C), (C, A), (B, C), (C, B), (A, B), (B, A)])
async def test_a_number_is_once_on_an_x_in_either_role(emu: Emulated, a: str, b: str) -> None:
    """With A-X-B bound, neither A nor B can be bound on X again; on another X both can."""
    await emu.bound()
    assert (await emu.bind(X1, a, b)).outcome == (403, "1012010")
    assert (await emu.bind(X1, C, D)).code == "0"
    assert (await emu.bind(X2, A, B)).code == "0"


async def test_one_x_holds_a_limited_number_of_pairs(tmp_path: Path) -> None:
    """Beyond ``pairs_per_x`` an X is full (1012008); a release makes room."""
    async with emulator(tmp_path, pairs_per_x=2) as emu:
        first = await emu.bound(X1, A, B)
        await emu.bound(X1, C, D)
        assert (await emu.bind(X1, "+8613900000005", "+8613900000006")).outcome == (403, "1012008")
        await emu.unbind(subscriptionId=first)
        assert (await emu.bind(X1, "+8613900000005", "+8613900000006")).code == "0"


async def test_five_thousand_pairs_by_default(emu: Emulated) -> None:
    """The 5,001st pair on one X is refused."""
    for index in range(5_000):
        assert (await emu.bind(X1, f"+86131{index:08d}", f"+86132{index:08d}")).code == "0"
    assert (await emu.bind()).outcome == (403, "1012008")


async def test_area_code_picks_a_free_x_of_the_city(emu: Emulated) -> None:
    """By city the platform picks an X where neither party is bound; when there is none left it is 1012008."""
    await emu.numbers(X1, X2, f"{X3}@020")
    chosen = {(await emu.bind(None, A, b, areaCode="0755")).body["relationNum"] for b in (B, C)}
    assert chosen == {X1, X2}
    assert (await emu.bind(None, A, D, areaCode="0755")).outcome == (403, "1012008")
    assert (await emu.bind(None, A, D, areaCode="0756")).outcome == (403, "1012008")


async def test_relaxed_match_goes_city_province_anywhere(emu: Emulated) -> None:
    """``areaMatchMode`` 1 takes the city first, then the province, then any X of the app."""
    await emu.numbers(f"{X1}@0755", f"{X2}@020", f"{X3}@010")
    chosen = [
        (await emu.bind(None, A, b, areaCode="0755", areaMatchMode="1")).body.get("relationNum") for b in (B, C, D)
    ]
    assert chosen == [X1, X2, X3]
    assert (await emu.bind(None, A, "+8613900000009", areaCode="0755", areaMatchMode="1")).code == "1012008"


async def test_given_x_wins_over_area(emu: Emulated) -> None:
    """With both ``relationNum`` and ``areaCode`` a mobile A gets the X it names."""
    assert (await emu.bind(X2, areaCode="010")).body["relationNum"] == X2


async def test_landline_a_is_placed_by_its_own_city(emu: Emulated) -> None:
    """For a landline A the platform goes by A's area code, not by the one given."""
    await emu.numbers(f"{X1}@0755", f"{X2}@010")
    assert (await emu.bind(None, BEIJING_LANDLINE, B, areaCode="0755")).body["relationNum"] == X2


@pytest.mark.parametrize(("setting", "x"), [("relation_num", X1), ("own_area", X2)])
async def test_landline_a_with_explicit_x_is_a_setting(tmp_path: Path, setting: str, x: str) -> None:
    """Whether ``relationNum`` wins for a landline A is unconfirmed, so both are there."""
    async with emulator(tmp_path, landline_explicit_x=setting) as emu:
        await emu.numbers(f"{X1}@0755", f"{X2}@010")
        assert (await emu.bind(X1, BEIJING_LANDLINE, B)).body["relationNum"] == x


async def test_expiry_frees_both_numbers_at_the_second(emu: Emulated) -> None:
    """A binding conflicts until its duration is over, and not after; the expiry is a ledger row of its moment."""
    subscription_id = await emu.bound(duration=60)
    await emu.advance(55)
    assert (await emu.bind()).code == "1012010"
    await emu.advance(5)
    assert (await emu.query(subscriptionId=subscription_id)).code == "1012007"
    rows = await emu.ledger()
    (expiry,) = (row for row in rows if row["op"] == "expire")
    assert (expiry["subscription_id"], expiry["at"], expiry["http"]) == (subscription_id, rows[0]["expires_at"], None)
    assert (await emu.bind()).code == "0"


async def test_zero_duration_never_expires(emu: Emulated) -> None:
    """Duration 0 and no duration live for ever."""
    await emu.bound(X1, duration=0)
    await emu.bound(X2)
    await emu.advance(365 * 86_400)
    assert [item["expires_at"] for item in await emu.bindings()] == [None, None]


async def test_unbind_by_subscription(emu: Emulated) -> None:
    """Only that binding ends, also if an X is named beside it; a second time it is unknown."""
    first, second = await emu.bound(X1, A, B), await emu.bound(X1, C, D)
    reply = await emu.unbind(subscriptionId=first, relationNum=X2)
    assert (reply.http, reply.body) == (200, {"resultcode": "0", "resultdesc": "Success"})
    assert [item["subscription_id"] for item in await emu.bindings()] == [second]
    assert (await emu.unbind(subscriptionId=first)).outcome == (403, "1012007")


async def test_unbind_by_x_ends_everything_on_it(emu: Emulated) -> None:
    """``relationNum`` alone removes every binding of that X: one ledger row each, of one request."""
    await emu.bound(X1, A, B)
    await emu.bound(X1, C, D)
    kept = await emu.bound(X2, A, B)
    assert (await emu.unbind(relationNum=X1)).code == "0"
    assert [item["subscription_id"] for item in await emu.bindings()] == [kept]
    rows = [row for row in await emu.ledger() if row["op"] == "unbind"]
    assert len(rows) == 2
    assert len({row["request"] for row in rows}) == 1
    assert (await emu.unbind(relationNum=X1)).code == "1012007"


async def test_unbind_refusals(emu: Emulated) -> None:
    """Nothing given, empty or too long: 1010002. X of others, or with a bare ``+``: 1012001. Others' id: 1012007."""
    subscription_id = await emu.bound()
    assert (await emu.unbind()).code == "1010002"
    assert (await emu.unbind(subscriptionId="", relationNum=X1)).code == "1010002"
    assert (await emu.unbind(subscriptionId="s" * 65)).code == "1010002"
    assert (await emu.unbind(relationNum="+8617999999999")).outcome == (403, "1012001")
    assert (await emu.send("DELETE", query=f"relationNum={X1}")).code == "1012001"
    await emu.app("other", "s")
    other = await emu.send("DELETE", query=f"subscriptionId={subscription_id}", headers=signed(key="other", secret="s"))
    assert other.code == "1012007"
    assert len(await emu.bindings()) == 1


async def test_query_shows_the_binding(emu: Emulated) -> None:
    """A query echoes what was bound, extras included, with ``app_key`` and paging."""
    await emu.tones("h.wav")
    subscription_id = await emu.bound(
        duration=600, recordFlag=True, recordHintTone="h.wav", userData="u-1", privateSms="false"
    )
    body = (await emu.query(relationNum=X1)).body
    (item,) = body.pop("relationNumList")
    assert body == {
        "resultcode": "0",
        "resultdesc": "Success",
        "app_key": KEY,
        "totalCount": 1,
        "pageIndex": 1,
        "pageSize": 50,
    }
    assert len(item.pop("subscribeTime")) == len("2024-05-13 05:24:57")
    assert item == {
        "subscriptionId": subscription_id,
        "relationNum": X1,
        "callerNum": A,
        "calleeNum": B,
        "callDirection": 0,
        "duration": 600,
        "maxDuration": 0,
        "recordFlag": "true",
        "recordHintTone": "h.wav",
        "privateSms": "false",
        "userData": "u-1",
    }


async def test_query_settings(tmp_path: Path) -> None:
    """Extras can be left out and paging can be text: both are unconfirmed."""
    async with emulator(tmp_path, query_echoes_extras=False, paging_as_text=True) as emu:
        await emu.bound(privateSms="false")
        body = (await emu.query(relationNum=X1)).body
        assert (body["pageIndex"], body["pageSize"]) == ("1", "50")
        assert "privateSms" not in body["relationNumList"][0]


async def test_query_by_parties_goes_by_role(emu: Emulated) -> None:
    """A+X, B+X and A+X+B find the pair; swapped roles and other X do not."""
    subscription_id = await emu.bound()
    for fields in ({"callerNum": A}, {"calleeNum": B}, {"callerNum": A, "calleeNum": B}):
        reply = await emu.query(relationNum=X1, **fields)
        assert [item["subscriptionId"] for item in reply.body["relationNumList"]] == [subscription_id]
    for fields in ({"callerNum": B}, {"calleeNum": A}, {"callerNum": A, "calleeNum": C}):
        assert (await emu.query(relationNum=X1, **fields)).outcome == (403, "1012007")
    assert (await emu.query(relationNum=X2, callerNum=A)).code == "1012007"
    assert (await emu.query(callerNum=A)).code == "1010002"
    assert (await emu.query()).code == "1010002"
    assert (await emu.query(relationNum="+8617999999999")).code == "1012007"
    wins = await emu.query(subscriptionId=subscription_id, relationNum=X2, callerNum=C)
    assert wins.body["totalCount"] == 1


@pytest.mark.parametrize(
    ("paging", "page", "size", "shown"),
    [
        ({}, 1, 50, 50),
        ({"pageSize": "10"}, 1, 10, 10),
        ({"pageSize": "100"}, 1, 100, 62),
        ({"pageSize": "9"}, 1, 50, 50),
        ({"pageSize": "101"}, 1, 50, 50),
        ({"pageSize": "ten"}, 1, 50, 50),
        ({"pageSize": ""}, 1, 50, 50),
        ({"pageIndex": "2"}, 2, 50, 12),
        ({"pageIndex": "7", "pageSize": "10"}, 7, 10, 2),
        ({"pageIndex": "8", "pageSize": "10"}, 8, 10, 0),
        ({"pageIndex": "0"}, 1, 50, 50),
    ],
)
async def test_paging(emu: Emulated, paging: dict[str, str], page: int, size: int, shown: int) -> None:
    """Pages count from 1; a size absent or outside 10-100 is 50; past the end the list is empty, not an error."""
    ids = [await emu.bound(X1, f"+86131{index:08d}", f"+86132{index:08d}") for index in range(62)]
    body = (await emu.query(relationNum=X1, **paging)).body
    assert (body["totalCount"], body["pageIndex"], body["pageSize"]) == (62, page, size)
    first = (page - 1) * size
    assert [item["subscriptionId"] for item in body["relationNumList"]] == ids[first : first + size]
    assert len(body["relationNumList"]) == shown


async def test_modify_replaces_only_what_is_given(emu: Emulated) -> None:
    """A new callee takes the old one's place at once; everything else stays."""
    subscription_id = await emu.bound(duration=600, userData="u-1", callDirection=1)
    reply = await emu.modify(subscription_id, calleeNum=C)
    assert (reply.http, reply.body) == (200, {"resultcode": "0", "resultdesc": "Success"})
    (item,) = (await emu.query(subscriptionId=subscription_id)).body["relationNumList"]
    assert (item["callerNum"], item["calleeNum"], item["duration"], item["userData"]) == (A, C, 600, "u-1")
    assert await emu.call(A, X1) == (C, X1, 0)
    assert (await emu.call(B, X1))[0] is None
    assert (await emu.bind(X1, B, D)).code == "0"


async def test_modify_duration_restarts_the_clock(emu: Emulated) -> None:
    """The new duration counts from the modification; a modification without one lets the old clock run."""
    subscription_id = await emu.bound(duration=100)
    await emu.advance(90)
    await emu.modify(subscription_id, userData="still the old clock")
    await emu.modify(subscription_id, duration=100)
    await emu.advance(90)
    assert len(await emu.bindings()) == 1
    await emu.modify(subscription_id, userData="still the second clock")
    await emu.advance(10)
    assert await emu.bindings() == []


async def test_modify_refusals(emu: Emulated) -> None:
    """Unknown id 1012007, number in use 1012010, bad fields 1010002; swapping its own parties is allowed."""
    first = await emu.bound(X1, A, B)
    await emu.bound(X1, C, D)
    assert (await emu.send("PUT", body={"duration": 5})).code == "1010002"
    assert (await emu.modify("unknown", duration=5)).outcome == (403, "1012007")
    assert (await emu.modify(first, calleeNum=C)).outcome == (403, "1012010")
    assert (await emu.modify(first, calleeNum=A)).code == "1010002"
    assert (await emu.modify(first, duration=7_776_001)).code == "1010002"
    assert (await emu.modify(first, callerNum=B, calleeNum=A)).code == "0"
    assert [(item["a"], item["b"]) for item in await emu.bindings()] == [(B, A), (C, D)]


async def test_modify_cannot_change_the_hint_tone(emu: Emulated) -> None:
    """`recordHintTone` is no field of the interface: the one given with the bind stays, whatever the other is."""
    await emu.tones("first.wav")
    subscription_id = await emu.bound(recordFlag="true", recordHintTone="first.wav")
    assert (await emu.modify(subscription_id, recordFlag="false", recordHintTone="second.wav")).code == "0"
    (item,) = (await emu.query(subscriptionId=subscription_id)).body["relationNumList"]
    assert (item["recordFlag"], item["recordHintTone"]) == ("false", "first.wav")


async def test_ledger_row_of_a_modification(emu: Emulated) -> None:
    """It has the new state, and under `was` the former values of what changed and of nothing else."""
    subscription_id = await emu.bound(duration=0, userData="u-1", privateSms="true")
    await emu.modify(subscription_id, calleeNum=C, duration=60, callDirection=1, maxDuration=5, userData="u-2")
    await emu.modify(subscription_id, privateSms="false")
    await emu.modify(subscription_id, userData="u-2")
    bound, *changed = await emu.ledger()
    assert "was" not in bound
    assert changed[0]["was"] == {
        "b": B,
        "duration": 0,
        "expires_at": None,
        "call_direction": 0,
        "max_duration": 0,
        "user_data": "u-1",
    }
    assert [changed[0][name] for name in ("a", "b", "call_direction", "max_duration")] == [A, C, 1, 5]
    assert (changed[1]["was"], changed[1]["extras"]) == ({"extras": {"privateSms": "true"}}, {"privateSms": "false"})
    assert changed[2]["was"] == {}


async def test_ledger_rows_tell_who_and_what(emu: Emulated) -> None:
    """Each request is a row with its numbers and result, refused or not, in order."""
    subscription_id = await emu.bound(userData="u-1", duration=60)
    await emu.bind()
    await emu.modify(subscription_id, duration=70)
    await emu.query(relationNum=X1)
    await emu.unbind(subscriptionId=subscription_id)
    await emu.send("DELETE", path=PATH, query="subscriptionId=none")
    rows = await emu.ledger()
    assert [(row["seq"], row["op"], row["result_code"], row["http"]) for row in rows] == [
        (1, "bind", "0", 200),
        (2, "bind", "1012010", 403),
        (3, "modify", "0", 200),
        (4, "query", "0", 200),
        (5, "unbind", "0", 200),
        (6, "unbind", "1012007", 403),
    ]
    for row in (rows[0], rows[2], rows[4]):
        assert (row["subscription_id"], row["x"], row["a"], row["b"]) == (subscription_id, X1, A, B)
        assert (row["user_data"], row["app_key"]) == ("u-1", KEY)
    assert (rows[1]["x"], rows[1]["a"], rows[1]["b"]) == (X1, A, B)
    assert [rows[0]["duration"], rows[2]["duration"]] == [60, 70]
    assert rows[0]["at"].endswith("Z")
    assert len(rows[0]["at"]) == len("2024-05-13T05:24:57.123Z")
