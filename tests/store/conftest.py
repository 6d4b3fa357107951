"""A shop in the test's database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broker.store.database import Database
from tests.store.shop import Shop, open_shop


@pytest.fixture
async def shop(database_url: str) -> AsyncIterator[Shop]:
    """One app, two pools of four numbers, eight connections."""
    db = Database(database_url, connections=8, timeout_s=20)
    await db.open()
    yield await open_shop(db)
    await db.close()
