from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from broker.emulator.journal import Journal, StateDirBusyError
from tests.emulator.support import KEY, SECRET, X1, X2, X3, A, B, C, D, Emulated, emulator


@contextlib.asynccontextmanager
async def process(state_dir: Path, *options: str) -> AsyncIterator[tuple[Emulated, asyncio.subprocess.Process]]:
    """Run an emulator as a process of its own."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker.emulator", "--json", "--state-dir", str(state_dir), *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert server.stdout is not None
    try:
        ready = json.loads(await server.stdout.readline())
        async with aiohttp.ClientSession() as http:
            yield Emulated(ready["emulator"], ready["emulator_admin"], http), server
    finally:
        with contextlib.suppress(ProcessLookupError):
            server.kill()
        await server.wait()


async def test_nothing_acknowledged_is_lost_by_sigkill(tmp_path: Path) -> None:
    """After SIGKILL amid binds, every acknowledged binding is there, and the ledger goes on where it was."""
    acknowledged: set[str] = set()
    async with process(tmp_path) as (emu, server):
        await emu.app()
        await emu.numbers(X1, X2, X3)

        async def binds(lane: int) -> None:
            for index in range(10_000):
                reply = await emu.bind(X1, f"+8613{lane}{index:08d}", f"+8615{lane}{index:08d}")
                acknowledged.add(reply.body["subscriptionId"])
                if len(acknowledged) == 300:
                    server.kill()

        lanes = [asyncio.create_task(binds(lane)) for lane in range(4)]
        await asyncio.wait(lanes)
        assert all(isinstance(lane.exception(), aiohttp.ClientError) for lane in lanes)
    async with process(tmp_path) as (emu, _):
        bound = {item["subscription_id"] for item in await emu.bindings()}
        assert acknowledged <= bound
        rows = await emu.ledger()
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        assert {row["subscription_id"] for row in rows} == bound
        subscription_id = await emu.bound(X2)
        newest = (await emu.ledger())[-1]
        assert (newest["seq"], newest["subscription_id"]) == (len(rows) + 1, subscription_id)
        assert newest["request"] > rows[-1]["request"]


async def test_sigterm_ends_the_process_cleanly(tmp_path: Path) -> None:
    """SIGTERM is exit status 0."""
    async with process(tmp_path) as (_, server):
        server.send_signal(signal.SIGTERM)
        assert await server.wait() == 0


async def test_everything_is_restored(tmp_path: Path) -> None:
    """Apps, limits, numbers, the clock, modified, unbound and expired bindings come back as they were."""
    async with emulator(tmp_path) as emu:
        await emu.app(rate=0.001, burst=50)
        modified = await emu.bound(X1, A, B, duration=500, userData="u")
        await emu.unbind(subscriptionId=await emu.bound(X1, C, D))
        await emu.bound(X2, A, B, duration=10)
        await emu.advance(20)
        await emu.modify(modified, calleeNum=C, callDirection=1, recordFlag="true")
        before = await emu.bindings()
        rows = await emu.ledger()
        queried = (await emu.query(relationNum=X1)).body
    async with emulator(tmp_path) as emu:
        emu.skew_s = 20
        assert await emu.bindings() == before
        assert (await emu.ledger())[: len(rows)] == rows
        assert (await emu.query(relationNum=X1)).body == queried
        assert await emu.call(A, X1) == (C, X1, 0)
        assert (await emu.bind(X2, A, B)).code == "0"
        await emu.advance(480)
        assert [item["x"] for item in await emu.bindings()] == [X2]


async def test_what_expired_while_it_was_down_is_expired_at_start(tmp_path: Path) -> None:
    """A binding whose time ran out between two runs connects nobody, and its expiry is in the ledger."""
    async with emulator(tmp_path) as emu:
        await emu.bound(duration=1)
        expires_at = (await emu.bindings())[0]["expires_at"]
    journal = tmp_path / "journal.jsonl"
    with journal.open("ab") as file:
        file.write(b'{"t":"clock","offset_ms":5000}\n')
    async with emulator(tmp_path) as emu:
        assert await emu.call(A, X1) == (None, None, 8014)
        assert [(row["op"], row["at"]) for row in await emu.ledger()][1:] == [("expire", expires_at)]


async def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    """Half a line at the end, left by a kill, was never acknowledged and does no harm."""
    async with emulator(tmp_path) as emu:
        subscription_id = await emu.bound()
    with (tmp_path / "journal.jsonl").open("ab") as file:
        file.write(b'{"seq":2,"at":"2024-')
    async with emulator(tmp_path) as emu:
        assert [item["subscription_id"] for item in await emu.bindings()] == [subscription_id]
        await emu.bound(X2)
        assert [row["seq"] for row in await emu.ledger()] == [1, 2]


async def test_compaction_keeps_state_and_the_newest_rows(tmp_path: Path) -> None:
    """A start with a long journal rewrites it: state and numbering stay, old rows beyond ``keep_rows`` go."""
    async with emulator(tmp_path) as emu:
        kept = await emu.bound(X1, A, B, duration=500, userData="kept")
        for _ in range(30):
            await emu.unbind(subscriptionId=await emu.bound(X2, A, B))
        before, queried = await emu.bindings(), (await emu.query(relationNum=X1)).body
    size = (tmp_path / "journal.jsonl").stat().st_size
    for _ in range(2):
        async with emulator(tmp_path, compact_after=10, keep_rows=20) as emu:
            assert await emu.bindings() == before
            assert (await emu.query(relationNum=X1)).body == queried
            rows = await emu.ledger()
            assert [row["seq"] for row in rows] == list(range(rows[0]["seq"], rows[-1]["seq"] + 1))
    assert len(rows) == 21  # twenty kept, and the query of this run
    assert rows[-1]["seq"] == 64
    assert (tmp_path / "journal.jsonl").stat().st_size < size
    async with emulator(tmp_path, keep_rows=0, compact_after=1) as emu:
        assert (await emu.unbind(subscriptionId=kept)).code == "0"
        assert [row["seq"] for row in await emu.ledger()] == [65]


async def test_two_emulators_cannot_share_a_folder(tmp_path: Path) -> None:
    """The second one refuses to start."""
    async with emulator(tmp_path):
        with pytest.raises(StateDirBusyError):
            Journal(tmp_path)


async def test_state_is_for_its_owner_only(tmp_path: Path) -> None:
    """The journal holds secrets and numbers: nobody else can read it."""
    async with emulator(tmp_path / "state", compact_after=1) as emu:
        await emu.bound()
    async with emulator(tmp_path / "state", compact_after=1):
        assert (tmp_path / "state" / "journal.jsonl").stat().st_mode & 0o077 == 0
        assert (tmp_path / "state").stat().st_mode & 0o077 == 0


async def test_a_failing_disk_changes_nothing(emu: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the journal cannot be written the answer is 500/1010001 and the binding does not exist."""

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Journal, "append", full)
        assert (await emu.bind()).outcome == (500, "1010001")
    assert await emu.bindings() == []
    assert (await emu.bind()).code == "0"


async def test_nothing_about_numbers_is_logged(tmp_path: Path) -> None:
    """Logs of a run with binds, refusals and calls hold neither phone numbers nor secrets."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker.emulator", "--json", "--state-dir", str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert server.stdout is not None
    ready = json.loads(await server.stdout.readline())
    async with aiohttp.ClientSession() as http:
        emu = Emulated(ready["emulator"], ready["emulator_admin"], http)
        await emu.app()
        await emu.numbers(X1)
        await emu.bound()
        await emu.bind()
        await emu.call(A, X1)
        await emu.ask("POST", "calls", {"from": A})
    server.terminate()
    out, err = await server.communicate()
    for word in (A[3:], B[3:], X1[3:], SECRET, KEY):
        assert word.encode() not in out + err
