from __future__ import annotations

from typing import Any

import pytest

from tests.emulator.support import KEY, X1, X2, X3, A, B, C, D, Emulated


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "apps/k", {"secret": "s"}),
        ("PUT", "apps/k", {"secret": "s", "mode": "abx"}),
        ("PUT", "apps/k", {"secret": "", "mode": "axb"}),
        ("PUT", "apps/k", {"secret": "s", "mode": "axb", "rate": -1}),
        ("PUT", "apps/k", b"{"),
        ("PUT", "apps/nobody/numbers", []),
        ("PUT", f"apps/{KEY}/numbers", {}),
        ("PUT", f"apps/{KEY}/numbers", [{"number": "1"}]),
        ("PUT", f"apps/{KEY}/numbers", [{"number": X1, "area_code": "755"}]),
        ("PUT", f"apps/{KEY}/numbers", [{"number": X1}, {"number": X1}]),
        ("POST", "calls", {"from": A}),
        ("POST", "clock", {"advance_s": -1}),
        ("POST", "clock", {"advance_s": "1"}),
        ("DELETE", "faults/99", None),
        ("DELETE", "faults/x", None),
        ("GET", "ledger?after=x", None),
        ("GET", "ledger?limit=0", None),
        ("GET", "bindings?limit=10001", None),
        ("GET", "nothing", None),
        ("POST", "health", None),
    ],
)
async def test_bad_input_is_a_4xx_with_a_detail(emu: Emulated, method: str, path: str, body: Any) -> None:
    """Whatever is wrong on the admin port is said in one sentence, never with a 5xx."""
    reply = await emu.ask(method, path, body)
    assert 400 <= reply.http < 500
    assert isinstance(reply.body["detail"], str)
    assert A not in reply.body["detail"]


async def test_bindings_are_paged_and_filtered(emu: Emulated) -> None:
    """``after`` walks through all bindings in order of creation, also while some end; x and app_key narrow."""
    ids = [await emu.bound(x, a, b) for x in (X1, X2, X3) for a, b in ((A, B), (C, D))]
    first = (await emu.ask("GET", "bindings?limit=2")).body
    assert [item["subscription_id"] for item in first["items"]] == ids[:2]
    await emu.unbind(subscriptionId=ids[1])
    await emu.unbind(subscriptionId=ids[3])
    rest = (await emu.ask("GET", f"bindings?limit=3&after={first['next']}")).body
    assert [item["subscription_id"] for item in rest["items"]] == [ids[2], ids[4], ids[5]]
    assert rest["next"] is None
    on_x3 = (await emu.ask("GET", f"bindings?x=%2B{X3[1:]}")).body["items"]
    assert [item["subscription_id"] for item in on_x3] == ids[4:]
    assert (await emu.ask("GET", "bindings?app_key=other")).body == {"items": [], "next": None}
    assert on_x3[0] == {
        "subscription_id": ids[4],
        "mode": "axb",
        "x": X3,
        "y": None,
        "extension": None,
        "a": A,
        "b": B,
        "expires_at": None,
        "user_data": None,
        "app_key": KEY,
        "call_direction": 0,
        "max_duration": 0,
        "extras": None,
        "callee": None,
    }


async def test_ledger_is_paged(emu: Emulated) -> None:
    """``next`` leads through the rows and is null at the end."""
    for x in (X1, X2, X3):
        await emu.bound(x)
    first = (await emu.ask("GET", "ledger?limit=2")).body
    assert ([row["seq"] for row in first["items"]], first["next"]) == ([1, 2], 2)
    rest = (await emu.ask("GET", "ledger?limit=2&after=2")).body
    assert ([row["seq"] for row in rest["items"]], rest["next"]) == ([3], None)
    assert (await emu.ask("GET", "ledger?after=3")).body == {"items": [], "next": None}


async def test_numbers_belong_to_one_app(emu: Emulated) -> None:
    """A number of one app cannot be put into another."""
    await emu.app("other", "s")
    assert (await emu.numbers(X1, key="other")).http == 409


async def test_a_number_taken_away_loses_its_bindings(emu: Emulated) -> None:
    """Putting the list without X1 ends what was bound there; the same list again changes nothing."""
    await emu.bound(X1)
    kept = await emu.bound(X2)
    await emu.numbers(X2, X3)
    await emu.numbers(X2, X3)
    assert [item["subscription_id"] for item in await emu.bindings()] == [kept]
    row = (await emu.ledger())[-1]
    assert (row["op"], row["x"], row["reason"], row["request"]) == ("unbind", X1, "number_removed", None)
    assert (await emu.bind(X1)).code == "1012001"


async def test_the_mode_of_an_app_with_numbers_is_fixed(emu: Emulated) -> None:
    """An app has one mode as long as it has numbers."""
    assert (await emu.ask("PUT", f"apps/{KEY}", {"secret": "s", "mode": "ax"})).http == 409


async def test_default_rate_applies_to_apps_without_one(emu: Emulated) -> None:
    """Leaving ``rate`` out takes the setting's 50/s, null and 0 switch flow control off."""
    for more, rate in (({}, 50.0), ({"rate": None}, None), ({"rate": 0}, None), ({"rate": 7}, 7.0)):
        reply = await emu.ask("PUT", "apps/k", {"secret": "s", "mode": "axb", **more})
        assert reply.body["rate"] == rate


async def test_health_counts(emu: Emulated) -> None:
    """Health says what the emulator holds."""
    await emu.bound()
    body = (await emu.ask("GET", "health")).body
    assert (body["status"], body["apps"], body["numbers"], body["bindings"], body["ledger"]) == ("ok", 1, 3, 1, 1)
    assert body["answers"] == {"200/0": 1}
