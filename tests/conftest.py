"""Fixtures of every test: a fresh migrated database, from one server a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pg import Databases, server_url

#: What kills processes and watches the clock wants the machine for itself; scripts/test runs the rest two at a time.
_ALONE = ("bench", "concurrency", "faults", "workers/test_limiter.py")
#: Except these: they wait for conditions with limits of a minute and more, and ask no machine for its speed.
_BESIDE_OTHERS = ("faults/test_evacuation.py", "faults/test_notifications.py", "faults/test_webhooks.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark those tests."""
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here).as_posix()
        if place.startswith(_ALONE) and not place.startswith(_BESIDE_OTHERS):
            item.add_marker("alone")


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
