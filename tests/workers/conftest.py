from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.store.database import Database
from tests.emulator.support import Emulated, emulator
from tests.workers.rig import Instance, instance, seed


@pytest.fixture
async def emu(tmp_path: Path) -> AsyncIterator[Emulated]:
    """A fresh emulator with an AXB app and three numbers, without flow control."""
    async with emulator(tmp_path / "emulator") as running:
        yield running


@pytest.fixture
async def seeded(database_url: str, emu: Emulated) -> str:
    """The address of a database that knows the emulator's app, as one pool of three numbers."""
    db = Database(database_url, connections=2, timeout_s=5)
    await db.open()
    await seed(db, emu)
    await db.close()
    return database_url


@pytest.fixture
async def one(seeded: str, emu: Emulated) -> AsyncIterator[Instance]:
    """One instance with short times."""
    async with instance(seeded, emu) as running:
        yield running
