from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded.starting import Person, myself, nobody
from tests.pg import state_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that every account can get to."""
    with state_folder() as made:
        yield made


@pytest.fixture(params=["as this user", "as nobody"])
def person(request: pytest.FixtureRequest) -> Person:
    """Who starts the server: this run's user and, in a run of root's, an ordinary one."""
    return nobody() if request.param == "as nobody" else myself()
