from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.support import X1, X2, X3, A, B, C, Emulated, Json, Reply, emulator, signed

PATH = "/rest/httpsessions/callStop/v2.0"


async def dial(emu: Emulated, caller: str = A, to: str = X1) -> str:
    """Place a call that must be connected; returns its session id."""
    answer = (await emu.ask("POST", "calls", {"from": caller, "to": to})).body
    assert answer["state_code"] == 0
    return str(answer["session_id"])


async def calls(emu: Emulated, query: str = "") -> Json:
    """Return a page of the calls that are kept."""
    return (await emu.ask("GET", f"calls{query}")).body


async def stop(emu: Emulated, session_id: object, signal: object = "call_stop", **more: Any) -> Reply:
    """Ask the platform to stop a call."""
    return await emu.send("POST", path=PATH, body={"sessionid": session_id, "signal": signal}, **more)


async def test_a_connected_call_is_up_until_it_is_hung_up(emu: Emulated) -> None:
    """A call stays up however long it takes; hung up, it is over once and for all."""
    subscription_id = await emu.bound(userData="o-1")
    session_id = await dial(emu)
    await emu.advance(86_400)
    (call,) = (await calls(emu))["items"]
    assert {name: call[name] for name in ("session_id", "from", "to", "connected_to", "shown", "subscription_id")} == {
        "session_id": session_id,
        "from": A,
        "to": X1,
        "connected_to": B,
        "shown": X1,
        "subscription_id": subscription_id,
    }
    assert (call["user_data"], call["ended_at"], call["state_code"]) == ("o-1", None, None)
    assert (await emu.ask("DELETE", f"calls/{session_id}")).http == 204
    (call,) = (await calls(emu))["items"]
    assert (call["state_code"], call["recording"]) == (0, None)
    assert call["ended_at"] > call["started_at"]
    assert (await emu.ask("DELETE", f"calls/{session_id}")).http == 404


async def test_session_ids_have_the_platforms_form(emu: Emulated) -> None:
    """Each call has its own id, connected or not; one that reached nobody is not kept."""
    await emu.bound()
    ids = [(await emu.ask("POST", "calls", {"from": who, "to": X1})).body["session_id"] for who in (A, A, C)]
    assert len(set(ids)) == 3
    assert all(re.fullmatch(r"1200_\d+_\d+_\d{14}@emulator", session_id) for session_id in ids)
    assert [call["session_id"] for call in (await calls(emu))["items"]] == ids[:2]
    assert (await stop(emu, ids[2])).outcome == (500, "1020152")


async def test_the_platform_stops_a_call(emu: Emulated) -> None:
    """``call_stop`` ends the call; asked again, or about another, it is 500/1020152."""
    await emu.bound()
    session_id, other = await dial(emu), await dial(emu, B)
    assert (await stop(emu, session_id)).outcome == (200, "0")
    assert [call["state_code"] for call in (await calls(emu))["items"]] == [0, None]
    assert (await stop(emu, session_id)).outcome == (500, "1020152")
    assert (await stop(emu, "1200_1_1_20240123091514@node1")).outcome == (500, "1020152")
    assert (await stop(emu, other)).outcome == (200, "0")


@pytest.mark.parametrize(
    "body",
    [
        {},
        b"{",
        b"[]",
        {"sessionid": "SESSION"},
        {"sessionid": "SESSION", "signal": "stop"},
        {"sessionId": "SESSION", "signal": "call_stop"},
        {"sessionid": 1, "signal": "call_stop"},
        {"sessionid": None, "signal": "call_stop"},
    ],
)
async def test_a_faulty_stop_is_a_parameter_error(emu: Emulated, body: Json | bytes) -> None:
    """Both fields are needed, spelt as documented; the call goes on."""
    await emu.bound()
    session_id = await dial(emu)
    if isinstance(body, dict):
        body = {name: session_id if value == "SESSION" else value for name, value in body.items()}
    assert (await emu.send("POST", path=PATH, body=body)).outcome == (500, "1020001")
    assert (await calls(emu))["items"][0]["state_code"] is None


async def test_only_the_apps_own_calls(emu: Emulated) -> None:
    """Another app's call is an unknown one; a stop is signed like everything else."""
    await emu.bound()
    session_id = await dial(emu)
    await emu.app("app-two", "secret-two", mode="ax")
    other = signed(key="app-two", secret="secret-two")
    assert (await stop(emu, session_id, headers=other)).outcome == (500, "1020152")
    assert (await stop(emu, session_id, headers={})).outcome == (400, "1023006")
    assert (await stop(emu, session_id)).outcome == (200, "0")


async def test_stopping_can_be_for_some_modes_only(tmp_path: Path) -> None:
    """Where the platform lists the interface under AXYB only, an AXB app may not call it."""
    async with emulator(tmp_path, call_stop_modes="axyb") as emu:
        await emu.bound()
        assert (await stop(emu, await dial(emu))).outcome == (403, "1010040")


async def test_a_call_ends_at_its_longest_duration(emu: Emulated) -> None:
    """``maxDuration`` counts from the answer on the emulator's clock; then it is 8010 and nobody can hang up."""
    await emu.bound(maxDuration=2)
    session_id = await dial(emu)
    await emu.advance(100)
    assert (await calls(emu))["items"][0]["state_code"] is None
    await emu.advance(400)
    (call,) = (await calls(emu))["items"]
    assert call["state_code"] == 8010
    assert (await stop(emu, session_id)).outcome == (500, "1020152")
    assert (await emu.ask("DELETE", f"calls/{session_id}")).http == 404


async def test_unbinding_does_not_cut_a_call(emu: Emulated) -> None:
    """A call outlives its binding; only the next one fails."""
    subscription_id = await emu.bound(duration=60)
    session_id = await dial(emu)
    await emu.unbind(subscriptionId=subscription_id)
    assert await emu.call(A, X1) == (None, None, 8014)
    assert (await stop(emu, session_id)).outcome == (200, "0")


async def test_so_many_calls_are_kept(tmp_path: Path) -> None:
    """Beyond the bound the oldest call is hung up and forgotten; the list is paged."""
    async with emulator(tmp_path, keep_calls=3) as emu:
        await emu.bound()
        ids = [await dial(emu) for _ in range(5)]
        first = await calls(emu, "?limit=2")
        rest = await calls(emu, f"?limit=2&after={first['next']}")
        assert [call["session_id"] for call in first["items"] + rest["items"]] == ids[2:]
        assert rest["next"] is None
        assert (await stop(emu, ids[1])).outcome == (500, "1020152")


async def test_stopping_can_be_made_to_fail(emu: Emulated) -> None:
    """Faults name the interface; what is not executed leaves the call up."""
    await emu.bound()
    session_id = await dial(emu)
    await emu.fault(interface="stop", kind="code", code="1020002", count=1)
    assert (await stop(emu, session_id)).outcome == (500, "1020002")
    assert (await stop(emu, session_id)).outcome == (200, "0")
    rows = [row for row in await emu.ledger() if row["op"] == "stop"]
    assert [row["result_code"] for row in rows] == ["1020002", "0"]
    assert len({row["request"] for row in rows}) == 2


@pytest.mark.parametrize("mode", ["ax", "axe", "axyb"])
async def test_calls_of_other_modes_can_be_stopped(tmp_path: Path, mode: str) -> None:
    """A call of each mode belongs to its binding and can be stopped."""
    async with emulator(tmp_path, app={"mode": mode}) as emu:
        await emu.numbers(X1, X2, X3)
        body: Json
        match mode:
            case "ax":
                path, body = "/rest/provision/caas/privatenumber/v1.0", {"privateNum": X1, "calleeNumDisplay": "0"}
            case "axe":
                path, body = "/rest/caas/extendnumber/v1.0", {"virtualNum": X1, "bindNum": A, "extendNum": "0007"}
            case _:
                path, body = "/rest/omp/xyrelationnumber/v1.0", {"areaCode": "0755"}
        reply = await emu.send(path=path, query="app_key=app-one", body={"origNum": A, **body})
        assert reply.outcome == (200, "0"), reply
        x = reply.body.get("relationNumber", X1)
        answer = (await emu.ask("POST", "calls", {"from": B, "to": x, "digits": "0007"})).body
        (call,) = (await calls(emu))["items"]
        assert (call["connected_to"], call["subscription_id"]) == (A, reply.body["subscriptionId"])
        assert (await stop(emu, answer["session_id"])).outcome == (200, "0")
