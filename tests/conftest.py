"""Fixtures of every test: a fresh migrated database, from one server a run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pg import Databases, server_url


@pytest.fixture(scope="session")
def databases() -> Iterator[Databases]:
    """The run's server with its migrated template; each xdist worker has its own."""
    with server_url() as url, Databases(url) as made:
        yield made


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """The address (TCP) of a fresh migrated database, dropped after the test."""
    url = databases.create()
    yield url
    databases.drop(url)
