"""How the service ends: drained by SIGTERM, and without a trace when its parent is killed."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.service import QUICK, Load, alive, descendants, eventually, service

pytestmark = pytest.mark.slow


async def test_sigterm_drains(make_database: Callable[[], str], folder: Path) -> None:
    """Ended in the middle of its load it exits within 15 s, all workers by themselves; nothing accepted is lost."""
    database = make_database()
    async with service(folder, database=database, **QUICK) as running:
        await running.fault(interface="*", kind="delay", ms=150, share=0.5)
        load = Load(running)
        loading = asyncio.create_task(load.run(2000))

        async def busy() -> bool:
            return sum(bool(note.id) for note in load.told) > 60

        await eventually(busy, within_s=20)
        begun = time.monotonic()
        code = await running.stop()
        took_s = time.monotonic() - begun
        loading.cancel()
        with contextlib.suppress(asyncio.CancelledError, AssertionError):
            await loading
        said = [line["event"] for line in running.log()]
    print(f"drained in {took_s:.1f} s")  # noqa: T201
    assert (code, said.count("worker_stopped")) == (0, 2)
    assert took_s <= 15
    async with service(folder, database=database, **QUICK) as again:

        async def settled() -> bool:
            return await again.open_calls() == 0

        await eventually(settled, within_s=15)
        load.service = again
        for note in load.told:
            if note.id:
                shown = await load.show(note)
                assert shown["state"] in ({"active", "released"} if note.release else {"active"}), note
                assert shown["state"] == "released" or not note.released
        assert await again.books() == []


async def test_nothing_outlives_a_killed_parent(folder: Path) -> None:
    """SIGKILL to `up`, with its own database: workers, emulator and PostgreSQL end by themselves."""
    async with service(folder, database=None) as running:
        load = Load(running)
        await load.run(20)
        family = descendants(running.process.pid)
        assert len(family) >= 4
        running.stopped = True
        running.process.send_signal(signal.SIGKILL)
        await running.process.wait()

        async def gone() -> bool:
            return not any(alive(pid) for pid in family)

        begun = time.monotonic()
        await eventually(gone, within_s=20)
        print(f"{len(family)} processes gone {time.monotonic() - begun:.1f} s after their parent")  # noqa: T201
