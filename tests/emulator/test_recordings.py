from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.domain import wav
from tests.emulator.support import X1, A, B, Emulated, Json, Reply, as_query, created_at, emulator, signed

PATH = "/rest/provision/voice/record/v1.0"
WEEK_S = 7 * 86_400


async def recorded(emu: Emulated, seconds: float = 60, **more: Any) -> Json:
    """Make a recorded call of that length; returns its recording."""
    await emu.bound(recordFlag="true", **more)
    answer = (await emu.ask("POST", "calls", {"from": A, "to": X1})).body
    await emu.advance(seconds)
    assert (await emu.ask("DELETE", f"calls/{answer['session_id']}")).http == 204
    (recording,) = await recordings(emu)
    assert recording["session_id"] == answer["session_id"]
    return recording


async def recordings(emu: Emulated) -> list[Json]:
    """Return the recordings that live."""
    return list((await emu.ask("GET", "recordings")).body["items"])


async def look_up(emu: Emulated, recording: Json, **changed: str) -> Reply:
    """Ask for a recording's address without following it."""
    named = {"fileName": recording["record_object_name"], "recordDomain": recording["record_domain"], **changed}
    headers = signed(created=created_at(emu.skew_s))
    async with emu.http.get(f"{emu.wire}{PATH}?{as_query(named)}", headers=headers, allow_redirects=False) as answer:
        raw = await answer.read()
        return Reply(answer.status, await answer.json(content_type=None) if raw else {}, dict(answer.headers))


async def test_a_recording_is_fetched_by_its_address(emu: Emulated) -> None:
    """The look-up redirects without a body; the address needs no signature and gives an A-law wav of the call."""
    recording = await recorded(emu, 4)
    found = await look_up(emu, recording)
    assert (found.http, found.body) == (301, {})
    location = found.headers["Location"]
    assert location.startswith(f"{emu.wire}/")
    async with emu.http.get(location) as answer:
        assert (answer.status, answer.content_type) == (200, "audio/x-wav")
        sound = wav.read(await answer.read())
    assert (sound.tag, sound.channels, sound.rate, sound.bits) == (wav.ALAW, 1, 8_000, 8)
    assert 4_000 <= sound.duration_ms < 30_000
    assert len(set(sound.data)) > 2


async def test_a_long_recording_stays_small(emu: Emulated) -> None:
    """However long the call, the file has half a minute."""
    found = await look_up(emu, await recorded(emu, 3_600))
    async with emu.http.get(found.headers["Location"]) as answer:
        assert wav.read(await answer.read()).duration_ms == 30_000


async def test_what_leaves_no_recording(emu: Emulated) -> None:
    """A call that was not to be recorded, one under three seconds, one that reached nobody."""
    first = await emu.bound()
    await emu.call(A, X1)
    await emu.advance(60)
    await emu.unbind(subscriptionId=first)
    await emu.bound(recordFlag="true", callDirection=1)
    await emu.call(B, X1)
    short = (await emu.ask("POST", "calls", {"from": A, "to": X1})).body["session_id"]
    for call in (await emu.ask("GET", "calls")).body["items"]:
        assert (await emu.ask("DELETE", f"calls/{call['session_id']}")).http == 204
    calls = {call["session_id"]: call for call in (await emu.ask("GET", "calls")).body["items"]}
    call = calls.pop(short)
    lasted = datetime.fromisoformat(call["ended_at"]) - datetime.fromisoformat(call["started_at"])
    assert call["recorded"]
    assert (call["recording"] is None) == (lasted < timedelta(seconds=3))
    assert [other["recording"] for other in calls.values()] == [None]


async def test_a_call_cut_at_its_longest_duration_is_recorded(emu: Emulated) -> None:
    """The recording ends with the call, whenever somebody looks."""
    await emu.bound(recordFlag="true", maxDuration=1)
    await emu.call(A, X1)
    await emu.advance(7_200)
    (recording,) = await recordings(emu)
    lasted = datetime.fromisoformat(recording["ended_at"]) - datetime.fromisoformat(recording["started_at"])
    assert lasted == timedelta(minutes=1)
    (call,) = (await emu.ask("GET", "calls")).body["items"]
    assert (call["recording"], call["ended_at"]) == (recording["record_object_name"], recording["ended_at"])


async def test_files_live_seven_days(emu: Emulated) -> None:
    """After a week the look-up says 1012007, and an address from before leads nowhere."""
    recording = await recorded(emu)
    await emu.advance(WEEK_S - 100)
    location = (await look_up(emu, recording)).headers["Location"]
    await emu.advance(100)
    assert (await look_up(emu, recording)).outcome == (403, "1012007")
    async with emu.http.get(location) as answer:
        assert answer.status == 404
    assert await recordings(emu) == []


async def test_an_address_is_good_for_a_while(tmp_path: Path) -> None:
    """A link can die before its file; the look-up then gives a new one."""
    async with emulator(tmp_path, recording_link_s=60) as emu:
        recording = await recorded(emu)
        location = (await look_up(emu, recording)).headers["Location"]
        await emu.advance(60)
        async with emu.http.get(location) as answer:
            assert answer.status == 404
        async with emu.http.get((await look_up(emu, recording)).headers["Location"]) as answer:
            assert answer.status == 200


async def test_only_what_there_is_and_is_the_apps(emu: Emulated) -> None:
    """A wrong name, a wrong domain and another app's file are 1012007; a missing parameter is 1010002."""
    recording = await recorded(emu)
    assert (await look_up(emu, recording, fileName="none.wav")).outcome == (403, "1012007")
    assert (await look_up(emu, recording, recordDomain="elsewhere")).outcome == (403, "1012007")
    name, domain = recording["record_object_name"], recording["record_domain"]
    await emu.app("app-two", "secret-two")
    foreign = signed(key="app-two", secret="secret-two", created=created_at(emu.skew_s))
    query = as_query({"fileName": name, "recordDomain": domain})
    assert (await emu.send("GET", path=PATH, query=query, headers=foreign)).outcome == (403, "1012007")
    for query, parameter in ((f"fileName={name}", "recordDomain"), (f"recordDomain={domain}", "fileName")):
        reply = await emu.send("GET", path=PATH, query=query)
        assert reply.outcome == (403, "1010002")
        assert f" {parameter} " in reply.body["resultdesc"]


@pytest.mark.parametrize("target", ["", "none.wav", "none.wav?until=99999999999999999999999", "none.wav?until=x"])
async def test_no_such_file(emu: Emulated, target: str) -> None:
    """An address of nothing is an HTTP 404."""
    async with emu.http.get(f"{emu.wire}/recordings/{target}") as answer:
        assert answer.status == 404


async def test_recordings_are_restored(tmp_path: Path) -> None:
    """After a restart, compacted or not, a recording is found until its week is over."""
    async with emulator(tmp_path) as emu:
        recording = await recorded(emu)
        skew_s = emu.skew_s
    for compact_after in (10_000, 1):
        async with emulator(tmp_path, compact_after=compact_after) as emu:
            emu.skew_s = skew_s
            assert await recordings(emu) == [recording]
            assert (await look_up(emu, recording)).http == 301


async def test_so_many_recordings_are_kept(tmp_path: Path) -> None:
    """Beyond the bound the oldest recording goes."""
    async with emulator(tmp_path, keep_recordings=2) as emu:
        await emu.bound(recordFlag="true", maxDuration=1)
        ids = []
        for _ in range(3):
            ids.append((await emu.ask("POST", "calls", {"from": A, "to": X1})).body["session_id"])
            await emu.advance(60)
        assert [recording["session_id"] for recording in await recordings(emu)] == ids[1:]


async def test_a_call_that_makes_room_is_recorded(tmp_path: Path) -> None:
    """The call that a further one hangs up leaves its recording."""
    async with emulator(tmp_path, keep_calls=1) as emu:
        await emu.bound(recordFlag="true")
        first = (await emu.ask("POST", "calls", {"from": A, "to": X1})).body["session_id"]
        await emu.advance(60)
        await emu.call(B, X1)
        assert [recording["session_id"] for recording in await recordings(emu)] == [first]
