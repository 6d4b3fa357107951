from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.pg import Databases, state_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty state folder."""
    with state_folder() as made:
        yield made


@pytest.fixture
def make_database(databases: Databases) -> Iterator[Callable[[], str]]:
    """Makes fresh migrated databases for services that run at once."""
    with ExitStack() as stack:

        def make() -> str:
            url = databases.create()
            stack.callback(databases.drop, url)
            return url

        yield make
