from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.emulator.support import Emulated, emulator


@pytest.fixture
async def emu(tmp_path: Path) -> AsyncIterator[Emulated]:
    """A fresh emulator with the default settings, an AXB app and three numbers."""
    async with emulator(tmp_path / "state") as running:
        yield running
