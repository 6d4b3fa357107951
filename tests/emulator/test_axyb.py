from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.support import KEY, A, B, C, D, Emulated, Json, Reply, as_query, emulator, signed

PATH = "/rest/omp/xyrelationnumber/v1.0"
N1, N2, N3, N4, N5, N6 = (f"+861700000020{n}" for n in range(1, 7))
LANDLINE = "+861065550001"


class Xy:
    """The three AXYB interfaces as plain calls."""

    def __init__(self, emu: Emulated) -> None:
        self.emu = emu

    async def post(self, body: Json, query: str = f"app_key={KEY}") -> Reply:
        """Bind an AX or a relation with exactly these fields."""
        return await self.emu.send("POST", path=PATH, query=query, body=body)

    async def ax(self, a: str = A, **more: Any) -> Reply:
        """Bind an AX."""
        return await self.post({"origNum": a, "areaCode": "0755", **more})

    async def owned(self, a: str = A, **more: Any) -> tuple[str, str]:
        """Bind an AX that must be accepted; returns its id and its X."""
        reply = await self.ax(a, **more)
        assert reply.outcome == (200, "0"), reply
        return str(reply.body["subscriptionId"]), str(reply.body["relationNumber"])

    async def yb(self, subscription_id: str, b: str = B, **more: Any) -> Reply:
        """Bind a relation."""
        return await self.post({"origNum": b, "subscriptionId": subscription_id, **more})

    async def y_of(self, subscription_id: str, b: str = B, **more: Any) -> str:
        """Bind a relation that must be accepted; returns its Y."""
        reply = await self.yb(subscription_id, b, **more)
        assert reply.outcome == (200, "0"), reply
        assert reply.body["subscriptionId"] == subscription_id
        return str(reply.body["relationNumber"])

    async def unbind(self, **fields: str) -> Reply:
        """Unbind by the given parameters."""
        return await self.emu.send("DELETE", path=PATH, query=as_query({"app_key": KEY, **fields}))

    async def query(self, **fields: str) -> Reply:
        """Query by the given parameters."""
        return await self.emu.send("GET", path=PATH, query=as_query({"app_key": KEY, **fields}))

    async def rows(self, **fields: str) -> list[Json]:
        """Return what a query must find."""
        reply = await self.query(**fields)
        assert reply.outcome == (200, "0"), reply
        return list(reply.body["xyRelationNumList"])


@pytest.fixture
async def xy(tmp_path: Path) -> AsyncIterator[Xy]:
    """An emulator whose app is in AXYB mode and has six numbers of one city."""
    async with platform(tmp_path / "state") as running:
        yield running


@contextlib.asynccontextmanager
async def platform(state_dir: Path, *numbers: str, **settings: Any) -> AsyncIterator[Xy]:
    """Run an emulator with an AXYB app that has these numbers, by default six."""
    async with emulator(state_dir, app={"mode": "axyb"}, **settings) as emu:
        await emu.numbers(*(numbers or (N1, N2, N3, N4, N5, N6)))
        yield Xy(emu)


async def test_b_dials_x_and_a_dials_y(xy: Xy) -> None:
    """B who dials X reaches A, who sees Y; A who dials Y reaches B, who sees X."""
    subscription_id, x = await xy.owned()
    y = await xy.y_of(subscription_id)
    assert x != y
    assert await xy.emu.call(B, x) == (A, y, 0)
    assert await xy.emu.call(A, y) == (B, x, 0)


async def test_calls_that_reach_nobody(xy: Xy) -> None:
    """One's own number is 8032, no binding is 8030, a landline caller 8023."""
    subscription_id, x = await xy.owned()
    y = await xy.y_of(subscription_id)
    await xy.y_of(subscription_id, LANDLINE)
    assert await xy.emu.call(A, x) == (None, None, 8032)
    assert await xy.emu.call(B, y) == (None, None, 8032)
    assert await xy.emu.call(C, y) == (None, None, 8030)
    free = ({N1, N2, N3, N4, N5, N6} - {item[role] for item in await xy.emu.bindings() for role in "xy"}).pop()
    assert await xy.emu.call(B, free) == (None, None, 8030)
    assert await xy.emu.call(LANDLINE, x) == (None, None, 8023)


@pytest.mark.parametrize("direction", [1, 2])
async def test_call_direction(xy: Xy, direction: int) -> None:
    """1 lets only A call, 2 only B; the other is told 8016 and gets no Y by trying."""
    subscription_id, x = await xy.owned(callDirection=direction)
    y = await xy.y_of(subscription_id)
    barred: tuple[None, None, int] = (None, None, 8016)
    assert await xy.emu.call(B, x) == (barred if direction == 1 else (A, y, 0))
    assert await xy.emu.call(A, y) == (barred if direction == 2 else (B, x, 0))
    assert (await xy.emu.call(C, x))[2] == (8016 if direction == 1 else 0)
    assert len(await xy.rows(subscriptionId=subscription_id)) == (1 if direction == 1 else 2)


async def test_a_stranger_on_x_gets_a_y_by_the_call(xy: Xy) -> None:
    """B who dials X without a Y gets one on the spot, for as long as the AX says, and keeps it."""
    subscription_id, x = await xy.owned(duration=3_600, ybDuration=600)
    connected, y, cause = await xy.emu.call(B, x)
    assert (connected, cause) == (A, 0)
    assert y is not None
    assert await xy.emu.call(B, x) == (A, y, 0)
    assert await xy.emu.call(A, y) == (B, x, 0)
    (row,) = await xy.rows(subscriptionId=subscription_id)
    assert (row["numY"], row["numB"], row["ybDuration"]) == (y, B, "600")
    await xy.emu.advance(600)
    assert await xy.emu.call(A, y) == (None, None, 8030)


async def test_a_call_that_finds_no_y(tmp_path: Path) -> None:
    """With no number left for a Y the call ends in 8031 and a bind in 1012008, and nothing is bound."""
    async with platform(tmp_path, N1) as xy:
        subscription_id, x = await xy.owned()
        assert await xy.emu.call(B, x) == (None, None, 8031)
        assert (await xy.yb(subscription_id)).outcome == (403, "1012008")
        assert len(await xy.emu.bindings()) == 1


async def test_one_x_has_one_a_and_the_city_counts(xy: Xy) -> None:
    """Each AX gets an X of its own in the city; with none left it is 1012008, relaxed goes on elsewhere."""
    await xy.emu.numbers(N1, N2, f"{N3}@020", f"{N4}@010")
    assert {(await xy.owned(a))[1] for a in (A, B)} == {N1, N2}
    assert (await xy.ax(C)).outcome == (403, "1012008")
    assert [(await xy.owned(a, areaMatchMode="1"))[1] for a in (C, D)] == [N3, N4]


async def test_one_a_has_at_most_five_x(xy: Xy) -> None:
    """The sixth X of one A is 1011003; after an unbind there is room again."""
    owned = [await xy.owned() for _ in range(5)]
    assert len({x for _, x in owned}) == 5
    assert (await xy.ax()).outcome == (403, "1011003")
    assert (await xy.unbind(subscriptionId=owned[0][0])).outcome == (200, "0")
    assert (await xy.ax()).outcome == (200, "0")


async def test_a_y_serves_many_but_no_ax_twice(xy: Xy) -> None:
    """Two B of one A have two Y, also under two X; two A may share a Y, and each reaches the right B."""
    first, x1 = await xy.owned()
    second, _ = await xy.owned()
    other, x2 = await xy.owned(D)
    ys = {await xy.y_of(first, B), await xy.y_of(first, C), await xy.y_of(second, "+8613900000009")}
    assert len(ys) == 3
    y = await xy.y_of(other, C)
    assert y in ys
    (b,) = {item["b"] for item in await xy.emu.bindings() if item["a"] == A and item["y"] == y}
    (x,) = {item["x"] for item in await xy.emu.bindings() if item["a"] == A and item["y"] == y}
    assert await xy.emu.call(A, y) == (b, x, 0)
    assert await xy.emu.call(D, y) == (C, x2, 0)
    assert x1 != x2


async def test_the_city_of_a_y(tmp_path: Path) -> None:
    """Without a wish a Y is of X's city, else of anywhere; with one it is there or, relaxed, elsewhere."""
    async with platform(tmp_path, N1, f"{N2}@0755", f"{N3}@010", f"{N4}@020", f"{N5}@021") as xy:
        subscription_id, _ = await xy.owned()
        assert await xy.y_of(subscription_id, B) in {N1, N2}
        assert await xy.y_of(subscription_id, C, areaCode="010") == N3
        assert (await xy.yb(subscription_id, D, areaCode="010")).outcome == (403, "1012008")
        assert await xy.y_of(subscription_id, D, areaCode="0755", areaMatchMode="1") == N4
        assert await xy.y_of(subscription_id, LANDLINE) == N5


async def test_a_y_is_shared_before_another_number_becomes_one(xy: Xy) -> None:
    """Relations of ten A need one Y; an X that is free is no Y, and a Y is never an X."""
    await xy.emu.numbers(*(f"+86170000003{n:02d}" for n in range(12)))
    owned = [await xy.owned(f"+86139000010{n:02d}") for n in range(10)]
    assert len({await xy.y_of(subscription_id) for subscription_id, _ in owned}) == 1
    assert [(await xy.ax(a)).code for a in (A, B)] == ["0", "1012008"]


async def test_another_apps_ax_is_unknown(xy: Xy) -> None:
    """Neither its id nor its X means anything to another app."""
    subscription_id, x = await xy.owned()
    await xy.emu.app("app-two", "secret-two", mode="axyb")
    for method, query in (
        ("GET", {"subscriptionId": subscription_id}),
        ("GET", {"relationNum": x}),
        ("DELETE", {"subscriptionId": subscription_id}),
    ):
        headers = signed(key="app-two", secret="secret-two")
        keyed = as_query({"app_key": "app-two", **query})
        assert (await xy.emu.send(method, path=PATH, query=keyed, headers=headers)).outcome == (403, "1016001")
    assert len(await xy.emu.bindings()) == 1


async def test_a_y_holds_so_many_relations(tmp_path: Path) -> None:
    """A Y that is full gives way to another number."""
    async with platform(tmp_path, N1, N2, N3, N4, axyb_relations_per_y=1) as xy:
        first, _ = await xy.owned()
        second, _ = await xy.owned(C)
        assert await xy.y_of(first, B) != await xy.y_of(second, B)
        assert (await xy.yb(second, D)).outcome == (403, "1012008")


async def test_one_b_has_one_y_of_an_ax(xy: Xy) -> None:
    """A second Y for the same B under the same AX is 1012010."""
    subscription_id, _ = await xy.owned()
    await xy.y_of(subscription_id)
    assert (await xy.yb(subscription_id)).outcome == (403, "1012010")


async def test_unbind_whole_or_one_relation(xy: Xy) -> None:
    """By Y or by B one relation ends, Y winning over B; the id alone ends the AX with all of them."""
    subscription_id, x = await xy.owned()
    ys = {b: await xy.y_of(subscription_id, b) for b in (B, C, D)}
    assert (await xy.unbind(subscriptionId=subscription_id, yNum=ys[B], bNum=C)).outcome == (200, "0")
    assert await xy.emu.call(A, ys[B]) == (None, None, 8030)
    assert await xy.emu.call(A, ys[C]) == (C, x, 0)
    assert (await xy.unbind(subscriptionId=subscription_id, bNum=C)).outcome == (200, "0")
    assert await xy.emu.call(A, ys[C]) == (None, None, 8030)
    assert (await xy.unbind(subscriptionId=subscription_id, yNum=ys[B])).outcome == (403, "1016001")
    assert (await xy.unbind(subscriptionId=subscription_id, bNum=C)).outcome == (403, "1016001")
    assert (await xy.unbind(subscriptionId=subscription_id)).outcome == (200, "0")
    assert await xy.emu.bindings() == []
    assert (await xy.unbind(subscriptionId=subscription_id)).outcome == (403, "1016001")


async def test_lifetimes(xy: Xy) -> None:
    """The default is two hours; a relation's own lifetime is cut to the AX's, and it never outlives the AX."""
    first, _ = await xy.owned(duration=600, ybDuration=7_776_000)
    short = await xy.y_of(first, B, ybDuration=60)
    cut = await xy.y_of(first, C)
    other, x = await xy.owned(D)
    long = await xy.y_of(other, B, ybDuration=0)
    durations = {row["numY"]: (row["duration"], row["ybDuration"]) for row in await xy.rows(subscriptionId=first)}
    assert durations == {short: ("600", "60"), cut: ("600", "600")}
    await xy.emu.advance(60)
    assert {item["b"] for item in await xy.emu.bindings() if item["a"] == A} == {"", C}
    assert (await xy.yb(first, B, ybDuration=600)).outcome == (200, "0")
    await xy.emu.advance(540)
    assert {item["a"] for item in await xy.emu.bindings()} == {D}
    await xy.emu.advance(6_500)
    assert await xy.emu.call(D, long) == (B, x, 0)
    await xy.emu.advance(100)
    assert await xy.emu.bindings() == []


async def test_without_end(xy: Xy) -> None:
    """A duration of 0 never runs out; a relation under it has its own."""
    subscription_id, x = await xy.owned(duration=0, ybDuration=60)
    y = await xy.y_of(subscription_id)
    await xy.emu.advance(100 * 86_400)
    assert await xy.emu.call(A, y) == (None, None, 8030)
    assert (await xy.emu.call(B, x))[2] == 0


async def test_query(xy: Xy) -> None:
    """By id or X: one row for each relation, or one without Y and B; lifetimes are text."""
    await xy.emu.tones("x.wav", "y.wav", "hint.wav")
    subscription_id, x = await xy.owned(
        duration=600,
        callDirection=2,
        recordFlag=True,
        recordHintTone="hint.wav",
        preVoiceX="x.wav",
        userData="o-1",
    )
    (bare,) = await xy.rows(relationNum=x)
    since = bare.pop("subscribeTime")
    assert len(since) == len("2024-01-20 14:55:00")
    assert bare == {
        "bindId": subscription_id,
        "numA": A,
        "numX": x,
        "recordFlag": "true",
        "recordHintTone": "hint.wav",
        "preVoiceX": "x.wav",
        "callDirection": 2,
        "duration": "600",
        "ybDuration": "0",
        "userData": "o-1",
    }
    y = await xy.y_of(subscription_id, B, preVoiceY="y.wav", userData="o-2")
    (row,) = await xy.rows(subscriptionId=subscription_id)
    assert {name: row[name] for name in ("numY", "numB", "preVoiceY", "preVoiceX", "userData", "ybDuration")} == {
        "numY": y,
        "numB": B,
        "preVoiceY": "y.wav",
        "preVoiceX": "x.wav",
        "userData": "o-2",
        "ybDuration": "0",
    }
    assert (await xy.query(relationNum=y)).outcome == (403, "1016001")
    assert (await xy.query(subscriptionId="none")).outcome == (403, "1016001")
    assert (await xy.query()).outcome == (403, "1010002")


async def test_a_query_shows_five_relations(xy: Xy) -> None:
    """Of six relations the oldest five are shown."""
    await xy.emu.numbers(*(f"+86170000003{n:02d}" for n in range(8)))
    subscription_id, x = await xy.owned()
    parties = [f"+861390000001{n}" for n in range(6)]
    for b in parties:
        await xy.y_of(subscription_id, b)
    assert [row["numB"] for row in await xy.rows(relationNum=x)] == parties[:5]


@pytest.mark.parametrize(
    ("more", "parameter"),
    [
        ({"origNum": None}, "origNum"),
        ({"origNum": "13900000001"}, "origNum"),
        ({"origNum": "+864008001234"}, "origNum"),
        ({"areaCode": None}, "areaCode"),
        ({"areaCode": "755"}, "areaCode"),
        ({"areaMatchMode": 1}, "areaMatchMode"),
        ({"callDirection": 3}, "callDirection"),
        ({"duration": 59}, "duration"),
        ({"duration": 7_776_001}, "duration"),
        ({"duration": "600"}, "duration"),
        ({"ybDuration": 59}, "ybDuration"),
        ({"recordHintTone": "new.wav"}, "recordHintTone"),
        ({"preVoiceX": "new.wav"}, "preVoiceX"),
        ({"userData": "{}"}, "userData"),
    ],
)
async def test_a_bind_is_checked(xy: Xy, more: Json, parameter: str) -> None:
    """Whatever breaks a rule of the table is 1010002 and named, and nothing is bound."""
    fields = {"origNum": A, "areaCode": "0755", **more}
    reply = await xy.post({name: value for name, value in fields.items() if value is not None})
    assert reply.outcome == (403, "1010002")
    assert f" {parameter} " in reply.body["resultdesc"]
    assert await xy.emu.bindings() == []


@pytest.mark.parametrize(
    ("more", "parameter"),
    [
        ({"origNum": None}, "origNum"),
        ({"origNum": A}, "origNum"),
        ({"ybDuration": 59}, "ybDuration"),
        ({"preVoiceY": "new.wav"}, "preVoiceY"),
        ({"areaCode": 755}, "areaCode"),
    ],
)
async def test_the_bind_of_a_relation_is_checked(xy: Xy, more: Json, parameter: str) -> None:
    """A relation's fields are checked likewise; A cannot be its own B."""
    subscription_id, _ = await xy.owned()
    fields = {"origNum": B, "subscriptionId": subscription_id, **more}
    reply = await xy.post({name: value for name, value in fields.items() if value is not None})
    assert reply.outcome == (403, "1010002")
    assert f" {parameter} " in reply.body["resultdesc"]


async def test_an_unknown_ax_takes_no_relation(xy: Xy) -> None:
    """A relation needs a live AX of this app; its own row in the ledger is no such id."""
    subscription_id, _ = await xy.owned()
    await xy.y_of(subscription_id)
    (own,) = [item["subscription_id"] for item in await xy.emu.bindings() if item["y"]]
    assert (await xy.yb(own, C)).outcome == (403, "1016001")
    assert (await xy.yb("none", C)).outcome == (403, "1016001")


async def test_app_key_is_a_parameter_too(xy: Xy) -> None:
    """Each interface wants ``app_key`` in the query string, and the signer's."""
    body = {"origNum": A, "areaCode": "0755"}
    reply = await xy.post(body, query="")
    assert reply.outcome == (403, "1010002")
    assert " app_key " in reply.body["resultdesc"]
    assert (await xy.post(body, query="app_key=another")).outcome == (403, "1010003")
    assert (await xy.emu.send("GET", path=PATH, query="relationNum=1")).outcome == (403, "1010002")
    assert (await xy.emu.send("PUT", path=PATH, query=f"app_key={KEY}", body=body)).http == 405
    assert (await xy.emu.bind(N1)).outcome == (403, "1010040")


async def test_a_number_taken_away_takes_its_bindings(xy: Xy) -> None:
    """Without its X an AX and its relations end, without its Y a relation; with both nothing ends twice."""
    first, x1 = await xy.owned()
    second, x2 = await xy.owned(D)
    y1, y2 = await xy.y_of(first), await xy.y_of(second, C)
    third = ({N1, N2, N3, N4, N5, N6} - {x1, x2, y1, y2}).pop()
    await xy.emu.numbers(x1, x2, third)
    assert {item["subscription_id"] for item in await xy.emu.bindings()} == {first, second}
    y3 = await xy.y_of(first)
    assert (await xy.emu.numbers(x2)).http == 200
    assert y3 != x2
    assert {item["subscription_id"] for item in await xy.emu.bindings()} == {second}


async def test_a_restart_keeps_both_sides(tmp_path: Path) -> None:
    """After a restart, compacted or not, the same X and Y connect the same people and the limits still count."""
    for compact_after in (10_000, 1):
        state = tmp_path / f"state-{compact_after}"
        async with platform(state) as xy:
            subscription_id, x = await xy.owned()
            y = await xy.y_of(subscription_id)
            _, shown, _ = await xy.emu.call(C, x)
            before = await xy.emu.bindings()
        async with emulator(state, compact_after=compact_after) as emu:
            xy = Xy(emu)
            assert await emu.bindings() == before
            assert await emu.call(A, y) == (B, x, 0)
            assert await emu.call(C, x) == (A, shown, 0)
            assert (await xy.yb(subscription_id, C)).outcome == (403, "1012010")
            assert (await xy.unbind(subscriptionId=subscription_id)).outcome == (200, "0")
            assert await emu.bindings() == []
