from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pg import Databases


@pytest.fixture
def empty_url(databases: Databases) -> Iterator[str]:
    """The address of a fresh database without any migration."""
    url = databases.create_empty()
    yield url
    databases.drop(url)
