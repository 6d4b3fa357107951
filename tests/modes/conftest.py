"""One broker with an app of every mode, and a clock that tests can move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.contract.service import Client, Service, client_of, memory, up, without_sample
from tests.pg import state_folder


@pytest.fixture(scope="package")
def service() -> Iterator[Service]:
    """A broker whose clock, and whose platform's, tests can move."""
    with state_folder(memory()) as folder, up(folder, "--test-clock", "--workers", "2") as running:
        asyncio.run(without_sample(running))
        yield running


@pytest.fixture
async def client(service: Service) -> AsyncIterator[Client]:
    """Requests to it."""
    async with client_of(service) as made:
        yield made
