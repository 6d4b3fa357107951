from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.edge.rig import Edge, edge_on


@pytest.fixture
async def edge(database_url: str) -> AsyncIterator[Edge]:
    """An edge listener over a fresh shop."""
    async with edge_on(database_url) as served:
        yield served
