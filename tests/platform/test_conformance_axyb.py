"""The AXYB driver against the emulator over HTTP, and what apps of every mode have beside their bindings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from broker.domain.options import CallOptions
from broker.platform.huawei.app import AppAccess
from broker.platform.huawei.axyb import HuaweiAxyb
from broker.platform.huawei.request import Scheme
from broker.platform.protocol import BindLine, BindPeer, Direction, PlatformLine, Verdict
from tests.emulator.support import KEY, SECRET, X1, X2, X3, A, B, C, D, Emulated, emulator
from tests.platform.emulated import yes


@asynccontextmanager
async def driven(folder: Path) -> AsyncIterator[tuple[Emulated, HuaweiAxyb]]:
    """Run an emulator with an AXYB app of three numbers, and the driver of it."""
    async with emulator(folder, app={"mode": "axyb"}) as emu:
        await emu.numbers(X1, X2, X3)
        driver = HuaweiAxyb(AppAccess(KEY, SECRET, emu.wire, Scheme.AKSK, None), None)
        try:
            yield emu, driver
        finally:
            await driver.close()


async def test_life_of_an_ax_and_its_peers(tmp_path: Path) -> None:
    """Bound, given peers, looked up by id and by X, relieved of one peer, ended with the other."""
    async with driven(tmp_path) as (emu, driver):
        asked = BindLine("", A, direction=Direction.BOTH, ttl_s=600, token="line-1", area_code="0755")
        bound = await driver.bind(asked, permit=yes, timeout_s=60)
        assert bound.verdict is Verdict.DONE
        (ax,) = bound.bindings
        expected = PlatformLine(ax.subscription_id, ax.x, A, "", "line-1", 600, Direction.BOTH)
        assert (await driver.lookup(ax.subscription_id, permit=yes, timeout_s=60)).bindings == (expected,)
        peers = []
        for b in (B, C):
            given = BindPeer(ax.subscription_id, b, ttl_s=60, token=f"peer-{b[-1]}")
            answer = await driver.bind_peer(given, permit=yes, timeout_s=60)
            peers.append(answer.bindings[0].y)
        assert await emu.call(B, ax.x) == (A, peers[0], 0)
        assert await emu.call(A, peers[1]) == (C, ax.x, 0)
        listed = await driver.query(x=ax.x, permit=yes, timeout_s=60)
        assert {(line.b, line.y, line.ttl_s) for line in listed.bindings} == {
            ("", "", 600),
            (B, peers[0], 60),
            (C, peers[1], 60),
        }
        assert {line.subscription_id for line in listed.bindings} == {ax.subscription_id}
        full = await driver.bind_peer(BindPeer(ax.subscription_id, D, 60, ""), permit=yes, timeout_s=60)
        again = await driver.bind_peer(BindPeer(ax.subscription_id, B, 60, ""), permit=yes, timeout_s=60)
        assert (full.verdict, again.verdict) == (Verdict.CAPACITY, Verdict.CONFLICT)
        gone = await driver.unbind_peer(ax.subscription_id, y=peers[0], permit=yes, timeout_s=60)
        assert gone.verdict is Verdict.DONE
        gone = await driver.unbind_peer(ax.subscription_id, y=peers[0], permit=yes, timeout_s=60)
        assert gone.verdict is Verdict.NOT_FOUND
        assert (await driver.unbind(ax.subscription_id, permit=yes, timeout_s=60)).verdict is Verdict.DONE
        assert (await driver.unbind(ax.subscription_id, permit=yes, timeout_s=60)).verdict is Verdict.NOT_FOUND
        assert (await driver.query(x=ax.x, permit=yes, timeout_s=60)).verdict is Verdict.NOT_FOUND
        assert await emu.bindings() == []


async def test_a_call_is_stopped_and_its_recording_found(tmp_path: Path) -> None:
    """A call ends once; the address of its recording is where the file is."""
    async with driven(tmp_path) as (emu, driver):
        asked = BindLine("", A, ttl_s=86_400, area_code="0755", options=CallOptions(recording=True))
        (ax,) = (await driver.bind(asked, permit=yes, timeout_s=60)).bindings
        call = (await emu.ask("POST", "calls", {"from": B, "to": ax.x})).body
        await emu.advance(60)
        driver.set_clock_offset(60)
        assert (await driver.stop_call(call["session_id"], permit=yes, timeout_s=60)).verdict is Verdict.DONE
        assert (await driver.stop_call(call["session_id"], permit=yes, timeout_s=60)).verdict is Verdict.NOT_FOUND
        (recording,) = (await emu.ask("GET", "recordings")).body["items"]
        name, domain = recording["record_object_name"], recording["record_domain"]
        found = await driver.recording(name, domain, permit=yes, timeout_s=60)
        assert found.verdict is Verdict.DONE
        async with emu.http.get(found.location) as file:
            assert (file.status, (await file.read())[:4]) == (200, b"RIFF")
        missing = await driver.recording("none.wav", domain, permit=yes, timeout_s=60)
        assert missing.verdict is Verdict.NOT_FOUND
